"""The metrics of the paper and its data sets (Sec. 4.1), each under one name.

predicted, truth: [B, L, 2] (x, y), in the unit square of the image where nothing else is said. visible: bool [B, L],
the landmarks that count; None: all. Every metric raises KeypointError when the shapes of predicted and truth differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import KeypointError


def distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """L2 distances [B, L] between [B, L, 2] and [B, L, 2]; KeypointError when the shapes differ."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape:
        raise KeypointError(
            f"predictions of shape {list(predicted.shape)} were given for landmarks of shape "
            f"{list(truth.shape)}; give the same."
        )
    return np.linalg.norm(predicted - truth, axis=-1)


def _visible_mean(d: np.ndarray, visible: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(distances with 0 where not visible, visible), both [B, L]."""
    visible = np.ones(d.shape, bool) if visible is None else np.asarray(visible, bool)
    return np.where(visible, d, 0.0), visible


def mean_l2_percent(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray | None = None) -> float:
    """Mean L2 over all visible landmarks, unit square, in % of the image side."""
    d, visible = _visible_mean(distances(predicted, truth), visible)
    return float(100 * d.sum() / visible.sum())


def visible_mean_image(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray | None = None) -> float:
    """CUB as the reference reports it: mean over images of each image's mean over its visible landmarks, % of
    side."""
    d, visible = _visible_mean(distances(predicted, truth), visible)
    keep = visible.any(1)
    return float(100 * (d.sum(1)[keep] / visible.sum(1)[keep]).mean())


def visible_mean_micro(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray | None = None) -> float:
    """CUB as AutoLink reports it: one mean over all visible landmarks of all images, % of side."""
    return mean_l2_percent(predicted, truth, visible)


def inter_ocular(
    predicted: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray | None = None,
    eyes: tuple[int, int] = (0, 1),
) -> float:
    """CelebA: each image's mean L2 over its visible landmarks divided by the distance of its true eyes, mean
    over images, x 100. Images that do not show both eyes, or both at one point, do not count; KeypointError
    when no image does."""
    truth = np.asarray(truth, np.float64)
    d, visible = _visible_mean(distances(predicted, truth), visible)
    between = np.linalg.norm(truth[:, eyes[0]] - truth[:, eyes[1]], axis=-1)  # [B]
    keep = visible[:, list(eyes)].all(1) & (between > 0)
    if not keep.any():
        raise KeypointError("No image shows two eyes apart, so nothing can be measured by their distance.")
    return float(100 * (d.sum(1)[keep] / visible.sum(1)[keep] / between[keep]).mean())


def taichi_standard(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> float:
    """Tai-Chi, the field's form: for each of the 2L coordinates the mean |error| over the frames that show
    it, summed; 256-pixel units in, pixels out. The predictions come from one fit with intercept per
    coordinate."""
    error = np.abs(np.asarray(predicted, np.float64) - np.asarray(truth, np.float64))  # [B, L, 2]
    visible = np.asarray(visible, bool)[..., None]
    return float((np.where(visible, error, 0).sum(0) / np.maximum(visible.sum(0), 1)).sum())


def taichi_reference(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> float:
    """Tai-Chi as the reference code reports it: sum of L2 over an image's visible landmarks, mean over
    images; in the units given (pixels of 256). The reference counts a joint where both coordinates are above 0
    (see `Metric.positive`)."""
    d, _ = _visible_mean(distances(predicted, truth), visible)
    return float(d.sum(1).mean())


def pck(predicted: np.ndarray, truth: np.ndarray, threshold: float, visible: np.ndarray | None = None) -> float:
    """Percentage of visible landmarks with L2 below `threshold`, in the units of the points (DeepFashion: 6
    of 256)."""
    d = distances(predicted, truth)
    visible = np.ones(d.shape, bool) if visible is None else np.asarray(visible, bool)
    return float(100 * ((d < threshold) & visible).sum() / visible.sum())


def l2_at(predicted: np.ndarray, truth: np.ndarray, size: float = 128.0, visible: np.ndarray | None = None) -> float:
    """Mean L2 in pixels of a `size` x `size` image; points in the unit square."""
    return mean_l2_percent(predicted, truth, visible) * size / 100


def swap_invariant(
    predicted: np.ndarray,
    truth: np.ndarray,
    permutation: np.ndarray,
    size: float = 128.0,
    visible: np.ndarray | None = None,
) -> float:
    """Human3.6M: per image the smaller of the mean L2 to the visible landmarks and to their
    left/right-swapped version, mean over images, at `size` pixels. Raises KeypointError when `permutation` [L] is not
    its own inverse.
    """
    permutation = np.asarray(permutation)
    if not np.array_equal(permutation[permutation], np.arange(len(permutation))):
        raise KeypointError("the left/right table is not a swap; if it maps a to b, it must map b to a.")
    straight, shown = _visible_mean(distances(predicted, truth), visible)
    keep = shown.any(1)
    swapped = distances(predicted, np.asarray(truth)[:, permutation]) * shown[:, permutation]
    best = np.minimum(straight.sum(1), swapped.sum(1))  # as many landmarks are visible either way
    return float(size * (best[keep] / shown.sum(1)[keep]).mean())


def mean_baseline(train: np.ndarray, count: int, visible: np.ndarray | None = None) -> np.ndarray:
    """Predict the training set's mean landmarks [L, 2] for each of `count` images: [count, L, 2]."""
    train = np.asarray(train, np.float64)
    weight = np.ones(train.shape[:2]) if visible is None else np.asarray(visible, np.float64)
    mean = (train * weight[..., None]).sum(0) / np.maximum(weight.sum(0), 1)[:, None]
    return np.broadcast_to(mean, (count, *mean.shape)).copy()


@dataclass(frozen=True)
class Roles:
    """The roles of the L landmarks in some metrics. swap: [L], the left/right counterpart of each one. eyes: which
    two are the eyes. Empty where unknown."""

    swap: tuple[int, ...] = ()
    eyes: tuple[int, ...] = ()


NO_ROLES = Roles()


@dataclass(frozen=True)
class Metric:
    """A metric by name. measure(predicted, truth, visible, roles) takes [B, L, 2] in the unit square and
    bool [B, L]. intercept: the protocol's fits have an intercept. higher: more is better. needs: the field of
    `Roles` that must be known. positive: a landmark counts, in fit and test, where both coordinates are above 0.
    either_side: the fit exchanges left and right of the labels where that fits better (`fit_either_side`)."""

    unit: str
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray, Roles], float]
    intercept: bool = False
    higher: bool = False
    needs: str = ""
    positive: bool = False
    either_side: bool = False

    def counted(self, landmarks: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """bool [B, L]: which of the visible landmarks [B, L, 2] this metric counts."""
        return visible & (landmarks > 0).all(-1) if self.positive else visible


METRICS: dict[str, Metric] = {
    "inter_ocular": Metric("% of the eyes' distance", lambda p, t, v, r: inter_ocular(p, t, v, r.eyes), needs="eyes"),
    "visible_mean_image": Metric("% of the side", lambda p, t, v, r: visible_mean_image(p, t, v)),
    "visible_mean_micro": Metric("% of the side", lambda p, t, v, r: visible_mean_micro(p, t, v)),
    "mean_l2_percent": Metric("% of the side", lambda p, t, v, r: mean_l2_percent(p, t, v)),
    "taichi_standard": Metric("px of 256, 36 summed", lambda p, t, v, r: taichi_standard(p * 256, t * 256, v), True),
    "taichi_reference": Metric(
        "px of 256, summed", lambda p, t, v, r: taichi_reference(p * 256, t * 256, v), positive=True
    ),
    "l2_128": Metric("px of 128", lambda p, t, v, r: l2_at(p, t, 128, v)),
    "swap_invariant_128": Metric(
        "px of 128",
        lambda p, t, v, r: swap_invariant(p, t, np.array(r.swap), 128, v),
        needs="swap",
        either_side=True,
    ),
    "pck_6": Metric("% within 6 px of 256", lambda p, t, v, r: pck(p, t, 6 / 256, v), higher=True),
    "pck_5_percent": Metric("% within 5 % of the side", lambda p, t, v, r: pck(p, t, 0.05, v), higher=True),
    "pck_10_percent": Metric("% within 10 % of the side", lambda p, t, v, r: pck(p, t, 0.10, v), higher=True),
}


def metric(name: str) -> Metric:
    """The metric of this name; raises KeypointError listing the names for another."""
    if name not in METRICS:
        raise KeypointError(f"There is no metric {name!r}; the metrics are {', '.join(METRICS)}.")
    return METRICS[name]
