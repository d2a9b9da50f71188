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
STEP = 0.1  # sides of the image: a point may always be this far from where its peers say it is
STANCE = 0.15  # sides of the image: how far a figure's middle is from the image's
BLUR = 0.02  # sides of the image: no place is known better than this


@dataclass(frozen=True)
class SpatialPrior:
    """Where keypoints lie on the training images, from the middle of them all, in sides of the model's square: mean
    [K, 2] and covariance [2K, 2K] (x and y of keypoint 0, of keypoint 1, ...), and how many images these were."""

    mean: torch.Tensor
    covariance: torch.Tensor
    images: int

    @classmethod
    def of(cls, position: torch.Tensor) -> SpatialPrior:
        """From positions [I, K, 2] on I images."""
        x = _centred(position.double())
        away = (x - x.mean(0)).flatten(1)
        return cls(x.mean(0).float(), (away.T @ away / len(x)).float(), len(x))

    def fits(self, keypoints: int) -> bool:
        """Whether these are finite numbers of so many keypoints."""
        shapes = self.mean.shape == (keypoints, 2) and self.covariance.shape == (2 * keypoints, 2 * keypoints)
        return shapes and bool(self.mean.isfinite().all() and self.covariance.isfinite().all())

    def pick(self, indices: Sequence[int]) -> SpatialPrior:
        """Those of some keypoints, in this order, from the middle of these."""
        k = torch.tensor(list(indices), dtype=torch.long)
        rows, middle = torch.stack([2 * k, 2 * k + 1], 1).flatten(), torch.eye(2).repeat(len(k), len(k)) / len(k)
        centre = torch.eye(2 * len(k)) - middle
        covariance = centre @ self.covariance[rows][:, rows] @ centre
        return SpatialPrior(_centred(self.mean[None, k])[0], covariance, self.images)

    @cached_property
    def _against(self) -> torch.Tensor:
        """float64 [K, 2, 2K]: from how far all points are from their means to how far each one is from where the others
        say it is. The conditional mean of a Gaussian: x_k - E[x_k | others] = P_kk^-1 (P x)_k; the ridge on the point's
        own variance changes nothing in it."""
        count = len(self.mean)
        precision = torch.linalg.inv(self.covariance.double() + RIDGE * torch.eye(2 * count, dtype=torch.float64))
        blocks = precision.view(count, 2, count, 2)[torch.arange(count), :, torch.arange(count)]  # [K, 2, 2]
        return torch.linalg.solve(blocks, precision.view(count, 2, -1))

    def expected(self, xy: torch.Tensor, width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the others say that each point is: mean [B, K, 2] in the unit square and covariance [B, K, 2, 2], from
        points xy [B, K, 2] that are known up to standard deviations width [B, K] in sides of the square. The
        conditional of a Gaussian of points with independent errors, the figure's middle being `STANCE` from that of
        the square."""
        rows, count = xy.shape[:2]
        together = torch.eye(2, dtype=torch.float64).repeat(count, count)
        usual = self.covariance.double() + STANCE**2 * together  # [2K, 2K]
        away = (xy.double().cpu() - self.mean - 0.5).flatten(1)  # [B, 2K]
        error = (width.double().cpu() ** 2 / 4 + BLUR**2).repeat_interleave(2, 1)  # [B, 2K]
        known = usual + torch.diag_embed(error)  # [B, 2K, 2K]
        mean, covariance = torch.zeros(rows, count, 2), torch.zeros(rows, count, 2, 2)
        for k in range(count):
            own, others = slice(2 * k, 2 * k + 2), [i for i in range(2 * count) if i // 2 != k]
            gain = torch.linalg.solve(known[:, others][:, :, others], usual[others, own].expand(rows, -1, -1))
            mean[:, k] = (gain.transpose(1, 2) @ away[:, others, None])[..., 0].float() + self.mean[k] + 0.5
            covariance[:, k] = self._new_images * (usual[own, own] - usual[own, others] @ gain).float()
        return mean.to(xy), covariance.to(xy)

    def disagreement(self, xy: torch.Tensor) -> torch.Tensor:
        """[B, K]: distance, in sides of the square, of each point of xy [B, K, 2] from where all others say it is."""
        away = (_centred(xy.double().cpu()) - self.mean).flatten(1)  # [B, 2K]
        return (self._against @ away.T[None]).norm(dim=1).T.to(xy)

    @property
    def _new_images(self) -> float:
        """How many times larger squared errors of prediction are on new images: (n + p) / (n - p) times those on the n
        images that p numbers were fitted to (Akaike's final prediction error)."""
        n, p = self.images, 2 * (len(self.mean) - 1)
        return (n + p) / max(n - p, 1)

    @cached_property
    def _usual(self) -> torch.Tensor:
        """float64 [K]: the distance of `disagreement` that is usual for each point."""
        spread = self._against @ self.covariance.double() @ self._against.transpose(1, 2)  # [K, 2, 2]
        return (spread.diagonal(dim1=1, dim2=2).sum(-1) * self._new_images).sqrt()

    def agreement(self, xy: torch.Tensor) -> torch.Tensor:
        """[B, K] in [0, 1]: how well each point of xy [B, K, 2] fits the others, exp(-d^2 / (2 s^2)) of its distance d
        from where they say it is, s being what is usual for this point, at least STEP sides."""
        return torch.exp(-((self.disagreement(xy) / self._usual.clamp(min=STEP).to(xy)) ** 2) / 2)


def _centred(xy: torch.Tensor) -> torch.Tensor:
    """Points [B, K, 2] from the mean of all K, so that where the figure stands does not matter."""
    return xy - xy.mean(1, keepdim=True)
