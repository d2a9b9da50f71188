"""Averaging the maps of several views in the image's frame (test-time ensembling, Eq. 11)."""

from __future__ import annotations

import torch

from . import affine


def average_views(maps: torch.Tensor, theta: torch.Tensor, images: int) -> torch.Tensor:
    """Mean over views, each pixel over the views that saw it: maps [I*V, K, R, R] seen through theta [I*V, 2, 3] ->
    [I, K, R, R] in the images' frame. What no view saw is 0."""
    back = affine.unwarp(maps, theta).unflatten(0, (images, -1)).sum(1)  # [I, K, R, R]
    seen = affine.coverage(theta, maps.shape[-1]).unflatten(0, (images, -1)).sum(1)  # [I, 1, R, R]
    return torch.where(seen > 1e-6, back / seen.clamp(min=1e-6), torch.zeros_like(back))
