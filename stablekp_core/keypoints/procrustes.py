"""The usual shape of a figure's keypoints, and what it says about points that were not seen.

Shapes are compared up to shift, turn and size (a similarity); in two dimensions that is one complex number
times the points plus another, fitted in closed form.
"""

from __future__ import annotations

import numpy as np

_TINY = 1e-12


def align(shape: np.ndarray, xy: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`shape` shifted, turned and scaled to fit each row of points best.

    shape: [K, 2]. xy: [B, K, 2]. weights: [B, K] >= 0. Returns float64 [B, K, 2]. A row with one weighted
    point is only shifted (size and angle of `shape` stay), a row with none gets `shape` as it is.
    """
    model = _complex(np.asarray(shape, dtype=np.float64))  # [K]
    points = _complex(np.asarray(xy, dtype=np.float64))  # [B, K]
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum(axis=1)
    share = weights / np.maximum(total, _TINY)[:, None]
    model_mean, mean = share @ model, (share * points).sum(axis=1)  # [B]
    centred = model[None] - model_mean[:, None]
    size = (share * np.abs(centred) ** 2).sum(axis=1)
    turn = (share * np.conj(centred) * (points - mean[:, None])).sum(axis=1) / np.maximum(size, _TINY)
    turn = np.where((size > _TINY) & (np.abs(turn) > _TINY), turn, 1.0)
    fitted = turn[:, None] * centred + mean[:, None]
    fitted = np.where(total[:, None] > 0, fitted, model[None])
    return np.stack([fitted.real, fitted.imag], axis=-1)


def mean_shape(xy: np.ndarray, weights: np.ndarray, rounds: int = 5) -> np.ndarray:
    """The average shape of B figures [B, K, 2] under weights [B, K]: float64 [K, 2].

    It is centred at the origin and has RMS radius 1. Points without weight anywhere lie at the origin.
    """
    xy = np.asarray(xy, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    best = int(weights.sum(axis=1).argmax()) if len(xy) else 0
    shape = xy[best] if len(xy) else np.zeros(xy.shape[1:])
    shape = _normal(shape, weights[best] if len(xy) else np.zeros(len(shape)))
    seen = weights.sum(axis=0)
    for _ in range(rounds):
        placed = _complex(align(shape, xy, weights))
        points = _complex(xy)
        # Bring every figure into the frame of the shape: undo the similarity that `align` found.
        model = _complex(shape)
        spread = np.maximum(np.abs(model - model.mean()) ** 2, 0).sum()
        turn = (np.conj(model - model.mean()) * (placed - placed.mean(axis=1, keepdims=True))).sum(axis=1)
        turn = turn / max(spread, _TINY)
        back = (points - placed.mean(axis=1, keepdims=True)) / np.where(np.abs(turn) > _TINY, turn, 1.0)[:, None]
        average = (weights * back).sum(axis=0) / np.maximum(seen, _TINY)
        shape = _normal(np.stack([average.real, average.imag], axis=-1), seen)
    return shape


def fill_unseen(xy: np.ndarray, trust: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Points [B, K, 2] pulled to where the mean shape expects them by as much as they are not trusted.

    trust: [B, K] in [0, 1]; 1 keeps a point, 0 replaces it.
    """
    trust = np.asarray(trust, dtype=np.float64)
    expected = align(shape, xy, trust)
    return trust[..., None] * np.asarray(xy, dtype=np.float64) + (1.0 - trust[..., None]) * expected


def figure_size(xy: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """RMS distance of the points [B, K, 2] from their centre under weights [B, K]: float64 [B], in the unit
    of xy.
    """
    xy = np.asarray(xy, dtype=np.float64)
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), _TINY)
    centre = (share[..., None] * xy).sum(axis=1, keepdims=True)
    return np.sqrt((share * ((xy - centre) ** 2).sum(axis=-1)).sum(axis=1))


def usual_confidence(confidence: np.ndarray) -> np.ndarray:
    """Median confidence of each keypoint where it was seen at all: [K]; what is usual counts as fully
    trusted.
    """
    return np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in confidence.T])


def trust(confidence: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """[B, K] in [0, 1]: confidence in units of the usual one; where that is 0, every point is trusted."""
    relative = np.minimum(confidence / np.where(usual > 0, usual, 1.0), 1.0)
    return np.where(usual > 0, relative, 1.0)


def _normal(shape: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if weights.sum() <= 0:
        return np.zeros_like(shape)
    share = weights / weights.sum()
    shape = shape - share @ shape
    size = float(np.sqrt((share * (shape**2).sum(axis=-1)).sum()))
    shape = shape / max(size, _TINY)
    return np.where(weights[:, None] > 0, shape, 0.0)


def _complex(xy: np.ndarray) -> np.ndarray:
    return xy[..., 0] + 1j * xy[..., 1]
