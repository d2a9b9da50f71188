"""Random affine views of model inputs (the transform T of Eq. 5), their inverse, and the pixels that a view covers.

A view is a matrix theta [2, 3] in the convention of torch's affine_grid (align_corners=False): it maps coordinates of
the view to coordinates of the image, both in [-1, 1], x right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def random_affine(
    count: int, rotation: float, scale: tuple[float, float], translation: float, generator: torch.Generator
) -> torch.Tensor:
    """Random views T (Eq. 5): float32 [count, 2, 3].

    rotation: degrees, uniform in +-rotation. scale: range of the uniform factor of the linear part; below 1 the view
    shows less of the image, it zooms in. translation: uniform in +-translation, in half sides of the image.
    """
    u = torch.rand(count, 4, generator=generator)
    angle = torch.deg2rad((2 * u[:, 0] - 1) * rotation)
    zoom = scale[0] + u[:, 1] * (scale[1] - scale[0])
    shift = (2 * u[:, 2:] - 1) * translation  # [count, 2]
    c, s = zoom * angle.cos(), zoom * angle.sin()
    return torch.stack([torch.stack([c, s, shift[:, 0]], 1), torch.stack([-s, c, shift[:, 1]], 1)], 1)


def identity_affine(count: int) -> torch.Tensor:
    """float32 [count, 2, 3]: views that show the image as it is."""
    return torch.eye(2, 3).repeat(count, 1, 1)


def invert_affine(theta: torch.Tensor) -> torch.Tensor:
    """The inverse [B, 2, 3] of theta [B, 2, 3]."""
    linear = torch.linalg.inv(theta[:, :, :2])
    return torch.cat([linear, -linear @ theta[:, :, 2:]], 2)


def warp(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The views T(x) of x [B, C, H, W] under theta [B, 2, 3]: bilinear, 0 outside the image. Returns [B, C, H, W]."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def unwarp(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The inverse transform T^-1(x) of Eq. 5: x [B, C, H, W] of the views theta [B, 2, 3] in the frame of the images, 0
    outside the view. Returns [B, C, H, W]."""
    return warp(x, invert_affine(theta))


def coverage(theta: torch.Tensor, size: int) -> torch.Tensor:
    """How much of each pixel of the image the view theta [B, 2, 3] covers: float32 [B, 1, size, size] in [0, 1]."""
    return unwarp(torch.ones(len(theta), 1, size, size, device=theta.device), theta)


def view_to_image(xy: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Points [B, K, 2] of the views theta [B, 2, 3] -> points [B, K, 2] of the images, both (x, y) in the unit
    square."""
    points = 2 * xy - 1
    mapped = points @ theta[:, :, :2].transpose(1, 2) + theta[:, None, :, 2]
    return (mapped + 1) / 2


def visible(xy: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Whether points xy [B, K, 2] of images (unit square) lie in each view theta [V, 2, 3], at least 0.02 sides from
    its border: bool [B, V, K]."""
    back = invert_affine(theta).to(xy)
    inside = torch.stack([view_to_image(xy, t.expand(len(xy), -1, -1)) for t in back], 1)  # [B, V, K, 2]
    return ((inside > 0.02) & (inside < 0.98)).all(-1)
