"""Test-time ensembling (Eq. 11): the average of the maps of several views in the frame of the image."""

from __future__ import annotations

import torch

from . import affine


def average_views(maps: torch.Tensor, theta: torch.Tensor, images: int) -> torch.Tensor:
    """The ensemble of Eq. 11, as a mean: maps [I*V, K, R, R] of the views theta [I*V, 2, 3] of I images, image by image
    -> maps [I, K, R, R] in the frame of the images.

    Each pixel is averaged over the views that cover it; where none does, the result is 0.
    """
    back = affine.unwarp(maps, theta).unflatten(0, (images, -1)).sum(1)  # [I, K, R, R]
    seen = affine.coverage(theta, maps.shape[-1]).unflatten(0, (images, -1)).sum(1)  # [I, 1, R, R]
    return torch.where(seen > 1e-6, back / seen.clamp(min=1e-6), torch.zeros_like(back))
