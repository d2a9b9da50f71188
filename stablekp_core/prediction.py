"""How keypoints tell of each other: choosing tokens that predict all others, and how well a point fits its peers.

Works on positions alone; linear ridge regression throughout. It knows nothing of models, maps or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

RIDGE = 0.003  # added to the variance of a coordinate, in squared sides of the picture: a jitter of 5 %
FOLDS = 10
STEP = 0.1  # sides of the picture: a point may always be this far from where its peers say it is
STANCE = 0.15  # sides of the picture: how far a figure's middle is from the picture's
BLUR = 0.02  # sides of the picture: no place is known better than this
MOST = 1000  # tokens that take part in a choice


def telling(position: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """[N]: how much each token tells, at positions [I, V, N, 2] with peaks of height [I, N]: the mean height times the
    share of the position's variance over images that is not disagreement of views."""
    views = position.shape[1]
    x = position.double()
    x = x - x.mean((0, 1))
    noise = (x - x.mean(1, keepdim=True)).square().sum(-1).mean((0, 1)) * views / max(1, views - 1)  # [N]
    return (1 - noise / x.square().sum(-1).mean((0, 1)).clamp(min=1e-12)).clamp(0, 1) * height.double().mean(0)


def most_predictive(position: torch.Tensor, height: torch.Tensor, keypoints: int) -> torch.Tensor:
    """Choose the tokens from whose positions those of all tokens can be told best. Returns int64 [K], best first.

    position [I, V, N, 2]: peak of each token in view V of image I, brought back to the picture, in the unit square;
    height [I, N]: the peak's height. Tokens are added one by one, each time the one with which a linear prediction,
    from one view, of where the other views see every token errs least on images it was not fitted to. A token on the
    background or that jumps tells nothing of the others; one beside a chosen one tells nothing new. Errors are
    weighted by how much each token tells (`telling`).
    """
    images, views, _, _ = position.shape
    x, weight = position.double(), telling(position, height)
    x = x - x.mean((0, 1))
    mean = x.mean(1, keepdim=True)
    kept = weight.argsort(descending=True, stable=True)[:MOST].sort().values
    x, mean, weight = x[:, :, kept], mean[:, :, kept], weight[kept] + 1e-9
    others = (mean * views - x) / max(1, views - 1) if views > 1 else x  # what the other views see
    flat, wanted = x.flatten(2), (others * weight.sqrt()[:, None]).flatten(2)  # [I, V, 2N]
    fold = torch.arange(images) % min(FOLDS, images)
    parts = [_Fold(flat, wanted, fold == f if images > 1 else torch.ones(1, dtype=torch.bool)) for f in fold.unique()]
    taken: list[int] = []
    while len(taken) < keypoints:
        error = sum(part.errors() for part in parts)
        error[taken] = float("inf")
        taken.append(int(error.argmin()))
        for part in parts:
            part.take(taken[-1])
    return kept[torch.tensor(taken)]


class _Fold:
    """Prediction fitted on some images and tried on the others, as tokens are added (a block Cholesky elimination)."""

    def __init__(self, x: torch.Tensor, wanted: torch.Tensor, held: torch.Tensor):
        """x, wanted [I, V, 2N]; held bool [I]: the images it is tried on."""
        fit = ~held if bool((~held).any()) else held
        a, b = x[fit].flatten(0, 1), wanted[fit].flatten(0, 1)
        self.gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=a.dtype)  # [2N, 2N]
        self.cross = a.T @ b  # [2N, 2N]
        self.x, self.rest = x[held].flatten(0, 1), wanted[held].flatten(0, 1)  # what is not explained yet

    def _weights(self) -> torch.Tensor:
        """[N, 2, 2N]: how each token alone would explain the rest."""
        n = len(self.gram) // 2
        blocks = self.gram.view(n, 2, n, 2)[torch.arange(n), :, torch.arange(n)]  # [N, 2, 2]
        return torch.linalg.solve(blocks, self.cross.view(n, 2, -1))

    def errors(self) -> torch.Tensor:
        """[N]: squared error on the held images with one token more."""
        weights = self._weights()
        n = len(weights)
        x = self.x.T.reshape(n, 2, -1)  # [N, 2, S]
        against = (self.x.T @ self.rest).view(n, 2, -1)  # [N, 2, 2N]
        return (
            self.rest.square().sum()
            - 2 * (weights * against).sum((1, 2))
            + (weights * (torch.matmul(x, x.transpose(1, 2)) @ weights)).sum((1, 2))
        )

    def take(self, token: int) -> None:
        """Add a token: subtract from everything what it explains."""
        pair = slice(2 * token, 2 * token + 2)
        gain = torch.linalg.solve(self.gram[pair, pair], torch.cat([self.gram[pair], self.cross[pair]], 1))  # [2, 4N]
        share, explains = gain.split([len(self.gram), self.cross.shape[1]], 1)
        column, own = self.gram[:, pair].clone(), self.x[:, pair].clone()
        self.rest = self.rest - own @ explains
        self.x = self.x - own @ share
        self.gram = self.gram - column @ share
        self.cross = self.cross - column @ explains
        self.gram[pair, pair] += RIDGE * torch.eye(2, dtype=column.dtype)  # the token itself is used up: any full block


@dataclass(frozen=True)
class Peers:
    """Where keypoints lie on the training images, from the middle of them all, in sides of the model's square: mean
    [K, 2] and covariance [2K, 2K] (x and y of keypoint 0, of keypoint 1, ...), and how many images these were."""

    mean: torch.Tensor
    covariance: torch.Tensor
    images: int

    @classmethod
    def of(cls, position: torch.Tensor) -> Peers:
        """From positions [I, K, 2] on I images."""
        x = _centred(position.double())
        away = (x - x.mean(0)).flatten(1)
        return cls(x.mean(0).float(), (away.T @ away / len(x)).float(), len(x))

    def fits(self, keypoints: int) -> bool:
        """Whether these are finite numbers of so many keypoints."""
        shapes = self.mean.shape == (keypoints, 2) and self.covariance.shape == (2 * keypoints, 2 * keypoints)
        return shapes and bool(self.mean.isfinite().all() and self.covariance.isfinite().all())

    def pick(self, indices: Sequence[int]) -> Peers:
        """Those of some keypoints, in this order, from the middle of these."""
        k = torch.tensor(list(indices), dtype=torch.long)
        rows, middle = torch.stack([2 * k, 2 * k + 1], 1).flatten(), torch.eye(2).repeat(len(k), len(k)) / len(k)
        centre = torch.eye(2 * len(k)) - middle
        covariance = centre @ self.covariance[rows][:, rows] @ centre
        return Peers(_centred(self.mean[None, k])[0], covariance, self.images)

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
