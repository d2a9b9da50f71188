"""Weighted ridge regression with leave-one-out errors in closed form; plain numpy, knows nothing of images.

Rows come in blocks of `block` (1, or 2 where the x and the y of one image share their coefficients); a
whole block is left out at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SURE = 1e-9  # a block whose own label decides its prediction to this degree says nothing when left out


@dataclass(frozen=True, eq=False)
class Fit:
    """coefficients: float64 [F, P]. intercept: float64 [P]. residuals: float64 [M, P], label minus the
    prediction of the fit that never saw the row's block; nan where the row has no weight or cannot be left
    out.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    residuals: np.ndarray


def fit_ridge(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    alpha: float,
    *,
    intercept: bool = False,
    block: int = 1,
) -> Fit:
    """Minimise sum_m w_mp (y_mp - x_m b_p - c_p)^2 + lambda |b_p|^2 for each column p of the targets.

    features: [M, F]. targets, weights: [M, P], weights >= 0. lambda is `alpha` times the mean over features
    of their weighted sum of squares, so that alpha means the same for any unit and number of rows; 0 is least
    squares (of least norm when it has many solutions). The intercept is not penalised.
    """
    count, outputs = targets.shape
    coefficients = np.zeros((features.shape[1], outputs))
    offsets = np.zeros(outputs)
    residuals = np.full((count, outputs), np.nan)
    for columns in _equal_columns(weights):
        root = np.sqrt(weights[:, columns[0]])  # [M]
        part = _Weighted(features, root, intercept)
        shrink = part.shrinkage(alpha)
        centre = part.mean(targets[:, columns])
        scaled = root[:, None] * (targets[:, columns] - centre)  # [M, P']
        projected = part.left.T @ scaled
        solved = part.right.T @ (np.where(part.values > 0, shrink / _safe(part.values), 0.0)[:, None] * projected)
        coefficients[:, columns] = solved
        offsets[columns] = centre - part.centre @ solved
        wrong = scaled - part.left @ (shrink[:, None] * projected)
        residuals[:, columns] = part.leave_out(wrong, shrink, block)
    return Fit(coefficients, offsets, residuals)


class _Weighted:
    """The singular value decomposition of weighted (and, with an intercept, centred) features."""

    def __init__(self, features: np.ndarray, root: np.ndarray, intercept: bool):
        self.root = root
        self.total = float((root**2).sum()) if intercept else 0.0
        self.centre = self.mean(features)
        left, values, right = np.linalg.svd(root[:, None] * (features - self.centre), full_matrices=False)
        keep = values > (values[0] if len(values) else 0.0) * 1e-10
        self.left, self.values, self.right = left[:, keep], values[keep], right[keep]
        self.features = features.shape[1]

    def mean(self, columns: np.ndarray) -> np.ndarray:
        if self.total <= 0:
            return np.zeros(columns.shape[1])
        return (self.root**2) @ columns / self.total

    def shrinkage(self, alpha: float) -> np.ndarray:
        """s^2 / (s^2 + lambda) for each singular value s."""
        squares = self.values**2
        return squares / (squares + alpha * squares.sum() / max(1, self.features))

    def leave_out(self, wrong: np.ndarray, shrink: np.ndarray, block: int) -> np.ndarray:
        """Residuals [M, P] when the row's own block is left out: (I - H_bb)^-1 r_b, for the hat matrix H."""
        blocks = self.left.reshape(len(self.left) // block, block, self.left.shape[1])  # [B, d, r]
        hat = np.einsum("bir,r,bjr->bij", blocks, shrink, blocks)
        if self.total > 0:
            roots = self.root.reshape(-1, block)
            hat = hat + roots[:, :, None] * roots[:, None, :] / self.total
        remaining = np.eye(block) - hat
        weight = self.root.reshape(-1, block).min(axis=1)
        usable = (np.linalg.det(remaining) > _SURE) & (weight > 0)
        result = np.full((len(blocks), block, wrong.shape[1]), np.nan)
        parts = wrong.reshape(len(blocks), block, wrong.shape[1])
        result[usable] = np.linalg.solve(remaining[usable], parts[usable])
        result[usable] /= self.root.reshape(-1, block, 1)[usable]
        return result.reshape(wrong.shape)


def _equal_columns(weights: np.ndarray) -> list[np.ndarray]:
    """Indices of columns grouped by equal content: targets with the same weights share one decomposition."""
    _, group = np.unique(weights, axis=1, return_inverse=True)
    group = group.reshape(-1)
    return [np.flatnonzero(group == g) for g in range(group.max() + 1)] if group.size else []


def _safe(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, 1.0)
