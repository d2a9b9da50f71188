"""From learned keypoints to annotated landmarks by linear least squares, as the paper evaluates them (Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import KeypointError

SETTLED = 10  # `fit_either_side` ends when no more images than this change sides
_MOST_FITS = 1000  # in case the sides of some images never settle


@dataclass(frozen=True)
class Regression:
    """matrix float64 [2K, 2L] and offset [2L]: landmarks - 0.5 = (points - 0.5) @ matrix + offset, unit
    square."""

    matrix: np.ndarray
    offset: np.ndarray

    def predict(self, points: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Landmarks [B, L, 2] of points [B, K, 2], both (x, y) in the unit square."""
        out = _centred(points, weights) @ self.matrix + self.offset  # [B, 2L]
        return out.reshape(len(points), -1, 2) + 0.5


def fit_regression(
    points: np.ndarray,
    landmarks: np.ndarray,
    visible: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    bias: bool = False,
    ridge: float = 0.0,
) -> Regression:
    """Least squares from points [B, K, 2] to landmarks [B, L, 2], all in the unit square, centred at 0.5.

    The paper's protocol is the default: no bias, no ridge. visible: bool [B, L], a landmark is fitted on the
    images that show it. weights: [B, K] confidences that shrink uncertain points towards the centre; give
    them to predict as well. ridge: strength, in units of images. Raises KeypointError when the shapes differ
    or a landmark is never visible.
    """
    points, landmarks = np.asarray(points, np.float64), np.asarray(landmarks, np.float64)
    if points.ndim != 3 or landmarks.ndim != 3 or len(points) != len(landmarks) or not len(points):
        raise KeypointError(
            f"points of shape {list(points.shape)} and landmarks of shape {list(landmarks.shape)} do not "
            "fit together; give [images, K, 2] and [images, L, 2] of the same images."
        )
    visible = np.ones(landmarks.shape[:2], bool) if visible is None else np.asarray(visible, bool)
    x = _centred(points, weights)  # [B, 2K]
    if bias:
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
    solution = np.zeros((x.shape[1], 2 * landmarks.shape[1]))
    for pattern in np.unique(visible.T, axis=0):  # landmarks seen together
        which = np.flatnonzero((visible.T == pattern).all(1))
        if not pattern.any():
            raise KeypointError(f"landmark {which[0]} is visible on none of the {len(points)} images; leave it out.")
        columns = np.stack([2 * which, 2 * which + 1], 1).ravel()
        y = landmarks[pattern][:, which].reshape(int(pattern.sum()), -1) - 0.5  # [b, 2 * len(which)]
        solution[:, columns] = _solve(x[pattern], y, ridge, bias)
    if not bias:
        return Regression(solution, np.zeros(solution.shape[1]))
    return Regression(solution[:-1], solution[-1])


def fit_either_side(
    points: np.ndarray,
    landmarks: np.ndarray,
    permutation: Sequence[int],
    visible: np.ndarray | None = None,
    bias: bool = False,
) -> Regression:
    """`fit_regression` for keypoints that do not distinguish left and right, as in the paper for Human3.6M.

    The labels of an image are replaced by those of their left/right counterparts (`permutation` [L]) if these are
    nearer to the prediction of the fitted map (mean distance over the visible landmarks of the image), and the map is
    fitted again, until at most `SETTLED` images change. Other arguments as for `fit_regression`.
    """
    points, landmarks = np.asarray(points, np.float64), np.array(landmarks, np.float64)
    visible = np.ones(landmarks.shape[:2], bool) if visible is None else np.array(visible, bool)
    permutation = np.asarray(permutation)
    for _ in range(_MOST_FITS):
        fitted = fit_regression(points, landmarks, visible, bias=bias)
        predicted = fitted.predict(points)
        straight = _mean_distance(predicted, landmarks, visible)
        change = straight > _mean_distance(predicted, landmarks[:, permutation], visible[:, permutation])  # [B]
        if change.sum() <= SETTLED:
            break
        landmarks[change] = landmarks[change][:, permutation]
        visible[change] = visible[change][:, permutation]
    return fitted


def _mean_distance(predicted: np.ndarray, landmarks: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The mean L2 distance over the visible landmarks of each image: [B]."""
    d = np.linalg.norm(predicted - landmarks, axis=-1)
    return (d * visible).sum(1) / np.maximum(visible.sum(1), 1)


def _centred(points: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    x = np.asarray(points, np.float64) - 0.5
    if weights is not None:
        x = x * np.asarray(weights, np.float64)[..., None]
    return x.reshape(len(x), -1)


def _solve(x: np.ndarray, y: np.ndarray, ridge: float, bias: bool) -> np.ndarray:
    if not ridge:
        return np.linalg.lstsq(x, y, rcond=None)[0]
    penalty = np.full(x.shape[1], np.sqrt(ridge))
    if bias:
        penalty[-1] = 0.0  # the offset is free
    return np.linalg.lstsq(
        np.concatenate([x, np.diag(penalty)]),
        np.concatenate([y, np.zeros((len(penalty), y.shape[1]))]),
        rcond=None,
    )[0]
