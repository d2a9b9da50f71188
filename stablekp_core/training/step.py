"""One training step as a pure function: from latents, or logits, and tokens to the total loss (Eq. 4).

Nothing is drawn at random here: images, tokens, views and noise come from outside, so that a step can be compared
number by number with any other implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attention import token_maps
from ..attention.readout import peaks
from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..images import affine
from ..selection import ranking
from . import losses


@dataclass(frozen=True)
class StepOutput:
    """The result of one step.

    maps, view_maps: token maps of the images and of their views, [B, N, R, R] in [0, 1], without gradient. chosen:
    int64 [B, k], the tokens that the losses of each image are taken on. localization, equivariance, total: the losses
    of each image, [B] (Eq. 6, 5 and 4).
    """

    maps: torch.Tensor
    view_maps: torch.Tensor
    chosen: torch.Tensor
    localization: torch.Tensor
    equivariance: torch.Tensor
    total: torch.Tensor


def training_step(
    backbone: Backbone,
    config: TrainConfig,
    tokens: torch.Tensor,
    latents: torch.Tensor,
    view_latents: torch.Tensor,
    theta: torch.Tensor,
    noise: torch.Tensor,
    area: torch.Tensor | None = None,
) -> StepOutput:
    """The losses of one step on B images (Eq. 4 to 9), differentiable in tokens.

    tokens: fp32 [N, D]. latents: of the images, [B, 4, h, w]; view_latents: of their views theta [B, 2, 3], likewise.
    noise: standard normal, [2B, 4, h, w], of the images, then of the views. area: [2B, 1, R, R] in [0, 1], likewise:
    how much each pixel of the maps counts; None: fully.
    """
    noisy = backbone.add_noise(torch.cat([latents, view_latents]), noise, config.timestep)
    return step_losses(config, backbone.token_logits(noisy, config.timestep, tokens, config.gradient), theta, area)


def step_losses(
    config: TrainConfig, logits: list[torch.Tensor], theta: torch.Tensor, area: torch.Tensor | None = None
) -> StepOutput:
    """The losses from logits [2B, heads, s*s, N] per layer, of the images, then of the views; see `training_step`."""
    b, theta = len(theta), theta.to(logits[0].device)
    maps_of = _MAPS[config.upsample]
    (maps, take), (view_maps, take_view) = (
        maps_of([x[:b] for x in logits], config.map_size),
        maps_of([x[b:] for x in logits], config.map_size),
    )
    if area is not None:
        maps, view_maps = maps * area[:b], view_maps * area[b:]
    with torch.no_grad():
        if config.loss_tokens == "spread":
            chosen = ranking.spread_choice(
                maps,
                peaks(view_maps),
                config.keypoints,
                config.candidates,
                config.sigma,
                config.closeness,
                config.border,
            )
        else:
            chosen = ranking.most_gaussian(
                maps, peaks(maps), config.candidates, config.sigma, config.closeness, config.border
            )
    picked, picked_view = take(chosen), take_view(chosen)  # [B, k, R, R]
    if area is not None:
        picked, picked_view = picked * area[:b], picked_view * area[b:]
    center = peaks(picked.detach()) + 0.5
    localization = losses.localization_loss(picked, center, config.sigma)
    covered = affine.coverage(theta, config.map_size) if config.coverage_mask else None
    equivariance = losses.equivariance_loss(picked, affine.unwarp(picked_view, theta), covered)
    total = config.localization_weight * localization + config.equivariance_weight * equivariance  # Eq. 4
    return StepOutput(maps, view_maps, chosen, localization, equivariance, total)


def _fine(logits, size):
    maps = token_maps.token_maps([x.detach() for x in logits], size)
    return maps, lambda chosen: token_maps.chosen_maps(logits, maps, chosen)


def _coarse(logits, size):
    maps = token_maps.coarse_maps(logits, size)
    return maps.detach(), lambda chosen: torch.gather(maps, 1, chosen[..., None, None].expand(-1, -1, size, size))


_MAPS = {"logits": _fine, "maps": _coarse}
