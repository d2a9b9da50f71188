"""Detecting the learned keypoints on images: maps averaged over views (Eq. 11), read-out, confidence, occlusion."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..attention import tiled, token_maps
from ..attention.readout import moments, peaks, read_out, share_at, spatial_mean
from ..backbone.backbone import Backbone
from ..backbone.devices import out_of_memory
from ..config import DetectConfig
from ..errors import KeypointError, check_type
from ..images import affine
from ..images.ensembling import average_views
from ..images.image_set import as_image_set
from ..images.masks import Masks, checked_masks, mask_of
from ..images.preprocessing import InputTransform, input_mask, to_model_input
from ..keypoints.keypoints import Keypoints
from ..keypoints.read_settings import LEARNED_PROMPT
from ..keypoints.tokens import KeypointTokens
from ..progress import DETECTING, Progress, known_total, silent
from ..randomness import generator_for
from ..selection.occlusion import load_occlusion_network, occlusion_probability
from ..selection.refinement import neutral_prompt

SPREAD = 0.1  # sides of the model input: a spread of the views by this much lowers the confidence to 0.6
WIDTH = 0.2  # sides of the model input: so does a map of a refined token with this standard deviation


@dataclass(frozen=True)
class Detection:
    """The result of a detection.

    keypoints: in pixels of each image. spread: float32 [B, K], the mean distance of the peaks in single views from the
    result, in sides of the model input. maps: float32 [B, K, R, R] in [0, 1] on the model input, or None: token maps,
    or for refined tokens the probability of each position divided by the highest one.
    """

    keypoints: Keypoints
    spread: np.ndarray
    maps: torch.Tensor | None = None


def maps_on_image(maps: torch.Tensor, transform: InputTransform, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Transform maps [K, R, R] on the model input to maps [K, H, W] on the image; the bars of "pad" are cut off.

    size: (width, height) of the result in pixels, R x R by default; it covers the image whatever its shape.
    """
    t, (width, height) = transform, size or tuple(maps.shape[:0:-1])
    theta = torch.tensor(
        [[[t.span_x, 0, 2 * t.left + t.span_x - 1], [0, t.span_y, 2 * t.top + t.span_y - 1]]]
    )  # pixels of the result to coordinates of the model input, both in [-1, 1]
    grid = F.affine_grid(theta.to(maps), [1, len(maps), height, width], align_corners=False)
    return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


class Detector:
    """A backbone, tokens and settings that detect keypoints on any number of images; holds no image between calls.

    Raises KeypointError for tokens of another width than the model's.
    """

    def __init__(self, backbone: Backbone, tokens: KeypointTokens, config: DetectConfig | None = None):
        config = DetectConfig() if config is None else config
        check_type("tokens", tokens, KeypointTokens, "use KeypointTokens.load")
        check_type("config", config, DetectConfig)
        tokens.check_model(backbone.hash, backbone.width)
        self.backbone, self.config = backbone, config
        self.tokens = tokens = tokens.read(self.config.read)
        self.reading = tokens.reading
        self.side = backbone.input_side(self.reading.image_size)
        self.size = self.config.map_size or self.reading.map_size
        self.at_once = self.config.batch_size  # views per pass; lowered when memory runs out
        self.embeddings = tokens.embeddings.to(backbone.device)
        self.chosen = torch.tensor(tokens.chosen, device=backbone.device)
        self.refined = self.occlusion_net = None
        if tokens.refined is not None:
            self.refined = tokens.refined.to(backbone.device)  # [K, L, D]
            if tokens.occlusion is not None:
                self.occlusion_net = load_occlusion_network(tokens.occlusion, backbone.device)
        #: The reference peak score of each keypoint, [K] in (0, 1]: the median on the training images.
        scores = tokens.scores if self.refined is None else ()
        self.reference = torch.tensor(scores or (1.0,) * tokens.num_keypoints).clamp(min=1e-6)
        r, seed = self.reading, self.config.seed
        self.theta = affine.random_affine(
            self.config.views, r.rotation, r.scale, r.translation, generator_for(seed, "detection views")
        )  # [V, 2, 3]
        if self.config.identity:
            self.theta = torch.cat([affine.identity_affine(1), self.theta])

    @torch.no_grad()
    def maps(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Average the maps of the views of model inputs [I, 3, S, S] in [0, 1] (Eq. 11).

        Returns the maps [I, K, R, R], the peaks in each view [I, V, K, 2] in the unit square of the image, and the
        probability of occlusion at each position [I, R, R], or None for tokens without an occlusion network. Raises
        KeypointError when memory does not suffice for one view.
        """
        images, views = len(inputs), len(self.theta)
        theta = self.theta.repeat(images, 1, 1)  # [I*V, 2, 3]
        image, parts, start = torch.arange(images).repeat_interleave(views), [], 0
        with tiled.restored_tiles():
            while start < images * views:
                some = slice(start, start + self.at_once)
                try:
                    parts.append(self._view_maps(inputs[image[some]], theta[some], start))
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    self._make_smaller(error)
                    continue
                start += self.at_once
        maps, theta = torch.cat(parts), theta.to(self.backbone.device)  # [I*V, K or K + 1, R, R]
        count = self.tokens.num_keypoints
        xy = (peaks(maps[:, :count]).flip(-1) + 0.5) / self.size  # [I*V, K, 2]
        found = affine.view_to_image(xy, theta).unflatten(0, (images, views))
        maps = average_views(maps, theta, images)
        return maps[:, :count], found, maps[:, count] if self.occlusion_net is not None else None

    def _make_smaller(self, error: RuntimeError) -> None:
        if self.at_once == 1 and not tiled.halve_tiles():
            raise KeypointError(
                "There is not enough memory for one view; lower map_size, use fp16, or another device."
            ) from error
        self.at_once = (self.at_once + 1) // 2
        warnings.warn(f"Out of memory: going on with {self.at_once} views at a time.", stacklevel=2)

    def _view_maps(self, images: torch.Tensor, theta: torch.Tensor, start: int) -> torch.Tensor:
        """Maps [b, K, R, R] of the chosen tokens in the frame of each view; with an occlusion network [b, K + 1, R, R],
        the last one being the probability of occlusion."""
        latents = self.backbone.encode(affine.warp(images, theta))
        noise = torch.stack(
            [self._noise((start + i) % len(self.theta), latents.shape[1:]) for i in range(len(latents))]
        )
        maps = self._token_maps(self.backbone.add_noise(latents, noise.to(latents.device), self.reading.timestep))
        if self.size != self.reading.map_size:
            maps = F.interpolate(maps, size=(self.size,) * 2, mode="bilinear", align_corners=False)
        return maps

    def _noise(self, view: int, shape: torch.Size) -> torch.Tensor:
        """The noise of one view, the same for every image."""
        return torch.randn(shape, generator=generator_for(self.config.seed, "detection noise", view, 0))

    def _token_maps(self, noisy: torch.Tensor) -> torch.Tensor:
        """Maps [b, K, R, R] of the chosen tokens on noisy latents [b, 4, h, w], then the probability of occlusion."""
        r = self.reading
        if self.refined is not None:
            queries = self.backbone.queries(noisy, r.timestep, neutral_prompt(self.embeddings))
            maps = token_maps.spatial_softmax_maps(self.backbone.logits(queries, self.refined), r.map_size)
            if self.occlusion_net is None:
                return maps
            features = token_maps.stacked_features(self.backbone.features(queries))
            front = occlusion_probability(self.occlusion_net, features)  # [b, 1, g, g]
            front = F.interpolate(front, size=(r.map_size,) * 2, mode="bilinear", align_corners=False)
            return torch.cat([maps, front], 1)
        exact = r.prompt == LEARNED_PROMPT
        logits = self.backbone.token_logits(noisy, r.timestep, self.embeddings, "exact" if exact else "cached")
        if r.upsample == "maps":
            return token_maps.coarse_maps(logits, r.map_size)[:, self.chosen]
        return token_maps.token_maps(logits, r.map_size, self.chosen)

    def occlusion(self, maps: torch.Tensor, front: torch.Tensor | None) -> np.ndarray:
        """The probability that each keypoint is occluded: float32 [I, K] in [0, 1].

        maps: averaged maps [I, K, R, R]. front: the probability of occlusion at each position, [I, R, R]; the result is
        its mean around the expected position of the keypoint given the others (spatial prior). 0 when `front` is None
        or the tokens hold no spatial prior.
        """
        if front is None or self.tokens.spatial_prior is None:
            return np.zeros(maps.shape[:2], np.float32)
        expected = self.tokens.spatial_prior.expected(*moments(maps))
        return share_at(front, *expected).clamp(0, 1).float().cpu().numpy()

    def unit_points(self, maps: torch.Tensor, peaks: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read out averaged maps: positions xy [I, K, 2] in the unit square of the model input, confidence [I, K] in
        [0, 1], and spread [I, K] in sides of it.

        maps: [I, K, R, R]. peaks: those of each view, [I, V, K, 2] in the unit square. Spread is their mean distance
        from xy over the views that contain the point. Confidence is the consistency of the point with the others
        (SpatialPrior.consistency), times, for refined tokens, exp(-w^2 / (2 x 0.2^2)) of the width w of its map, and
        otherwise the ratio of its peak score to the reference peak score, at most 1, times exp(-s^2 / (2 x 0.1^2)) of
        its spread s.
        """
        radius = self.config.window * self.reading.sigma * self.size / self.reading.map_size
        xy, score = read_out(maps, self.config.readout, radius)
        if self.refined is not None:
            mean, width = spatial_mean(maps)
            xy = xy if self.config.readout == "argmax" else mean
        seen = affine.visible(xy, self.theta).float()  # [I, V, K]
        spread = ((peaks - xy[:, None]).norm(dim=-1) * seen).sum(1) / seen.sum(1).clamp(min=1)  # [I, K]
        if self.refined is not None:
            confidence = torch.exp(-((width / WIDTH) ** 2) / 2)
        else:
            confidence = (score / self.reference.to(maps)).clamp(0, 1) * torch.exp(-((spread / SPREAD) ** 2) / 2)
        if self.tokens.spatial_prior is not None:
            confidence = confidence * self.tokens.spatial_prior.consistency(xy)
        return xy.cpu().numpy(), confidence.float().cpu().numpy(), spread.float().cpu().numpy()

    def area(self, transform: InputTransform, mask: np.ndarray | None) -> torch.Tensor:
        """How much each pixel of the maps of one image counts: float32 [1, R, R] in [0, 1]; 0 in the bars of "pad".

        mask: [H, W], white where the object is (see `input_mask`), or None.
        """
        area = input_mask(transform, self.side, mask)[None]
        return F.interpolate(area, (self.size,) * 2, mode="area")[0].to(self.backbone.device)

    def model_input(self, image: np.ndarray) -> tuple[torch.Tensor, InputTransform]:
        """The model input [3, S, S] in [0, 1] of an image uint8 RGB [H, W, 3], and the transform between both."""
        return to_model_input(image, self.side, self.reading.resize)

    def stream(
        self, images: Iterable[tuple[str, np.ndarray]], keep_maps: bool = False, masks: Masks | None = None
    ) -> Iterator[Detection]:
        """Yield a Detection for each (name, uint8 RGB [H, W, 3]), in order; several images share a pass.

        keep_maps: with their maps. masks: where the object is on each image, by its name; attention outside is ignored.
        """
        masks = checked_masks(masks)
        group: list[tuple[str, np.ndarray]] = []
        room = max(1, self.config.batch_size // len(self.theta))
        for item in images:
            group.append(item)
            if len(group) == room:
                yield from self._group(group, keep_maps, masks)
                group = []
        if group:
            yield from self._group(group, keep_maps, masks)

    def _group(self, group: list[tuple[str, np.ndarray]], keep_maps: bool, masks: Masks | None) -> Iterator[Detection]:
        inputs, transforms = zip(*(self.model_input(image) for _, image in group), strict=True)
        maps, peaks, front = self.maps(torch.stack(inputs))
        area = None
        if masks is not None or self.reading.resize == "pad":
            given = [mask_of(masks, name) for name, _ in group]
            area = torch.stack([self.area(t, mask) for t, mask in zip(transforms, given, strict=True)])  # [I, 1, R, R]
            maps = maps * area
        xy, confidence, spread = self.unit_points(maps, peaks)
        occluded = self.occlusion(maps, front)
        if area is not None:
            confidence[~area.flatten(1).any(1).cpu().numpy()] = 0  # the mask says that there is nothing
        if self.refined is not None and keep_maps:
            maps = maps / maps.flatten(-2).amax(-1)[..., None, None].clamp(min=1e-12)
        for i, (name, _) in enumerate(group):
            transform = transforms[i]
            points = Keypoints(
                xy=transform.to_original(xy[i]).astype(np.float32)[None],
                confidence=confidence[i][None],
                occluded=occluded[i][None],
                sizes=np.array([[transform.width, transform.height]]),
                names=self.tokens.names,
                skeleton=self.tokens.skeleton,
                images=(name,),
                colors=self.tokens.colors,
            )
            yield Detection(points, spread[i][None], maps[i : i + 1].cpu() if keep_maps else None)


def detect(
    backbone: Backbone,
    tokens: KeypointTokens,
    images: Any,
    config: DetectConfig | None = None,
    *,
    keep_maps: bool = False,
    on_progress: Progress | None = None,
    masks: Masks | None = None,
) -> Detection:
    """Detect the keypoints of `tokens` on images.

    images: anything that `as_image_set` takes, or an iterator of (name, uint8 RGB [H, W, 3]). keep_maps: return the
    maps [B, K, R, R] too; their memory grows with the number of images. on_progress: see progress.py; its total is 0
    for an iterator. masks: where the object is on each image, by its name; attention outside is ignored, and confidence
    is 0 for a mask that is black everywhere. Raises KeypointError for tokens of another width than the model's and when
    no image can be read.
    """
    images = images if isinstance(images, Iterator) else as_image_set(images)
    stream = Detector(backbone, tokens, config).stream(images, keep_maps, masks)
    return collect(stream, keep_maps, known_total(images), on_progress)


def collect(stream: Iterable[Detection], keep_maps: bool, total: int, on_progress: Progress | None = None) -> Detection:
    """Join the detections of single images; total: how many there will be, 0 where that is not known."""
    parts: list[Detection] = []
    on_progress = on_progress or silent
    on_progress(DETECTING, 0, total)
    for part in stream:
        parts.append(part)
        on_progress(DETECTING, len(parts), total)
    return Detection(
        Keypoints.concat([p.keypoints for p in parts]),
        np.concatenate([p.spread for p in parts]),
        torch.cat([p.maps for p in parts]) if keep_maps else None,
    )
