"""Refinement: fit the chosen tokens to the positions where they were found, as classifiers of spatial positions.

The losses draw the map of a token to a small Gaussian at its own peak, image by image, so a peak that jumps to another
part has as much weight as one that does not. Refinement uses all images at once. The spatial softmax of an image
(positions.py) is fitted by maximum likelihood to the positions where the token was found in the views of the images,
which is multinomial logistic regression with one class for each position: convex, without a starting point or a
learning rate. Positions that recur in the same surroundings prevail, outliers do not. Then the keypoints are located
with the fitted tokens, and the tokens are fitted to these positions, several times (self-training).

Images with shapes pasted over them (occlusion.py) take part with the positions found without the shapes: tokens learn
to find what is occluded from what is around it.

Features are extracted, here and in detection, under a prompt of one token, the mean of all learned ones: features under
the prompt of all of them at once separated the parts of cluttered images less well.

Works on features, wherever they come from; knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..progress import CHOOSING, REFINING, Progress, Rounds
from .positions import FeatureStore

COARSE_ROUNDS, FINE_ROUNDS = 4, 2
PENALTY = 0.03  # weight of the squared embedding, for features of unit variance, beside the mean log-likelihood
_ENOUGH = 1e-2  # change of the loss, a sum over tokens of some nats each, at which a fit ends
_FIRST, _LATER = 20, 10  # the most iterations of a fit without and with a start


def neutral_prompt(tokens: torch.Tensor) -> torch.Tensor:
    """The prompt of the UNet for fitting and reading refined tokens: [1, D], the mean of all learned tokens [N, D]."""
    return tokens.mean(0, keepdim=True)


def refine_candidates(
    position: torch.Tensor, store: FeatureStore, on_progress: Progress | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refine many tokens roughly, on coarse features.

    position: [I, V', N, 2] in the unit square of the image, where views found the tokens. Returns the positions in
    which each view finds the fitted tokens, [I, V, N, 2], and their mean negative log-likelihood in nats, [N].
    """
    coarse = store.coarse()
    spread, fit = _spread([coarse]), None
    rounds = Rounds(on_progress, CHOOSING, _evaluations(COARSE_ROUNDS))
    for _ in range(COARSE_ROUNDS):
        if fit is not None:
            position = coarse.locate(fit.tokens())[0][:, None]
        with rounds.next() as tick:
            fit = _fit([(coarse, position)], spread, fit, tick)
    missed, _ = _measure(*_aims([(coarse, position)]), fit.tokens())
    return coarse.locate_in_views(fit.tokens()), missed


def refine(
    position: torch.Tensor,
    store: FeatureStore,
    *more: FeatureStore,
    occluded: FeatureStore | None = None,
    on_progress: Progress | None = None,
) -> torch.Tensor:
    """Refine the tokens of K keypoints; returns their embeddings, float32 [K, D].

    position: [I, V', K, 2] in the unit square of the image, where views found each keypoint on the images of `store`.
    more: further images, on which the first fit locates the keypoints. occluded: the first of all these images, in the
    same order, under shapes; tokens are fitted to the positions found without the shapes.
    """
    groups = [store, *(group for group in more if len(group))]
    occluded = occluded if occluded is not None and len(occluded) else None
    found, fit = [position], None
    fine = max(1, store.side // store.coarse_side) ** 2
    rounds = Rounds(
        on_progress, REFINING, _evaluations(COARSE_ROUNDS + FINE_ROUNDS), [1] * COARSE_ROUNDS + [fine] * FINE_ROUNDS
    )
    for small, count in ((True, COARSE_ROUNDS), (False, FINE_ROUNDS)):
        some = [group.coarse() if small else group for group in groups]
        under = occluded.coarse() if occluded and small else occluded
        spread = _spread([*some, under] if under else some)
        fit = fit and fit.moved_to(spread)
        for _ in range(count):
            if fit is not None:
                found = [group.locate(fit.tokens())[0][:, None] for group in some]  # [I, 1, K, 2] each
            pairs = list(zip(some, found, strict=False))
            if under and fit is not None:
                pairs.append((under, torch.cat(found)[: len(under)]))
            with rounds.next() as tick:
                fit = _fit(pairs, spread, fit, tick)
    return fit.tokens()


def _evaluations(rounds: int) -> list[int]:
    """The largest number of evaluations of the likelihood in each of several successive fits, of which the first has no
    start (torch.optim.LBFGS evaluates up to 5/4 times an iteration)."""
    return [(_FIRST if i == 0 else _LATER) * 5 // 4 for i in range(rounds)]


def fit_positions(
    pairs: Sequence[tuple[FeatureStore, torch.Tensor]],
    start: torch.Tensor | None = None,
    tick: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Fit the tokens of K keypoints once; returns their embeddings, float32 [K, D].

    pairs: (store, positions [I, V', K, 2] on its images, in their unit square). start: embeddings [K, D] to begin with.
    tick: called after every evaluation, may raise.
    """
    spread = _spread([store for store, _ in pairs])
    return _fit(pairs, spread, None if start is None else _Fit(start @ spread, spread), tick).tokens()


def _spread(groups: Sequence[FeatureStore]) -> torch.Tensor:
    """[D, D], lower triangular: the Cholesky factor of the covariance of the features over all positions."""
    count, total, square = (sum(values) for values in zip(*(group.spread() for group in groups), strict=True))
    mean = total / count
    covariance = square / count - mean[:, None] * mean
    ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean)))


class _Fit:
    """Tokens [K, D] in coordinates in which features have unit variance (white)."""

    def __init__(self, white: torch.Tensor, spread: torch.Tensor):
        self.white, self.spread = white, spread

    def tokens(self) -> torch.Tensor:
        """The tokens in coordinates of the features, [K, D]."""
        return _coloured(self.white, self.spread)

    def moved_to(self, spread: torch.Tensor) -> _Fit:
        """The same tokens in the coordinates of another spread."""
        return _Fit(self.tokens() @ spread, spread)


def _coloured(white: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Tokens [K, D] from white coordinates [K, D]."""
    return torch.linalg.solve_triangular(spread.T, white.T, upper=True).T


def _aims(
    pairs: Sequence[tuple[FeatureStore, torch.Tensor]],
) -> tuple[list[tuple[FeatureStore, torch.Tensor, torch.Tensor]], torch.Tensor]:
    """(store, targets [I, V, P, K], weights [I, V, K]) of (store, positions [I, V', K, 2]), and all weight [K]."""
    aims = [(store, *store.targets(position)) for store, position in pairs]
    return aims, sum(weight.sum((0, 1)) for _, _, weight in aims).clamp(min=1e-6)


def _measure(
    aims: Sequence[tuple[FeatureStore, torch.Tensor, torch.Tensor]], whole: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean negative log-likelihood [K] of `_aims` under tokens [K, D], and its gradient [K, D] in them."""
    missed, gradient = torch.zeros(len(tokens)), torch.zeros_like(tokens)
    for store, target, weight in aims:
        for some, features in store.chunks():
            aim = target[some].flatten(0, 1).to(features)  # [s, P, K]
            counts = (weight[some].flatten(0, 1) / whole)[:, None].to(features)  # [s, 1, K]
            log = store.log_likelihood(some, features, tokens)  # [s, P, K]
            missed -= ((aim * log).sum(1, keepdim=True) * counts).sum((0, 1)).cpu()
            wrong = (log.exp() - aim) * counts
            gradient += (wrong.flatten(0, 1).T @ features.flatten(0, 1)).cpu()
    return missed, gradient


def _fit(
    pairs: Sequence[tuple[FeatureStore, torch.Tensor]],
    spread: torch.Tensor,
    start: _Fit | None,
    tick: Callable[[], None],
) -> _Fit:
    """The tokens of largest penalised likelihood given (store, positions [I, V', K, 2]), by L-BFGS; tick is called
    after every evaluation."""
    aims, whole = _aims(pairs)
    white = (torch.zeros(len(whole), len(spread)) if start is None else start.white.clone()).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [white],
        max_iter=_FIRST if start is None else _LATER,
        tolerance_change=_ENOUGH,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        missed, gradient = _measure(aims, whole, _coloured(white.detach(), spread))
        plain = torch.linalg.solve_triangular(spread, gradient.T, upper=False).T
        white.grad = plain + 2 * PENALTY * white.detach()
        tick()
        return missed.sum() + PENALTY * white.detach().square().sum()

    optimizer.step(closure)
    return _Fit(white.detach(), spread)
