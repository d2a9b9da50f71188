"""The spatial prior: where each keypoint is expected, given where the other keypoints are.

A Gaussian over the positions of all K keypoints, fitted to the training images. Works on positions alone; it knows
nothing of models, maps or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

RIDGE = 0.003  # added to the variance of a coordinate, in squared sides of the image: a jitter of 5 %
STEP = 0.1  # sides of the image: the least residual scale, so that a point may always be this far off
STANCE = 0.15  # sides of the image: standard deviation of a figure's centre from that of the image
BLUR = 0.02  # sides of the image: the least standard deviation of a position


@dataclass(frozen=True)
class SpatialPrior:
    """A Gaussian over the positions of K keypoints relative to their centre, in sides of the model input.

    mean: [K, 2] (x, y). covariance: [2K, 2K] (x and y of keypoint 0, of keypoint 1, ...). images: the number of images
    that it was fitted to.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    images: int

    @classmethod
    def of(cls, position: torch.Tensor) -> SpatialPrior:
        """Fit it to positions [I, K, 2] on I images, in the unit square of the model input."""
        x = _centred(position.double())
        away = (x - x.mean(0)).flatten(1)
        return cls(x.mean(0).float(), (away.T @ away / len(x)).float(), len(x))

    def fits(self, keypoints: int) -> bool:
        """Whether this is a prior of `keypoints` keypoints, with finite numbers."""
        shapes = self.mean.shape == (keypoints, 2) and self.covariance.shape == (2 * keypoints, 2 * keypoints)
        return shapes and bool(self.mean.isfinite().all() and self.covariance.isfinite().all())

    def pick(self, indices: Sequence[int]) -> SpatialPrior:
        """The prior of the keypoints `indices`, in this order, relative to the centre of these."""
        k = torch.tensor(list(indices), dtype=torch.long)
        rows, middle = torch.stack([2 * k, 2 * k + 1], 1).flatten(), torch.eye(2).repeat(len(k), len(k)) / len(k)
        centre = torch.eye(2 * len(k)) - middle
        covariance = centre @ self.covariance[rows][:, rows] @ centre
        return SpatialPrior(_centred(self.mean[None, k])[0], covariance, self.images)

    @cached_property
    def _residual_matrix(self) -> torch.Tensor:
        """The matrix from the deviations x of all points from their means to the residuals of each one: float64
        [K, 2, 2K]. From the conditional mean of a Gaussian, x_k - E[x_k | others] = P_kk^-1 (P x)_k with the precision
        P; the ridge on the variance of point k itself changes nothing in it."""
        count = len(self.mean)
        precision = torch.linalg.inv(self.covariance.double() + RIDGE * torch.eye(2 * count, dtype=torch.float64))
        blocks = precision.view(count, 2, count, 2)[torch.arange(count), :, torch.arange(count)]  # [K, 2, 2]
        return torch.linalg.solve(blocks, precision.view(count, 2, -1))

    def expected(self, xy: torch.Tensor, width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The expected position of each keypoint given the other keypoints: mean [B, K, 2] in the unit square of the
        model input, and covariance [B, K, 2, 2].

        xy: [B, K, 2] in the unit square, with independent errors of standard deviation width [B, K] in sides of it.
        The position of the whole figure varies with standard deviation `STANCE`.
        """
        rows, count = xy.shape[:2]
        together = torch.eye(2, dtype=torch.float64).repeat(count, count)
        prior = self.covariance.double() + STANCE**2 * together  # [2K, 2K]
        away = (xy.double().cpu() - self.mean - 0.5).flatten(1)  # [B, 2K]
        error = (width.double().cpu() ** 2 / 4 + BLUR**2).repeat_interleave(2, 1)  # [B, 2K]
        known = prior + torch.diag_embed(error)  # [B, 2K, 2K]
        mean, covariance = torch.zeros(rows, count, 2), torch.zeros(rows, count, 2, 2)
        for k in range(count):
            own, others = slice(2 * k, 2 * k + 2), [i for i in range(2 * count) if i // 2 != k]
            gain = torch.linalg.solve(known[:, others][:, :, others], prior[others, own].expand(rows, -1, -1))
            mean[:, k] = (gain.transpose(1, 2) @ away[:, others, None])[..., 0].float() + self.mean[k] + 0.5
            covariance[:, k] = self._new_images * (prior[own, own] - prior[own, others] @ gain).float()
        return mean.to(xy), covariance.to(xy)

    def residual(self, xy: torch.Tensor) -> torch.Tensor:
        """The distance of each point of xy [B, K, 2] (unit square) from its expected position given the other
        keypoints: [B, K], in sides of the model input."""
        away = (_centred(xy.double().cpu()) - self.mean).flatten(1)  # [B, 2K]
        return (self._residual_matrix @ away.T[None]).norm(dim=1).T.to(xy)

    @property
    def _new_images(self) -> float:
        """The ratio of squared prediction errors on new images to those on the n images that p numbers were fitted to:
        (n + p) / (n - p) (Akaike's final prediction error)."""
        n, p = self.images, 2 * (len(self.mean) - 1)
        return (n + p) / max(n - p, 1)

    @cached_property
    def _residual_scale(self) -> torch.Tensor:
        """The root mean square of the residual of each point on new images: float64 [K]."""
        matrix = self._residual_matrix
        spread = matrix @ self.covariance.double() @ matrix.transpose(1, 2)  # [K, 2, 2]
        return (spread.diagonal(dim1=1, dim2=2).sum(-1) * self._new_images).sqrt()

    def consistency(self, xy: torch.Tensor) -> torch.Tensor:
        """How well each point of xy [B, K, 2] (unit square) fits the other keypoints: [B, K] in [0, 1].

        exp(-d^2 / (2 s^2)) of the residual d of the point and its root mean square s, at least `STEP`.
        """
        return torch.exp(-((self.residual(xy) / self._residual_scale.clamp(min=STEP).to(xy)) ** 2) / 2)


def _centred(xy: torch.Tensor) -> torch.Tensor:
    """Points [B, K, 2] relative to their mean, so that the position of the figure does not matter."""
    return xy - xy.mean(1, keepdim=True)
