"""From maps to points: the peak of a map and the Gaussian at it (Eq. 7 and 8), sub-pixel positions, widths.

Knows maps alone, nothing of views, models or files.
"""

from __future__ import annotations

import torch

REACH = 0.3  # of the map's side: how far from its peak a spatial softmax map takes part in its mean position


def peaks(maps: torch.Tensor) -> torch.Tensor:
    """The argmax of each map (Eq. 7): int64 [..., 2] (row, column) of the highest pixel of maps [..., R, R], the first
    one in row order where several are equal."""
    index = maps.flatten(-2).argmax(-1)
    return torch.stack([index // maps.shape[-1], index % maps.shape[-1]], -1)


def gaussian_maps(center: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """Gaussian images G (Eq. 8), with peak 1 and not normalised.

    center: [..., 2] (row, column) in pixels of the map, where pixel i is centred at i + 0.5. sigma: pixels. Returns
    fp32 [..., size, size] in [0, 1].
    """
    along = torch.arange(size, device=center.device, dtype=torch.float32) + 0.5  # [R]
    g = torch.exp(-((along - center[..., None]) ** 2) / (2 * sigma**2))  # [..., 2, R]
    return g[..., 0, :, None] * g[..., 1, None, :]


def read_out(maps: torch.Tensor, method: str, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [..., 2] (x, y) and peak scores [...] of maps [..., R, R] in [0, 1].

    Positions are in the unit square of the map: (0, 0) is its top left corner, (1, 1) its bottom right one. The peak
    score is the highest value of the map. method: "argmax", the centre of the highest pixel (Eq. 7); "soft", the mean
    position weighted by the map within a square window of half side `radius` pixels around it (sub-pixel).
    """
    size = maps.shape[-1]
    score = maps.flatten(-2).amax(-1)
    peak = peaks(maps)  # [..., 2] row, column
    if method == "argmax":
        return (peak.flip(-1) + 0.5) / size, score
    return _mean(_around(maps, peak, radius))[0], score


def spatial_mean(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions [..., 2] (x, y) in the unit square and widths [...] in sides of it, of spatial softmax maps
    [..., R, R] of any scale.

    The position is the mean under the squared map within REACH of its peak; the width is the standard deviation of the
    whole map about its mean.
    """
    _, width = moments(maps)
    scaled = maps / maps.flatten(-2).amax(-1)[..., None, None].clamp(min=1e-12)
    return _mean(_around(scaled**2, peaks(maps), REACH * maps.shape[-1]))[0], width


def moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean positions [..., 2] (x, y) in the unit square of maps [..., R, R] of any scale, and the standard deviations
    [...] about them in sides of the square."""
    mean, variance = _mean(maps)
    return mean, variance.sqrt()


def share_at(values: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Means [B, K] of values [B, R, R] under Gaussians of mean [B, K, 2] (x, y) and covariance [B, K, 2, 2], both in
    the unit square."""
    size = values.shape[-1]
    centre = (torch.arange(size, device=values.device) + 0.5) / size
    positions = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), -1).flatten(0, 1)  # [R*R, 2]
    away = positions - mean[:, :, None]  # [B, K, R*R, 2]
    distance = (away @ torch.linalg.inv(covariance) * away).sum(-1)  # [B, K, R*R], squared
    return ((-distance / 2).softmax(-1) @ values.flatten(1)[..., None])[..., 0]


def _around(maps: torch.Tensor, peak: torch.Tensor, radius: float) -> torch.Tensor:
    """Maps [..., R, R], 0 outside of square windows of half side `radius` pixels around peak [..., 2] (row, column)."""
    away = torch.arange(maps.shape[-1], device=maps.device) - peak[..., None]  # [..., 2, R]
    near = (away.abs() <= radius).to(maps)
    return maps * near[..., 0, :, None] * near[..., 1, None, :]


def _mean(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean position [..., 2] (x, y) in the unit square and variance [...] about it of the mass of maps [..., R, R]."""
    size = maps.shape[-1]
    centre = (torch.arange(size, device=maps.device) + 0.5) / size  # [R]
    mass = maps.sum((-2, -1)).clamp(min=1e-12)
    along = torch.stack([maps.sum(-2), maps.sum(-1)], -2) / mass[..., None, None]  # [..., 2, R]: x, y
    mean = (along * centre).sum(-1)  # [..., 2]
    return mean, ((along * centre**2).sum(-1) - mean**2).clamp(min=0).sum(-1)
