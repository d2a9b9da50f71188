"""The two losses of the method (Eq. 5 and 6) on batches of maps. Knows nothing of how maps are made."""

from __future__ import annotations

import torch

from ..attention.readout import gaussian_maps


def localization_loss(maps: torch.Tensor, center: torch.Tensor, sigma: float) -> torch.Tensor:
    """L_localize (Eq. 6): the mean squared difference between maps and the Gaussians (Eq. 8) at their peaks (Eq. 7).

    maps: [B, k, R, R] in [0, 1]. center: the peaks [B, k, 2] (row, column) in pixels of the map, where pixel i is
    centred at i + 0.5; no gradient flows through them. sigma: pixels. Returns [B], the mean over tokens and pixels.
    """
    target = gaussian_maps(center, maps.shape[-1], sigma)
    return (maps - target).square().mean((1, 2, 3))


def equivariance_loss(maps: torch.Tensor, returned: torch.Tensor, covered: torch.Tensor | None) -> torch.Tensor:
    """L_equiv (Eq. 5): the mean squared difference between the maps of an image and those of a view, transformed back.

    maps: M(X), [B, k, R, R] in [0, 1]. returned: T^-1(M(T(X))), [B, k, R, R]. covered: [B, 1, R, R] in [0, 1], how much
    of each pixel the view covers: the mean is over pixels that are covered by more than half, and their values are
    divided by the coverage. None: pixels outside the view are compared with 0, as in the authors' code. Returns [B].
    """
    if covered is None:
        return (maps - returned).square().mean((1, 2, 3))
    seen = (covered > 0.5).float()  # [B, 1, R, R]
    difference = (maps - returned / covered.clamp(min=0.5)) * seen
    return difference.square().sum((1, 2, 3)) / (seen.sum((1, 2, 3)) * maps.shape[1]).clamp(min=1)
