"""Every metric, with its protocol's own fit, against a formula written down here anew, on planted predictions."""

import numpy as np
import pytest

from stablekp_core.evaluation.cache import Points
from stablekp_core.evaluation.datasets.human36m import SWAP
from stablekp_core.evaluation.metrics import METRICS, Roles
from stablekp_core.evaluation.protocol import measure
from stablekp_core.evaluation.regression import SETTLED, fit_either_side, fit_regression

K, L = 6, 32


def planted(count: int, seed: int, flipped: float = 0.0) -> Points:
    """Keypoints and noisy landmarks that hang on them by one map; of a share of the figures left and right are
    exchanged in the labels. Some landmarks are not visible, some of the visible ones lie at or below 0."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    xy = 0.5 + rng.normal(0, 0.15, (count, K, 2))
    landmarks = 0.5 + np.einsum("bkc,kl->blc", xy - 0.5, fixed.normal(0, 0.6, (K, L)))
    landmarks = landmarks + rng.normal(0, 0.02, landmarks.shape)
    exchanged = rng.random(count) < flipped
    landmarks[exchanged] = landmarks[exchanged][:, list(SWAP)]
    landmarks[::9, 3, 0], landmarks[::7, 5, 1] = -0.01, 0.0
    visible = rng.random((count, L)) < 0.8
    visible[:, :2] = True
    return Points(xy, np.ones((count, K)), landmarks, visible, [str(i) for i in range(count)], [])


def fitted(fit: Points, test: Points, visible: np.ndarray, intercept: bool) -> np.ndarray:
    """Normal equations, one landmark coordinate after the other."""
    x, t = (p.xy.reshape(len(p.xy), -1) - 0.5 for p in (fit, test))
    if intercept:
        x, t = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, t))
    out = np.zeros((len(t), L, 2))
    for joint in range(L):
        rows = np.flatnonzero(visible[:, joint])
        for axis in (0, 1):
            y = fit.landmarks[rows, joint, axis] - 0.5
            out[:, joint, axis] = t @ (np.linalg.pinv(x[rows].T @ x[rows]) @ (x[rows].T @ y)) + 0.5
    return out


def mean_over_images(d: np.ndarray, visible: np.ndarray) -> float:
    return float(np.mean([d[i][visible[i]].mean() for i in range(len(d)) if visible[i].any()]))


def by_hand(name: str, fit: Points, test: Points) -> float:
    """The protocol of a metric, straight from its description."""
    seen_fit, seen = fit.visible, test.visible
    if name == "taichi_reference":  # both coordinates above 0, in fit and test
        seen_fit, seen = (p.visible & (p.landmarks[..., 0] > 0) & (p.landmarks[..., 1] > 0) for p in (fit, test))
    guess = fitted(fit, test, seen_fit, intercept=name == "taichi_standard")
    d = np.sqrt(((guess - test.landmarks) ** 2).sum(-1))
    if name == "inter_ocular":
        eyes = np.sqrt(((test.landmarks[:, 0] - test.landmarks[:, 1]) ** 2).sum(-1))
        return 100 * mean_over_images(d / eyes[:, None], seen)
    if name == "visible_mean_image":
        return 100 * mean_over_images(d, seen)
    if name in ("visible_mean_micro", "mean_l2_percent"):
        return 100 * d[seen].mean()
    if name == "l2_128":
        return 128 * d[seen].mean()
    if name == "taichi_reference":
        return 256 * np.mean([d[i][seen[i]].sum() for i in range(len(d))])
    if name == "taichi_standard":
        error = np.abs(guess - test.landmarks)
        return 256 * sum(error[seen[:, j], j, axis].mean() for j in range(L) for axis in (0, 1))
    limit = {"pck_6": 6 / 256, "pck_5_percent": 0.05, "pck_10_percent": 0.1}[name]
    return 100 * (d[seen] < limit).mean()


@pytest.mark.parametrize("name", [name for name in METRICS if name != "swap_invariant_128"])
def test_metric_with_its_fit(name):
    fit, test = planted(80, 1), planted(40, 2)
    assert fit.visible.any(0).all()
    own, _, _, left_out = measure(fit, test, [name], Roles(swap=SWAP, eyes=(0, 1)))
    assert left_out == () and own[name] == pytest.approx(by_hand(name, fit, test), rel=1e-6)


def either_side_by_hand(fit: Points, test: Points) -> float:
    """Human3.6M: labels of training images change sides where the map is nearer so, until at most 10 do."""
    x, y = fit.xy.reshape(len(fit.xy), -1) - 0.5, fit.landmarks.copy()
    while True:
        w = np.linalg.inv(x.T @ x) @ x.T @ (y.reshape(len(y), -1) - 0.5)
        guess = (x @ w + 0.5).reshape(y.shape)
        other = y[:, SWAP, :]
        change = [
            np.sqrt(((g - a) ** 2).sum(-1)).mean() > np.sqrt(((g - b) ** 2).sum(-1)).mean()
            for g, a, b in zip(guess, y, other, strict=True)
        ]
        if sum(change) <= 10:
            break
        y[change] = other[change]
    guess = ((test.xy.reshape(len(test.xy), -1) - 0.5) @ w + 0.5).reshape(test.landmarks.shape)
    straight = np.sqrt(((guess - test.landmarks) ** 2).sum(-1)).mean(1)
    crossed = np.sqrt(((guess[:, SWAP, :] - test.landmarks) ** 2).sum(-1)).mean(1)
    return 128 * np.minimum(straight, crossed).mean()


def test_human36m_labels_change_sides_until_they_fit():
    fit, test = planted(300, 3, flipped=0.45), planted(100, 4, flipped=0.45)
    for points in (fit, test):
        points.visible[:] = True
    expected = either_side_by_hand(fit, test)
    own, _, _, _ = measure(fit, test, ["swap_invariant_128", "l2_128"], Roles(swap=SWAP))
    assert own["swap_invariant_128"] == pytest.approx(expected, rel=1e-6)
    plain = fit_regression(fit.xy, fit.landmarks).predict(test.xy)
    at_once = METRICS["swap_invariant_128"].measure(plain, test.landmarks, test.visible, Roles(swap=SWAP))
    assert at_once > 1.5 * expected  # what a single fit to the labels as they are gave
    assert own["l2_128"] == pytest.approx(128 * np.linalg.norm(plain - test.landmarks, axis=-1).mean(), rel=1e-6)


def test_labels_that_change_sides_take_their_visibility_along():
    fit = planted(300, 5, flipped=0.45)
    shown = fit.visible.copy()
    fitted_map = fit_either_side(fit.xy, fit.landmarks, SWAP, fit.visible)
    assert (fit.visible == shown).all()  # the caller's arrays stay as they are
    true = 0.5 + np.einsum("bkc,kl->blc", fit.xy - 0.5, np.random.default_rng(99).normal(0, 0.6, (K, L)))
    error = np.linalg.norm(fitted_map.predict(fit.xy) - true, axis=-1).mean()
    crossed = np.linalg.norm(fitted_map.predict(fit.xy) - true[:, SWAP, :], axis=-1).mean()
    assert min(error, crossed) < 0.03 and SETTLED == 10
