"""The mean shape of a figure's keypoints (Procrustes analysis), and the positions it gives to unseen points.

Shapes are compared up to a similarity (translation, rotation, scale); in two dimensions that is one complex number
times the points plus another, fitted in closed form.
"""

from __future__ import annotations

import numpy as np

_TINY = 1e-12


def align(shape: np.ndarray, xy: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`shape` translated, rotated and scaled to fit each row of points best (weighted least squares).

    shape: [K, 2]. xy: [B, K, 2], in any unit. weights: [B, K] >= 0. Returns float64 [B, K, 2]. For a row with one
    weighted point `shape` is only translated, for a row with none it is returned as it is.
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
        # Transform every figure to the frame of the shape: the inverse of the similarity that `align` found.
        model = _complex(shape)
        spread = np.maximum(np.abs(model - model.mean()) ** 2, 0).sum()
        turn = (np.conj(model - model.mean()) * (placed - placed.mean(axis=1, keepdims=True))).sum(axis=1)
        turn = turn / max(spread, _TINY)
        back = (points - placed.mean(axis=1, keepdims=True)) / np.where(np.abs(turn) > _TINY, turn, 1.0)[:, None]
        average = (weights * back).sum(axis=0) / np.maximum(seen, _TINY)
        shape = _normal(np.stack([average.real, average.imag], axis=-1), seen)
    return shape


def fill_unseen(xy: np.ndarray, trust: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Points [B, K, 2] moved towards their expected positions in the mean shape [K, 2], the more the less they are
    trusted: float64 [B, K, 2].

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


def reference_confidence(confidence: np.ndarray) -> np.ndarray:
    """The median confidence of each keypoint [K] over the rows where it is above 0; the reference for `trust`."""
    return np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in confidence.T])


def trust(confidence: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Confidence [B, K] divided by the reference [K], at most 1; 1 where the reference is 0."""
    relative = np.minimum(confidence / np.where(reference > 0, reference, 1.0), 1.0)
    return np.where(reference > 0, relative, 1.0)


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
