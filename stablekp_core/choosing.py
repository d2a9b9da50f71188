"""After training: look at some training pictures and choose the K tokens that become keypoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from . import attention, selection, transforms
from .backbone import Backbone
from .config import TrainConfig
from .latents import LatentSource
from .prediction import Peers, most_predictive
from .randomness import generator_for
from .refinement import Places, neutral_prompt, refine

FEATURE_BYTES = 1 << 30  # kept to refine tokens; pictures beyond are left out


@dataclass(frozen=True)
class Choice:
    """chosen: int64 [K] in keypoint order. votes: for each the number of pictures that chose it, 0 where that was not
    the rule. heights: median height of each one's peak in [0, 1], which confidence is measured against. partners: the
    token that each one is in a mirror, when it was asked for. peers: where they lie on the pictures. refined: float32
    [K, D], the tokens fitted anew to where they were found, behind them their partners, or None."""

    chosen: torch.Tensor
    votes: torch.Tensor
    heights: tuple[float, ...] = ()
    partners: tuple[int, ...] = ()
    peers: Peers | None = None
    refined: torch.Tensor | None = None


class _Look:
    """Pictures of the training set seen with the learned tokens: their maps, and features to refine tokens."""

    def __init__(
        self, backbone: Backbone, tokens: torch.Tensor, source: LatentSource, config: TrainConfig, at_once: int
    ):
        self.backbone, self.tokens, self.source, self.config = backbone, tokens, source, config
        self.at_once = at_once

    def views(self, index: int, theta: torch.Tensor, refine: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Maps [V, N, R, R] of a picture's views theta [V, 2, 3], the first being the picture itself, and, to refine
        tokens, features [V, D, G, G] as in `features`."""
        c, latents = self.config, self.source.latents([index])
        if len(theta) > 1:
            latents = torch.cat([latents, self.source.view_latents([index] * (len(theta) - 1), theta[1:])])
        noisy = self._noisy(latents, self._noise(index, latents))
        maps_of = attention.coarse_maps if c.upsample == "maps" else attention.token_maps
        maps = torch.cat([
            maps_of(self.backbone.token_logits(some, c.timestep, self.tokens, c.gradient), c.map_size)
            for some in noisy
        ])
        masks = self.source.masks([index] * len(theta), theta, c.map_size)
        return maps if masks is None else maps * masks, self._features(noisy) if refine else None

    def features(self, indices: list[int]) -> torch.Tensor:
        """[B, D, G, G]: features (Backbone.features) of whole pictures under refinement's prompt, summed over layers at
        the finest one."""
        latents = self.source.latents(indices)
        return self._features(self._noisy(latents, torch.cat([self._noise(index, latents[:1]) for index in indices])))

    def _noise(self, index: int, latents: torch.Tensor) -> torch.Tensor:
        """The noise of one picture, for latents [V, 4, h, w] of its views."""
        noise = torch.randn(latents.shape, generator=generator_for(self.config.seed, "selection noise", index))
        return noise.to(latents.device)

    def _noisy(self, latents: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Noisy latents [B, 4, h, w], some of them at a time."""
        return self.backbone.add_noise(latents, noise, self.config.timestep).split(self.at_once)

    def _features(self, noisy: Sequence[torch.Tensor]) -> torch.Tensor:
        """[B, D, G, G] of noisy latents, some of them at a time."""
        out, prompt = [], neutral_prompt(self.tokens)
        for some in noisy:
            queries = self.backbone.queries(some, self.config.timestep, prompt)
            side = math.isqrt(max(q.shape[2] for q in queries))
            out.append(attention.summed_logits(self.backbone.features(queries), side))
        return torch.cat(out)

    def keep(self, places: Places, index: int, features: torch.Tensor) -> None:
        """Add a picture's features [V, D, G, G], seen through the views of `places`."""
        places.add(features, self.source.masks([index] * len(features), places.theta, features.shape[-1]))


@torch.no_grad()
def choose_tokens(
    backbone: Backbone,
    tokens: torch.Tensor,
    source: LatentSource,
    config: TrainConfig,
    at_once: int = 8,
    on_picture: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose K of tokens [N, D] on up to `selection_images` pictures of the training set, and refine them on up to
    `refine_images`.

    Selection "votes": the K tokens most often chosen by the training's own rule on single views. "consistency": the
    tokens whose peak stays on the same spot over affine views. "prediction": those from whose positions over the
    pictures the positions of all tokens can be told best. at_once: views or pictures per pass. on_picture is called
    with the pictures done, of how many, and may raise to stop.
    """
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    pictures, extra = order[: config.selection_images], order[config.selection_images : config.refine_images]
    theta = _views(config)
    plain = len(theta) - config.flip_symmetry
    look = _Look(backbone, tokens, source, config, at_once)
    positions, heights, choices = [], [], []
    places, mirrored = Places(theta[:plain], backbone.device), Places(theta[plain:], backbone.device)
    more = Places(theta[:1], backbone.device)
    for done, picture in enumerate(pictures, 1):
        index, room = source.usable(picture), places.nbytes < FEATURE_BYTES
        maps, features = look.views(index, theta, room and done <= config.refine_images)  # [V, N, R, R]
        if features is not None:
            look.keep(places, index, features[:plain])
            if config.flip_symmetry:
                look.keep(mirrored, index, features[plain:])
        peak = selection.peaks(maps)  # [V, N, 2]
        xy = (peak.flip(-1) + 0.5) / config.map_size
        positions.append(transforms.view_to_picture(xy, theta.to(xy.device)).cpu())
        heights.append(maps[0].flatten(1).amax(1).cpu())
        if config.selection == "votes":
            choices.append(_vote(maps[:1], peak[:1], config))
        if on_picture is not None:
            on_picture(done, len(pictures) + len(extra))
    for start in range(0, len(extra), at_once):
        some = [source.usable(picture) for picture in extra[start : start + at_once]]
        if places.nbytes + more.nbytes < FEATURE_BYTES:
            for index, features in zip(some, look.features(some).split(1), strict=True):  # [1, D, G, G]
                look.keep(more, index, features)
        for done in range(start + 1, start + len(some) + 1):
            if on_picture is not None:
                on_picture(len(pictures) + done, len(pictures) + len(extra))
    height, everywhere = torch.stack(heights), torch.stack(positions)  # [I, N], [I, V, N, 2]
    position, votes = everywhere[:, :plain], torch.zeros(len(tokens), dtype=torch.long)
    if config.selection == "votes":
        chosen, votes = selection.most_voted(torch.stack(choices), len(tokens), config.keypoints)
    elif config.selection == "consistency":
        seen = transforms.visible(position[:, 0], theta[:plain])
        chosen, _ = selection.most_consistent(position, seen, height, config.keypoints)
    else:
        chosen = most_predictive(position, height, config.keypoints)
    partners = ()
    if config.flip_symmetry:
        partners = selection.mirror_partners(position[:, 0, chosen], everywhere[:, -1])
    usual = tuple(height[:, chosen].median(0).values.tolist())
    where, refined = position[:, :, chosen].mean(1), None  # [I, K, 2]
    if len(places):
        refined, where = _refined(position[: len(places), :, chosen], places, more, mirrored)
    return Choice(chosen, votes[chosen], usual, partners, Peers.of(where), refined)


def _views(config: TrainConfig) -> torch.Tensor:
    """theta [V, 2, 3]: the picture itself, random views, and with flip_symmetry the picture in a mirror."""
    views = 0 if config.selection == "votes" else config.selection_views
    g = generator_for(config.seed, "selection views")
    theta = [
        transforms.identity_affine(1),
        transforms.random_affine(views, config.rotation, config.scale, config.translation, g),
    ]
    if config.flip_symmetry:
        theta.append(transforms.mirror(transforms.identity_affine(1)))
    return torch.cat(theta)


def _vote(maps: torch.Tensor, peak: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    """int64 [K]: the tokens that the training's rule picks on one picture, maps [1, N, R, R] and peak [1, N, 2]."""
    c = config
    return selection.spread_choice(maps, peak, c.keypoints, c.candidates, c.sigma, c.closeness, c.border)[0].cpu()


def _refined(
    position: torch.Tensor, places: Places, more: Places, mirrored: Places
) -> tuple[torch.Tensor, torch.Tensor]:
    """The refined tokens, with those of the partners behind where there are mirrored pictures, and where the former lie
    on all pictures [I, K, 2]."""
    refined = refine(position, places, more)
    peak, where = places.locate(refined)
    if len(more):
        where = torch.cat([where, more.locate(refined)[1]])
    if len(mirrored):
        refined = torch.cat([refined, refine(peak[:, None], mirrored)])
    return refined, where
