"""The two losses of the method, per batch of maps. They know nothing of how maps are made."""

from __future__ import annotations

import torch

from ..attention.readout import gaussian_maps


def localization_loss(maps: torch.Tensor, center: torch.Tensor, sigma: float) -> torch.Tensor:
    """L_localize (Eq. 6): mean squared difference of maps [B, k, R, R] from Gaussians at their peaks `center`
    [B, k, 2] (row, column, pixels), through which no gradient flows. Returns [B], the mean over tokens and pixels."""
    target = gaussian_maps(center, maps.shape[-1], sigma)
    return (maps - target).square().mean((1, 2, 3))


def equivariance_loss(maps: torch.Tensor, returned: torch.Tensor, covered: torch.Tensor | None) -> torch.Tensor:
    """L_equiv (Eq. 5): mean squared difference of maps [B, k, R, R] of the image from maps `returned` from a view.

    covered [B, 1, R, R] in [0, 1], how much of each pixel the view saw: the mean is taken over seen pixels, and what
    was seen in part is scaled up. Without it unseen pixels compare with 0, as in the reference. Returns [B].
    """
    if covered is None:
        return (maps - returned).square().mean((1, 2, 3))
    seen = (covered > 0.5).float()  # [B, 1, R, R]
    difference = (maps - returned / covered.clamp(min=0.5)) * seen
    return difference.square().sum((1, 2, 3)) / (seen.sum((1, 2, 3)) * maps.shape[1]).clamp(min=1)
