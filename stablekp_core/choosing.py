"""After training: look at some training pictures and choose the K tokens that become keypoints."""

from __future__ import annotations

import torch

from . import attention, selection, transforms
from .backbone import Backbone
from .config import TrainConfig
from .latents import LatentSource
from .randomness import generator_for


@torch.no_grad()
def choose_tokens(
    backbone: Backbone, tokens: torch.Tensor, source: LatentSource, config: TrainConfig
) -> tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]:
    """Choose K of tokens [N, D] on up to `selection_images` pictures of the training set.

    Selection "votes": the K tokens most often chosen by the training's own rule on single views. "consistency": the
    tokens whose peak stays on the same spot over affine views. Returns (int64 [K] in keypoint order, number of pictures
    that chose each [K] (votes) or 0 (consistency), the median height of each one's peak in [0, 1], which confidence is
    measured against).
    """
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    pictures = order[: config.selection_images]
    views = config.selection_views if config.selection == "consistency" else 0
    theta = torch.cat(
        [
            transforms.identity_affine(1),
            transforms.random_affine(
                views, config.rotation, config.scale, config.translation, generator_for(config.seed, "selection views")
            ),
        ]
    )
    positions, inside, heights, choices = [], [], [], []
    for picture in pictures:
        index = source.usable(picture)
        maps = _view_maps(backbone, tokens, source, index, theta, config)  # [V, N, R, R]
        peak = selection.peaks(maps)  # [V, N, 2]
        xy = (peak.flip(-1) + 0.5) / config.map_size
        positions.append(transforms.view_to_picture(xy, theta.to(xy.device)).cpu())
        inside.append(_inside(positions[-1][0], theta))
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
    height = torch.stack(heights)  # [I, N]
    if config.selection == "votes":
        chosen, votes = selection.most_voted(torch.stack(choices), len(tokens), config.keypoints)
        counts = votes[chosen]
    else:
        chosen, _ = selection.most_consistent(torch.stack(positions), torch.stack(inside), height, config.keypoints)
        counts = torch.zeros_like(chosen)
    return chosen, counts, tuple(height[:, chosen].median(0).values.tolist())


def _view_maps(backbone, tokens, source: LatentSource, index: int, theta: torch.Tensor, config: TrainConfig):
    """Maps [V, N, R, R] of one picture seen through theta [V, 2, 3]; the first view is the picture itself."""
    latents = source.latents([index])
    if len(theta) > 1:
        latents = torch.cat([latents, source.view_latents([index] * (len(theta) - 1), theta[1:])])
    noise = torch.randn(latents.shape, generator=generator_for(config.seed, "selection noise", index))
    noisy = backbone.add_noise(latents, noise.to(latents.device), config.timestep)
    logits = backbone.token_logits(noisy, config.timestep, tokens, config.gradient)
    if config.upsample == "maps":
        return attention.coarse_maps(logits, config.map_size)
    return attention.token_maps(logits, config.map_size)


def _inside(xy: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """bool [V, N]: whether points xy [N, 2] of the picture (unit square) lie within each view."""
    back = transforms.view_to_picture(xy[None].expand(len(theta), -1, -1), transforms.invert_affine(theta))
    return ((back > 0.02) & (back < 0.98)).all(-1)
