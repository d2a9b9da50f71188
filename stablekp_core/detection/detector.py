"""Finding the learned keypoints on pictures: averaged views (test-time augmentation), read-out, confidence."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..attention import tiled, token_maps
from ..attention.readout import moments, peaks, place, read_out, share_at
from ..backbone.backbone import Backbone
from ..backbone.devices import out_of_memory
from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from ..images import affine
from ..images.ensembling import average_views
from ..images.image_set import ImageSet, to_square
from ..images.masks import Masks
from ..images.preprocessing import SquareMap, square_mask
from ..keypoints.keypoints import Keypoints
from ..keypoints.tokens import KeypointTokens
from ..randomness import generator_for
from ..selection.refinement import neutral_prompt

SPREAD = 0.1  # sides of the square: views that disagree by this much lower the confidence to 0.6
WIDTH = 0.2  # sides of the square: so does a refined token's map of this standard deviation


@dataclass(frozen=True)
class Detection:
    """keypoints: in pixels of each picture. spread: float32 [B, K], mean distance of single views' peaks from the
    result, share of the square's side. maps: float32 [B, K, R, R] in [0, 1] on the model's square, or None: the
    attention, or for refined tokens the probability of each place, in units of the highest one's."""

    keypoints: Keypoints
    spread: np.ndarray
    maps: torch.Tensor | None = None


def picture_maps(maps: torch.Tensor, way: SquareMap) -> torch.Tensor:
    """Maps [K, R, R] on the model's square -> [K, R, R] on the picture alone: bars that pad it are cut off."""
    theta = torch.tensor(
        [[way.span_x, 0, 2 * way.left + way.span_x - 1], [0, way.span_y, 2 * way.top + way.span_y - 1]]
    )
    return affine.warp(maps[None], theta[None].to(maps))[0]


class Detector:
    """A backbone, tokens and settings, ready for any number of pictures; holds no picture between calls."""

    def __init__(self, backbone: Backbone, tokens: KeypointTokens, config: DetectConfig | None = None):
        tokens.check_model(backbone.hash, backbone.width)
        self.backbone, self.tokens, self.config = backbone, tokens, config or DetectConfig()
        self.training = (
            TrainConfig.from_dict(tokens.config)
            if tokens.config
            else TrainConfig(
                keypoints=tokens.num_keypoints,
                tokens=len(tokens.embeddings),
                candidates=max(tokens.num_keypoints, min(25, len(tokens.embeddings))),
            )
        )
        self.side = backbone.picture_side(self.training.image_size)
        self.size = self.config.map_size or self.training.map_size
        self.at_once = self.config.batch_size  # views per pass; lowered when memory runs out
        self.embeddings = tokens.embeddings.to(backbone.device)
        self.chosen = torch.tensor(tokens.chosen, device=backbone.device)
        self.refined = self.occluder = None  # [K, L, D], with flip_symmetry [2K, L, D]
        if self.config.refined and tokens.refined is not None:
            count = tokens.num_keypoints * (2 if self.config.flip_symmetry else 1)
            self.refined = tokens.refined[:count].to(backbone.device)
            self.occluder = tokens.occluder and tokens.occluder.to(backbone.device)
        #: What 1 in the maps of each keypoint is measured against: how high its peak was on the training pictures.
        scores = tokens.scores if self.refined is None else ()
        self.usual = torch.tensor(scores or (1.0,) * tokens.num_keypoints).clamp(min=1e-6)
        t, seed = self.training, self.config.seed
        theta = affine.random_affine(
            self.config.views, t.rotation, t.scale, t.translation, generator_for(seed, "detection views")
        )
        if self.config.identity:
            theta = torch.cat([affine.identity_affine(1), theta])
        self.mirrored = torch.zeros(len(theta), dtype=torch.bool)  # [V]
        if self.config.flip_symmetry:
            if not tokens.partners:
                raise KeypointError(
                    "These tokens do not know their mirror partners; train with flip_symmetry, or detect without it."
                )
            self.mirrored[1::2] = True
            self.chosen = torch.tensor(tokens.chosen + tokens.partners, device=backbone.device)  # [2K]
        self.theta = torch.where(self.mirrored[:, None, None], affine.mirror(theta), theta)  # [V, 2, 3]

    @torch.no_grad()
    def maps(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """squares [I, 3, S, S] in [0, 1] -> averaged maps [I, K, R, R], each view's peaks [I, V, K, 2] in the pictures'
        unit squares, and how likely something lies in front at each place [I, R, R], if the tokens tell."""
        images, views = len(squares), len(self.theta)
        theta = self.theta.repeat(images, 1, 1)  # [I*V, 2, 3]
        picture, parts, start = torch.arange(images).repeat_interleave(views), [], 0
        while start < images * views:
            some = slice(start, start + self.at_once)
            try:
                parts.append(self._view_maps(squares[picture[some]], theta[some], start))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._make_smaller(error)
                continue
            start += self.at_once
        maps, theta = torch.cat(parts), theta.to(self.backbone.device)  # [I*V, K or K + 1, R, R]
        count = self.tokens.num_keypoints
        xy = (peaks(maps[:, :count]).flip(-1) + 0.5) / self.size  # [I*V, K, 2]
        found = affine.view_to_picture(xy, theta).unflatten(0, (images, views))
        maps = average_views(maps, theta, images)
        return maps[:, :count], found, maps[:, count] if self.occluder is not None else None

    def _make_smaller(self, error: RuntimeError) -> None:
        if self.at_once == 1 and not tiled.halve_tiles():
            raise KeypointError(
                "There is not enough memory for one view; lower map_size, use fp16, or another device."
            ) from error
        self.at_once = (self.at_once + 1) // 2
        warnings.warn(f"Out of memory: going on with {self.at_once} views at a time.", stacklevel=2)

    def _view_maps(self, pictures: torch.Tensor, theta: torch.Tensor, start: int) -> torch.Tensor:
        """[b, K, R, R]: maps of the chosen tokens, in the views' frames, averaged over noise draws, and behind them
        [b, K + 1, R, R] what lies in front, if the tokens tell."""
        latents = self.backbone.encode(affine.warp(pictures, theta))
        t, total = self.training, 0.0
        for draw in range(self.config.noise_draws):
            noise = torch.stack(
                [
                    torch.randn(
                        latents.shape[1:],
                        generator=generator_for(
                            self.config.seed, "detection noise", (start + i) % len(self.theta), draw
                        ),
                    )
                    for i in range(len(latents))
                ]
            )
            total = total + self._token_maps(self.backbone.add_noise(latents, noise.to(latents.device), t.timestep))
        total = total / self.config.noise_draws
        if self.config.flip_symmetry:
            count = self.tokens.num_keypoints
            own, partners, rest = total[:, :count], total[:, count : 2 * count], total[:, 2 * count :]
            mirrored = self.mirrored[torch.arange(start, start + len(total)) % len(self.theta)]
            total = torch.where(mirrored.to(own.device)[:, None, None, None], partners, own)
            total = torch.cat([total, rest], 1)
        if self.size != t.map_size:
            total = torch.nn.functional.interpolate(total, size=(self.size,) * 2, mode="bilinear", align_corners=False)
        return total

    def _token_maps(self, noisy: torch.Tensor) -> torch.Tensor:
        """Maps [b, K, R, R] of the chosen tokens on noisy latents [b, 4, h, w], and behind them what lies in front."""
        t = self.training
        if self.refined is not None:
            queries = self.backbone.queries(noisy, t.timestep, neutral_prompt(self.embeddings))
            maps = token_maps.place_maps(self.backbone.logits(queries, self.refined), t.map_size)
            if self.occluder is None:
                return maps
            front = self.occluder(token_maps.stacked_features(self.backbone.features(queries)))  # [b, 1, g, g]
            size = (t.map_size,) * 2
            front = torch.nn.functional.interpolate(front, size=size, mode="bilinear", align_corners=False)
            return torch.cat([maps, front], 1)
        logits = self.backbone.token_logits(noisy, t.timestep, self.embeddings, t.gradient)
        if t.upsample == "maps":
            return token_maps.coarse_maps(logits, t.map_size)[:, self.chosen]
        return token_maps.token_maps(logits, t.map_size, self.chosen)

    def hidden(self, maps: torch.Tensor, front: torch.Tensor | None) -> np.ndarray:
        """float32 [I, K] in [0, 1]: how likely each keypoint is hidden, of averaged maps [I, K, R, R] and how likely
        something lies in front at each place [I, R, R]: the mean of the latter around where the other keypoints say
        that it is. 0 for tokens that do not tell."""
        if front is None or self.tokens.peers is None:
            return np.zeros(maps.shape[:2], np.float32)
        return share_at(front, *self.tokens.peers.expected(*moments(maps))).clamp(0, 1).float().cpu().numpy()

    def unit_points(self, maps: torch.Tensor, peaks: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read out averaged maps: (xy [I, K, 2] in the unit square, confidence [I, K], spread [I, K]).

        Confidence is how well the point fits the other points (prediction.Peers), times, for refined tokens,
        exp(-w^2 / (2 x 0.2^2)) of the width w of its map, and otherwise the height of the averaged peak against the
        height this keypoint had on the training pictures (1 when it is as high, at most 1) times
        exp(-s^2 / (2 x 0.1^2)) of its spread s. Spread is over the views that could see the point.
        """
        radius = self.config.window * self.training.sigma * self.size / self.training.map_size
        xy, height = read_out(maps, self.config.readout, radius)
        if self.refined is not None:
            mean, width = place(maps)
            xy = xy if self.config.readout == "argmax" else mean
        seen = affine.visible(xy, self.theta).float()  # [I, V, K]
        spread = ((peaks - xy[:, None]).norm(dim=-1) * seen).sum(1) / seen.sum(1).clamp(min=1)  # [I, K]
        if self.refined is not None:
            confidence = torch.exp(-((width / WIDTH) ** 2) / 2)
        else:
            confidence = (height / self.usual.to(maps)).clamp(0, 1) * torch.exp(-((spread / SPREAD) ** 2) / 2)
        if self.tokens.peers is not None:
            confidence = confidence * self.tokens.peers.agreement(xy)
        return xy.cpu().numpy(), confidence.float().cpu().numpy(), spread.float().cpu().numpy()

    def area(self, way: SquareMap, mask: np.ndarray | None) -> torch.Tensor:
        """float32 [1, R, R]: how much each pixel of the maps counts on one picture, of which `mask` (white = object)
        may rule out a part; bars that pad it never count."""
        area = square_mask(way, self.side, mask)[None]
        return torch.nn.functional.interpolate(area, (self.size,) * 2, mode="area")[0].to(self.backbone.device)

    def square(self, image: np.ndarray) -> tuple[torch.Tensor, SquareMap]:
        """The model's square of one picture and the way back."""
        return to_square(image, self.side, self.training.resize)

    def stream(
        self, images: Iterable[tuple[str, np.ndarray]], keep_maps: bool = False, masks: Masks | None = None
    ) -> Iterator[Detection]:
        """One Detection per picture of (name, uint8 [H, W, 3]) pairs, in order; pictures share passes. masks: where the
        object is on each picture; attention outside does not count."""
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
        squares = [self.square(image) for _, image in group]
        maps, peaks, front = self.maps(torch.stack([s for s, _ in squares]))
        area = None
        if masks is not None or self.training.resize == "pad":
            ways = [way for _, way in squares]
            given = [masks(name) if masks else None for name, _ in group]
            area = torch.stack([self.area(way, mask) for way, mask in zip(ways, given, strict=True)])  # [I, 1, R, R]
            maps = maps * area
        xy, confidence, spread = self.unit_points(maps, peaks)
        hidden = self.hidden(maps, front)
        if area is not None:
            confidence[~area.flatten(1).any(1).cpu().numpy()] = 0  # the mask says that there is nothing
        if self.refined is not None and keep_maps:
            maps = maps / maps.flatten(-2).amax(-1)[..., None, None].clamp(min=1e-12)
        for i, (name, _) in enumerate(group):
            way = squares[i][1]
            points = Keypoints(
                xy=way.to_original(xy[i]).astype(np.float32)[None],
                confidence=confidence[i][None],
                hidden=hidden[i][None],
                sizes=np.array([[way.width, way.height]]),
                names=self.tokens.names,
                skeleton=self.tokens.skeleton,
                images=(name,),
                colors=self.tokens.colors,
            )
            yield Detection(points, spread[i][None], maps[i : i + 1].cpu() if keep_maps else None)


def detect(
    backbone: Backbone,
    tokens: KeypointTokens,
    images: ImageSet | Iterable[tuple[str, np.ndarray]],
    config: DetectConfig | None = None,
    *,
    keep_maps: bool = False,
    on_progress: Callable[[int], None] | None = None,
    masks: Masks | None = None,
) -> Detection:
    """Find the keypoints of `tokens` on pictures ((name, uint8 RGB) pairs, or an ImageSet).

    on_progress is called with the number of pictures done and may raise to stop. Maps are kept only when asked for:
    they grow with the number of pictures. masks: where the object is on each picture, by its name; attention outside
    does not count, and under a mask that is black all over confidence is 0. Raises KeypointError for tokens of another
    width and when no picture can be read.
    """
    parts: list[Detection] = []
    for part in Detector(backbone, tokens, config).stream(images, keep_maps, masks):
        parts.append(part)
        if on_progress is not None:
            on_progress(len(parts))
    return Detection(
        Keypoints.concat([p.keypoints for p in parts]),
        np.concatenate([p.spread for p in parts]),
        torch.cat([p.maps for p in parts]) if keep_maps else None,
    )
