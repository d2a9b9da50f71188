"""Choose the tokens whose positions predict the positions of all the others best.

Works on positions alone; linear ridge regression throughout. It knows nothing of models, maps or files.
"""

from __future__ import annotations

import torch

from ..keypoints.spatial_prior import RIDGE
from ..progress import CHOOSING, Progress, silent

FOLDS = 10
MOST = 1000  # tokens that take part in a choice


def informativeness(position: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """[N]: the informativeness of each token, at positions [I, V, N, 2] with peak scores [I, N]: the mean score times
    the
    share of the position's variance over images that is not disagreement of views."""
    views = position.shape[1]
    x = position.double()
    x = x - x.mean((0, 1))
    noise = (x - x.mean(1, keepdim=True)).square().sum(-1).mean((0, 1)) * views / max(1, views - 1)  # [N]
    return (1 - noise / x.square().sum(-1).mean((0, 1)).clamp(min=1e-12)).clamp(0, 1) * score.double().mean(0)


def most_predictive(
    position: torch.Tensor, score: torch.Tensor, keypoints: int, on_progress: Progress | None = None
) -> torch.Tensor:
    """Choose the tokens from whose positions those of all tokens can be told best. Returns int64 [K], best first.

    position [I, V, N, 2]: peak of each token in view V of image I, brought back to the image, in the unit square;
    score [I, N]: the peak's score. Tokens are added one by one, each time the one with which a linear prediction,
    from one view, of where the other views see every token errs least on images it was not fitted to. A token on the
    background or that jumps tells nothing of the others; one beside a chosen one tells nothing new. Errors are
    weighted by the informativeness of each token.
    """
    images, views, _, _ = position.shape
    x, weight = position.double(), informativeness(position, score)
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
        (on_progress or silent)(CHOOSING, len(taken), keypoints)
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
