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
SAMPLES = 1 << 15  # positions, about, that tell the features' spread
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
        objective = _Objective([(coarse, position)])
        with rounds.next() as tick:
            fit = _fit(objective, spread, fit, tick)
    missed, _ = objective(fit.tokens())
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
            objective = _Objective(pairs)
            with rounds.next() as tick:
                fit = _fit(objective, spread, fit, tick)
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
    return _fit(_Objective(pairs), spread, None if start is None else _Fit(start @ spread, spread), tick).tokens()


def _spread(groups: Sequence[FeatureStore]) -> torch.Tensor:
    """[D, D], lower triangular: the Cholesky factor of the covariance of the features over a sample of positions."""
    every = max(1, sum(group.positions for group in groups) // SAMPLES)
    x = torch.cat([group.sample(every) for group in groups])
    x = x - x.mean(0)
    covariance = x.T @ x / len(x)
    ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)))


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


class _Objective:
    """Mean negative log-likelihood of where tokens were found: positions [I, V', K, 2] on the images of each store.

    With targets q that sum to 1 over positions x it is, for each view, log sum_x exp(f_x . t) - (sum_x q_x f_x) . t;
    the second part is linear in the token t and is summed up once.
    """

    def __init__(self, pairs: Sequence[tuple[FeatureStore, torch.Tensor]]):
        count, width = pairs[0][1].shape[2], pairs[0][0].width
        self.target, self.constant = torch.zeros(count, width), torch.zeros(count)  # [K, D], [K]
        targets = [(store, *store.targets(position)) for store, position in pairs]  # [I, V, P, K], [I, V, K]
        whole = sum(weight.sum((0, 1)) for _, _, weight in targets).clamp(min=1e-6)  # [K]
        self.shares = [(store, weight / whole) for store, _, weight in targets]
        for (store, share), (_, target, _) in zip(self.shares, targets, strict=True):
            for some, features in store.chunks():
                aim = (target[some] * share[some, :, None]).flatten(0, 1).to(features)  # [s, P, K]
                self.target += (aim.flatten(0, 1).T @ features.flatten(0, 1)).cpu()
                self.constant += (aim.permute(2, 0, 1) * store.area(some)).sum((1, 2)).cpu()

    def __call__(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective [K] and its gradient [K, D] at tokens [K, D]."""
        missed, gradient = -(self.target * tokens).sum(1) - self.constant, -self.target
        for store, share in self.shares:
            for some, features in store.chunks():
                counts = share[some].flatten(0, 1).T.to(features)  # [K, s]
                logits = store.logits(some, features, tokens)  # [K, s, P]
                likely = logits.log_softmax(-1)
                missed = missed + ((logits[..., 0] - likely[..., 0]) * counts).sum(1).cpu()  # log of the sum
                likely = likely.exp_().mul_(counts[..., None])
                gradient = gradient + (likely.flatten(1) @ features.flatten(0, 1)).cpu()
        return missed, gradient


def _fit(objective: _Objective, spread: torch.Tensor, start: _Fit | None, tick: Callable[[], None]) -> _Fit:
    """The tokens of largest penalised likelihood, by L-BFGS; tick is called after every evaluation."""
    white = (torch.zeros_like(objective.target) if start is None else start.white.clone()).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [white],
        max_iter=_FIRST if start is None else _LATER,
        tolerance_change=_ENOUGH,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        missed, gradient = objective(_coloured(white.detach(), spread))
        plain = torch.linalg.solve_triangular(spread, gradient.T, upper=False).T
        white.grad = plain + 2 * PENALTY * white.detach()
        tick()
        return missed.sum() + PENALTY * white.detach().square().sum()

    optimizer.step(closure)
    return _Fit(white.detach(), spread)
