"""From maps to points: averaging views in the picture's frame, reading positions, and how wide a map is.

Knows maps and views, nothing of models or files.
"""

from __future__ import annotations

import torch

from . import selection, transforms

POWER = 3  # of a place map in its mean: between the mean of all candidates (1) and the highest pixel (infinity)


def average_views(maps: torch.Tensor, theta: torch.Tensor, images: int) -> torch.Tensor:
    """Mean over views, each pixel over the views that saw it: maps [I*V, K, R, R] seen through theta [I*V, 2, 3] ->
    [I, K, R, R] in the pictures' frame. What no view saw is 0."""
    back = transforms.unwarp(maps, theta).unflatten(0, (images, -1)).sum(1)  # [I, K, R, R]
    seen = transforms.coverage(theta, maps.shape[-1]).unflatten(0, (images, -1)).sum(1)  # [I, 1, R, R]
    return torch.where(seen > 1e-6, back / seen.clamp(min=1e-6), torch.zeros_like(back))


def read_out(maps: torch.Tensor, method: str, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [..., 2] (x, y) in the unit square and peak heights [...] of maps [..., R, R].

    "argmax": the centre of the highest pixel. "soft": the mean position weighted by the map within a square window of
    half side `radius` pixels around it (sub-pixel).
    """
    size = maps.shape[-1]
    height = maps.flatten(-2).amax(-1)
    peak = selection.peaks(maps)  # [..., 2] row, column
    if method == "argmax":
        return (peak.flip(-1) + 0.5) / size, height
    along = torch.arange(size, device=maps.device)
    near = ((along - peak[..., None]).abs() <= radius).float()  # [..., 2, R]
    return _mean(maps * near[..., 0, :, None] * near[..., 1, None, :])[0], height


def place(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [..., 2] (x, y) in the unit square and widths [...] in its sides, of place maps [..., R, R] of any
    scale: the mean position under the map's third power, and the map's own standard deviation from its mean."""
    _, variance = _mean(maps)
    scaled = maps / maps.flatten(-2).amax(-1)[..., None, None].clamp(min=1e-12)
    return _mean(scaled**POWER)[0], variance.sqrt()


def _mean(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean position [..., 2] (x, y) in the unit square and variance [...] about it of the mass of maps [..., R, R]."""
    size = maps.shape[-1]
    centre = (torch.arange(size, device=maps.device) + 0.5) / size  # [R]
    mass = maps.sum((-2, -1)).clamp(min=1e-12)
    along = torch.stack([maps.sum(-2), maps.sum(-1)], -2) / mass[..., None, None]  # [..., 2, R]: x, y
    mean = (along * centre).sum(-1)  # [..., 2]
    return mean, ((along * centre**2).sum(-1) - mean**2).clamp(min=0).sum(-1)
