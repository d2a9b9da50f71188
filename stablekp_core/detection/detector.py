"""Finding the learned keypoints on images: averaged views (test-time augmentation), read-out, confidence."""

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
from ..errors import KeypointError
from ..images import affine
from ..images.ensembling import average_views
from ..images.image_set import as_image_set
from ..images.masks import Masks
from ..images.preprocessing import InputTransform, input_mask, to_model_input
from ..keypoints.keypoints import Keypoints
from ..keypoints.read_settings import LEARNED_PROMPT
from ..keypoints.tokens import KeypointTokens
from ..progress import DETECTING, Progress, known_total, silent
from ..randomness import generator_for
from ..selection.occlusion import load_occlusion_network, occlusion_probability
from ..selection.refinement import neutral_prompt

SPREAD = 0.1  # sides of the model input: views that disagree by this much lower the confidence to 0.6
WIDTH = 0.2  # sides of the model input: so does a refined token's map of this standard deviation


@dataclass(frozen=True)
class Detection:
    """keypoints: in pixels of each image. spread: float32 [B, K], mean distance of single views' peaks from the
    result, share of the model input's side. maps: float32 [B, K, R, R] in [0, 1] on the model input, or None: the
    attention, or for refined tokens the probability of each position, in units of the highest one's."""

    keypoints: Keypoints
    spread: np.ndarray
    maps: torch.Tensor | None = None


def maps_on_image(maps: torch.Tensor, transform: InputTransform, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Maps [K, R, R] on the model input -> [K, H, W] on the image alone: bars that pad it are cut off.

    size: (width, height) of the result in pixels, by default R x R, which covers the image too.
    """
    t, (width, height) = transform, size or tuple(maps.shape[:0:-1])
    theta = torch.tensor(
        [[[t.span_x, 0, 2 * t.left + t.span_x - 1], [0, t.span_y, 2 * t.top + t.span_y - 1]]]
    )  # pixels of the result to coordinates of the model input, both in [-1, 1]
    grid = F.affine_grid(theta.to(maps), [1, len(maps), height, width], align_corners=False)
    return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


class Detector:
    """A backbone, tokens and settings, ready for any number of images; holds no image between calls."""

    def __init__(self, backbone: Backbone, tokens: KeypointTokens, config: DetectConfig | None = None):
        tokens.check_model(backbone.hash, backbone.width)
        self.backbone, self.config = backbone, config or DetectConfig()
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
        #: What 1 in the maps of each keypoint is measured against: the score of its peak on the training images.
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
        """Model inputs [I, 3, S, S] in [0, 1] -> averaged maps [I, K, R, R] (Eq. 11), each view's peaks [I, V, K, 2] in
        the images' unit squares, and how likely something lies in front at each position [I, R, R], if the tokens
        tell."""
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
        """[b, K, R, R]: maps of the chosen tokens, in the views' frames, and behind them [b, K + 1, R, R] what lies in
        front, if the tokens tell."""
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
        """Maps [b, K, R, R] of the chosen tokens on noisy latents [b, 4, h, w], and behind them what lies in front."""
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
        """float32 [I, K] in [0, 1]: how likely each keypoint is occluded, of averaged maps [I, K, R, R] and how likely
        something lies in front at each position [I, R, R]: the mean of the latter around where the spatial prior
        expects the keypoint, given the others. 0 for tokens that do not tell."""
        if front is None or self.tokens.spatial_prior is None:
            return np.zeros(maps.shape[:2], np.float32)
        expected = self.tokens.spatial_prior.expected(*moments(maps))
        return share_at(front, *expected).clamp(0, 1).float().cpu().numpy()

    def unit_points(self, maps: torch.Tensor, peaks: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read out averaged maps: (xy [I, K, 2] in the unit square, confidence [I, K], spread [I, K]).

        Confidence is how well the point fits the other points (SpatialPrior.agreement), times, for refined tokens,
        exp(-w^2 / (2 x 0.2^2)) of the width w of its map, and otherwise the score of the averaged peak against the
        reference peak score of this keypoint (1 when it is as high, at most 1) times exp(-s^2 / (2 x 0.1^2)) of its
        spread s. Spread is over the views that could see the point.
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
            confidence = confidence * self.tokens.spatial_prior.agreement(xy)
        return xy.cpu().numpy(), confidence.float().cpu().numpy(), spread.float().cpu().numpy()

    def area(self, transform: InputTransform, mask: np.ndarray | None) -> torch.Tensor:
        """float32 [1, R, R]: how much each pixel of the maps counts on one image, of which `mask` (white = object)
        may rule out a part; bars that pad it never count."""
        area = input_mask(transform, self.side, mask)[None]
        return F.interpolate(area, (self.size,) * 2, mode="area")[0].to(self.backbone.device)

    def model_input(self, image: np.ndarray) -> tuple[torch.Tensor, InputTransform]:
        """The model input [3, S, S] of one uint8 RGB image, and the transform between it and the image's pixels."""
        return to_model_input(image, self.side, self.reading.resize)

    def stream(
        self, images: Iterable[tuple[str, np.ndarray]], keep_maps: bool = False, masks: Masks | None = None
    ) -> Iterator[Detection]:
        """One Detection per image of (name, uint8 [H, W, 3]) pairs, in order; images share passes. masks: where the
        object is on each image; attention outside does not count."""
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
            given = [masks(name) if masks else None for name, _ in group]
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
    """Find the keypoints of `tokens` on images: whatever `as_image_set` takes, or an iterator of (name, uint8 RGB)
    pairs.

    on_progress: see progress.py; its total is 0 for images that come from an iterator. Maps are kept only when asked
    for: they grow with the number of images. masks: where the object is on each image, by its name; attention outside
    does not count, and under a mask that is black all over confidence is 0. Raises KeypointError for tokens of another
    width and when no image can be read.
    """
    images = images if isinstance(images, Iterator) else as_image_set(images)
    stream = Detector(backbone, tokens, config).stream(images, keep_maps, masks)
    return collect(stream, keep_maps, known_total(images), on_progress)


def collect(stream: Iterable[Detection], keep_maps: bool, total: int, on_progress: Progress | None = None) -> Detection:
    """The detections of single images, `total` of them or 0 where that is not known, as one."""
    parts: list[Detection] = []
    on_progress = on_progress or silent
    for part in stream:
        parts.append(part)
        on_progress(DETECTING, len(parts), total)
    return Detection(
        Keypoints.concat([p.keypoints for p in parts]),
        np.concatenate([p.spread for p in parts]),
        torch.cat([p.maps for p in parts]) if keep_maps else None,
    )
