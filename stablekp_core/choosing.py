"""After training: look at some training pictures and choose the K tokens that become keypoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from . import attention, selection, transforms
from .backbone import Backbone
from .config import TrainConfig
from .latents import LatentSource
from .prediction import Peers, most_predictive
from .randomness import generator_for
from .refinement import Places


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


@torch.no_grad()
def choose_tokens(
    backbone: Backbone,
    tokens: torch.Tensor,
    source: LatentSource,
    config: TrainConfig,
    at_once: int = 8,
    on_picture: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose K of tokens [N, D] on up to `selection_images` pictures of the training set.

    Selection "votes": the K tokens most often chosen by the training's own rule on single views. "consistency": the
    tokens whose peak stays on the same spot over affine views. "prediction": those from whose positions over the
    pictures the positions of all tokens can be told best. at_once: views per pass. on_picture is called with the
    pictures done, of how many, and may raise to stop.
    """
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    pictures = order[: config.selection_images]
    views = 0 if config.selection == "votes" else config.selection_views
    theta = torch.cat(
        [
            transforms.identity_affine(1),
            transforms.random_affine(
                views, config.rotation, config.scale, config.translation, generator_for(config.seed, "selection views")
            ),
        ]
    )
    plain = len(theta)
    if config.flip_symmetry:  # the picture in a mirror comes last
        theta = torch.cat([theta, transforms.mirror(transforms.identity_affine(1))])
    positions, heights, choices = [], [], []
    places = Places(theta[:plain], backbone.device)
    mirrored = Places(theta[plain:], backbone.device)
    for picture in pictures:
        index = source.usable(picture)
        maps, features = _view_maps(backbone, tokens, source, index, theta, config, at_once)  # [V, N, R, R]
        if features is not None:
            side = features.shape[-1]
            area = source.masks([index] * len(theta), theta, side)
            places.add(features[:plain], None if area is None else area[:plain])
            if config.flip_symmetry:
                mirrored.add(features[plain:], None if area is None else area[plain:])
        peak = selection.peaks(maps)  # [V, N, 2]
        xy = (peak.flip(-1) + 0.5) / config.map_size
        positions.append(transforms.view_to_picture(xy, theta.to(xy.device)).cpu())
        heights.append(maps[0].flatten(1).amax(1).cpu())
        if config.selection == "votes":
            choices.append(
                selection.spread_choice(
                    maps[:1],
                    peak[:1],
                    config.keypoints,
                    config.candidates,
                    config.sigma,
                    config.closeness,
                    config.border,
                )[0].cpu()
            )
        if on_picture is not None:
            on_picture(len(heights), len(pictures))
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
    if config.refine:
        refined = places.refine(position[:, :, chosen])
        peak, where = places.locate(refined)
        if config.flip_symmetry:
            refined = torch.cat([refined, mirrored.refine(peak[:, None])])
    return Choice(chosen, votes[chosen], usual, partners, Peers.of(where), refined)


def _view_maps(
    backbone, tokens, source: LatentSource, index: int, theta: torch.Tensor, config: TrainConfig, at_once: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Maps [V, N, R, R] of one picture seen through theta [V, 2, 3], the first view being the picture itself, and to
    refine tokens their features [V, D, G, G] (Backbone.features), summed over layers."""
    latents = source.latents([index])
    if len(theta) > 1:
        latents = torch.cat([latents, source.view_latents([index] * (len(theta) - 1), theta[1:])])
    noise = torch.randn(latents.shape, generator=generator_for(config.seed, "selection noise", index))
    noisy = backbone.add_noise(latents, noise.to(latents.device), config.timestep)
    maps_of = attention.coarse_maps if config.upsample == "maps" else attention.token_maps
    maps, features = [], []
    for some in noisy.split(at_once):
        queries = backbone.token_queries(some, config.timestep, tokens, config.gradient)
        maps.append(maps_of(backbone.logits(queries, tokens), config.map_size))
        if config.refine:
            side = math.isqrt(max(q.shape[2] for q in queries))
            features.append(attention.summed_logits(backbone.features(queries), side))
    maps, masks = torch.cat(maps), source.masks([index] * len(theta), theta, config.map_size)
    return maps if masks is None else maps * masks, torch.cat(features) if features else None
