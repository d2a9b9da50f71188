"""The self-check: what left-out images say about the chosen keypoints, without labels (numbers: keypoints/self_check).

Positions and maps in, numbers out. A prediction here is a linear ridge regression between positions, fitted to known
images and tried on the left-out ones. Knows nothing of models or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..keypoints.self_check import ReadoutCheck
from ..keypoints.spatial_prior import RIDGE

NEAR = 0.03  # sides of the image: points nearer than this to each other, or to their mean place, tell one thing only
FLAT = 0.6  # share of the image: a map that covers more than this marks no place


@dataclass(frozen=True)
class Found:
    """Where one read-out finds K keypoints: known [I, K, 2] on the images they were chosen on, views [J, V, K, 2] in
    the views of left-out images, brought back to the image; seen bool [J, V, K]: whether the view shows the point; area
    [J, K]: share of the image that the map covers. Positions in the unit square."""

    known: torch.Tensor
    views: torch.Tensor
    seen: torch.Tensor
    area: torch.Tensor

    @property
    def held(self) -> torch.Tensor:
        """[J, K, 2]: mean position over the views that show the point."""
        weight = self.seen.to(self.views)[..., None]
        return (self.views * weight).sum(1) / weight.sum(1).clamp(min=1)


def map_area(maps: torch.Tensor) -> torch.Tensor:
    """[...]: share of the image that maps [..., R, R] (at least 0, any scale) cover, exp(entropy) / R^2 in (0, 1]."""
    flat = maps.flatten(-2)
    p = flat / flat.sum(-1, keepdim=True).clamp(min=1e-12)
    return (-(p * p.clamp(min=1e-12).log()).sum(-1)).exp() / flat.shape[-1]


def predicted(known: torch.Tensor, wanted: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """[J, M, 2]: where points held [J, K, 2] put the points `wanted` [I, M, 2] of the known images, at known
    [I, K, 2]."""
    x, y = known.double().flatten(1), wanted.double().flatten(1)
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ y)  # [2K, 2M]
    return ((held.double().flatten(1) - mean_x) @ weights + mean_y).unflatten(1, (-1, 2))


def unexplained(found: Found, known_others: torch.Tensor, held_others: torch.Tensor, weight: torch.Tensor) -> float:
    """Share of the variance of other points that the K points leave unexplained on left-out images. known_others
    [I, M, 2] and held_others [J, M, 2]: where the others are; weight [M]: how much each counts."""
    error = (predicted(found.known, known_others, found.held) - held_others).square().sum(-1)  # [J, M]
    about = (held_others - known_others.mean(0)).square().sum(-1)
    return float((error.mean(0) * weight).sum() / (about.mean(0) * weight).sum().clamp(min=1e-12))


def steadiness(found: Found) -> tuple[float, float]:
    """Distance of single views from their mean over the views that show the point, and the same where each view is of
    another image."""
    views = found.views.shape[1]
    turned = [torch.stack([x[:, v].roll(v, 0) for v in range(views)], 1) for x in (found.views, found.seen)]
    return _scatter(found.views, found.seen), _scatter(*turned)


def _scatter(views: torch.Tensor, seen: torch.Tensor) -> float:
    weight = seen.to(views)
    count = weight.sum(1, keepdim=True)  # [J, 1, K]
    mean = (views * weight[..., None]).sum(1, keepdim=True) / count.clamp(min=1)[..., None]
    weight = weight * (count > 1)
    # n views lie nearer to their own mean than to the true one
    away = (views - mean).norm(dim=-1) * (count / (count - 1).clamp(min=1)).sqrt()
    return float((away * weight).sum() / weight.sum().clamp(min=1))


def predictability(found: Found) -> tuple[float, float]:
    """Distance of each point from where the other points put it on left-out images, and the same where the others are
    those of another image."""
    held, errors = found.held, [[], []]
    for k in range(held.shape[1]):
        others = [j for j in range(held.shape[1]) if j != k]
        for which, shift in enumerate((0, 1)):
            expected = predicted(found.known[:, others], found.known[:, [k]], held[:, others].roll(shift, 0))
            errors[which].append((expected[:, 0] - held[:, k]).norm(dim=-1).mean())
    return tuple(float(torch.stack(e).mean()) for e in errors)


def check_readout(
    found: Found, known_others: torch.Tensor, held_others: torch.Tensor, weight: torch.Tensor
) -> ReadoutCheck:
    """All numbers of one read-out; the other points as in `unexplained`."""
    everywhere = torch.cat([found.known, found.held])  # [I + J, K, 2]
    apart = (everywhere[:, :, None] - everywhere[:, None]).norm(dim=-1).median(0).values  # [K, K]
    double = [k for k in range(apart.shape[0]) if bool((apart[k, :k] < NEAR).any())]
    moved = (everywhere - everywhere.mean(0)).norm(dim=-1).mean(0)  # [K]
    area = found.area.mean(0)
    return ReadoutCheck(
        *steadiness(found),
        *predictability(found),
        unexplained(found, known_others, held_others, weight),
        float(area.mean()),
        dead=tuple((area > FLAT).nonzero().flatten().tolist()),
        duplicate=tuple(double),
        stuck=tuple((moved < NEAR).nonzero().flatten().tolist()),
    )
