"""Choose the tokens whose positions predict the positions of all other tokens best, by ridge regression.

Works on positions alone; knows nothing of models, maps or files.
"""

from __future__ import annotations

import torch

from ..keypoints.spatial_prior import RIDGE
from ..progress import CHOOSING, Progress, silent

FOLDS = 10
MOST = 1000  # tokens that take part in a choice


def informativeness(position: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """The informativeness of each token, [N] in [0, 1]: its mean peak score, times the share of the variance of its
    position over images and views that is not variance between the views of one image.

    position: [I, V, N, 2] in the unit square of the image. score: peak scores [I, N] in [0, 1].
    """
    views = position.shape[1]
    x = position.double()
    x = x - x.mean((0, 1))
    noise = (x - x.mean(1, keepdim=True)).square().sum(-1).mean((0, 1)) * views / max(1, views - 1)  # [N]
    return (1 - noise / x.square().sum(-1).mean((0, 1)).clamp(min=1e-12)).clamp(0, 1) * score.double().mean(0)


def most_predictive(
    position: torch.Tensor, score: torch.Tensor, keypoints: int, on_progress: Progress | None = None
) -> torch.Tensor:
    """Choose the K tokens from whose positions those of all tokens are predicted best: int64 [K], best first.

    position: [I, V, N, 2], the peak of each token in each view of each image, in the unit square of the image. score:
    peak scores [I, N] in [0, 1]. Tokens are added one by one. Each time it is the token that gives the smallest error
    of a linear prediction, from the positions in one view, of the positions of all tokens in the other views, measured
    on images that it was not fitted to and weighted by the informativeness of each token. A token on the background or
    one that jumps predicts no other token; one beside a chosen token adds nothing.
    """
    images, views, _, _ = position.shape
    report = on_progress or silent
    report(CHOOSING, 0, keypoints)
    x, weight = position.double(), informativeness(position, score)
    x = x - x.mean((0, 1))
    mean = x.mean(1, keepdim=True)
    kept = weight.argsort(descending=True, stable=True)[:MOST].sort().values
    x, mean, weight = x[:, :, kept], mean[:, :, kept], weight[kept] + 1e-9
    others = (mean * views - x) / max(1, views - 1) if views > 1 else x  # mean position in the other views
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
        report(CHOOSING, len(taken), keypoints)
    return kept[torch.tensor(taken)]


class _Fold:
    """A prediction fitted on some images and tested on others as tokens are added (block Cholesky elimination)."""

    def __init__(self, x: torch.Tensor, wanted: torch.Tensor, held: torch.Tensor):
        """x, wanted: [I, V, 2N], positions and what is predicted. held: bool [I], the images for the test."""
        fit = ~held if bool((~held).any()) else held
        a, b = x[fit].flatten(0, 1), wanted[fit].flatten(0, 1)
        self.gram = a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1], dtype=a.dtype)  # [2N, 2N]
        self.cross = a.T @ b  # [2N, 2N]
        self.x, self.rest = x[held].flatten(0, 1), wanted[held].flatten(0, 1)  # what is not explained yet

    def _weights(self) -> torch.Tensor:
        """The regression of what is not explained yet on each token alone: [N, 2, 2N]."""
        n = len(self.gram) // 2
        blocks = self.gram.view(n, 2, n, 2)[torch.arange(n), :, torch.arange(n)]  # [N, 2, 2]
        return torch.linalg.solve(blocks, self.cross.view(n, 2, -1))

    def errors(self) -> torch.Tensor:
        """The squared error on the held images if each token was added: [N]."""
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
        """Add a token: subtract what it explains from all other tokens and from what is predicted."""
        pair = slice(2 * token, 2 * token + 2)
        gain = torch.linalg.solve(self.gram[pair, pair], torch.cat([self.gram[pair], self.cross[pair]], 1))  # [2, 4N]
        share, explains = gain.split([len(self.gram), self.cross.shape[1]], 1)
        column, own = self.gram[:, pair].clone(), self.x[:, pair].clone()
        self.rest = self.rest - own @ explains
        self.x = self.x - own @ share
        self.gram = self.gram - column @ share
        self.cross = self.cross - column @ explains
        self.gram[pair, pair] += RIDGE * torch.eye(2, dtype=column.dtype)  # the token itself is used up: any full block
