"""Smoothing of point tracks [T, K, 2] under weights [T, K] in [0, 1]; weight 0 = not seen. Plain numpy."""

from __future__ import annotations

import numpy as np

from ..errors import KeypointError

_CHUNK = 1024  # frames smoothed at once, so that memory does not grow with the length of a video


def one_euro(
    xy: np.ndarray,
    weights: np.ndarray,
    *,
    fps: float = 25.0,
    min_cutoff: float = 1.0,
    beta: float = 1.0,
    causal: bool = False,
    restart_after: int = 12,
) -> np.ndarray:
    """The One-Euro filter: a low-pass whose cut-off grows with speed, for little jitter at rest and little lag in
    motion.

    xy: in a unit that suits `beta` (Hz per unit per second), here figure sizes. min_cutoff: Hz at rest. A point
    of weight w moves the track w times as far as one of weight 1. causal: use past frames only, as
    live video must; else the mean of a pass forward and one backward, which has no lag. A track not seen for
    more than `restart_after` frames starts anew. Returns float64 [T, K, 2]; frames before a point is first
    seen keep xy. Raises KeypointError for settings out of range.
    """
    if fps <= 0 or min_cutoff <= 0 or beta < 0:
        raise KeypointError(
            f"fps {fps:g}, min_cutoff {min_cutoff:g} and beta {beta:g} were given, but the first two must be "
            f"above 0 and beta 0 or more."
        )
    xy, weights = np.asarray(xy, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    forward = _one_pass(xy, weights, fps, min_cutoff, beta, restart_after)
    if causal:
        return forward
    backward = _one_pass(xy[::-1], weights[::-1], fps, min_cutoff, beta, restart_after)[::-1]
    return (forward + backward) / 2.0


def _one_pass(xy, weights, fps, min_cutoff, beta, restart_after) -> np.ndarray:
    out = xy.copy()
    if not len(xy):
        return out
    value, speed = xy[0].copy(), np.zeros_like(xy[0])
    unseen = np.full(xy.shape[1], restart_after + 1)
    speed_share = _share(1.0, fps)
    for t in range(len(xy)):
        seen = weights[t] > 0
        fresh = seen & (unseen > restart_after)
        value[fresh], speed[fresh] = xy[t, fresh], 0.0
        elapsed = np.where(fresh, 1, unseen + 1)[:, None]
        velocity = (xy[t] - value) * fps / elapsed
        weight = np.where(seen & ~fresh, weights[t], 0.0)[:, None]
        speed += weight * speed_share * (velocity - speed)
        cutoff = min_cutoff + beta * np.linalg.norm(speed, axis=-1, keepdims=True)
        value += weight * _share(cutoff, fps / elapsed) * (xy[t] - value)
        unseen = np.where(seen, 0, unseen + 1)
        known = unseen <= restart_after
        out[t, known] = value[known]
    return out


def _share(cutoff, fps):
    """The share of the distance to a new sample by which an exponential filter of this cut-off (Hz) moves."""
    return 1.0 / (1.0 + fps / (2.0 * np.pi * cutoff))


def savitzky_golay(xy: np.ndarray, weights: np.ndarray, *, window: int = 9, order: int = 2) -> np.ndarray:
    """The Savitzky-Golay filter with weights: each point from the polynomial of `order` that fits its neighbours in
    a `window` of frames best.

    Returns float64 [T, K, 2]; points without a weighted neighbour keep xy. Near the ends and gaps the window
    is one-sided; with too few neighbours the polynomial flattens. With equal weights inside a video this is
    the filter without weights. Raises KeypointError unless window is odd and above order.
    """
    if window % 2 == 0 or not 0 <= order < window:
        raise KeypointError(
            f"a window of {window} frames and order {order} were given, but the window must be odd and the "
            f"order 0 or more and below it; 9 and 2 are usual."
        )
    xy, weights = np.asarray(xy, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    half = window // 2
    offsets = np.arange(-half, half + 1) / max(half, 1)
    powers = offsets[:, None] ** np.arange(order + 1)  # [W, P]
    products = powers[:, :, None] * powers[:, None, :]  # [W, P, P]
    # Next to nothing, yet enough to leave out terms of high order that the points do not determine.
    calm = 1e-9 * np.diag(np.arange(order + 1.0) ** 2 + 1e-6)
    out = xy.copy()
    padded = np.pad(xy, ((half, half), (0, 0), (0, 0)))
    padded_weights = np.pad(weights, ((half, half), (0, 0)))
    for start in range(0, len(xy), _CHUNK):
        stop = min(start + _CHUNK, len(xy))
        windows = np.lib.stride_tricks.sliding_window_view(padded[start : stop + 2 * half], window, axis=0)
        shares = np.lib.stride_tricks.sliding_window_view(padded_weights[start : stop + 2 * half], window, axis=0)
        origin = xy[start:stop]  # fitted around the point itself: far from 0 squares lose digits
        matrix = np.einsum("tkw,wij->tkij", shares, products) + calm
        sides = np.einsum("tkw,tkcw,wi->tkic", shares, windows - origin[..., None], powers)
        fitted = np.linalg.solve(matrix, sides)[:, :, 0]  # the value at offset 0
        out[start:stop] = origin + np.where(shares.any(axis=-1)[..., None], fitted, 0.0)
    return out


def fill_gaps(xy: np.ndarray, weights: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation over gaps (weight 0) of at most `longest` frames between two frames where a point is seen.

    Returns (xy [T, K, 2], filled bool [T, K]).
    """
    xy = np.array(xy, dtype=np.float64)
    filled = np.zeros(weights.shape, dtype=bool)
    times = np.arange(len(xy))
    for k in range(weights.shape[1]):
        seen = np.flatnonzero(weights[:, k] > 0)
        for before, after in zip(seen[:-1], seen[1:], strict=True):
            if 1 < after - before <= longest + 1:
                filled[before + 1 : after, k] = True
        if filled[:, k].any():
            for axis in range(2):
                xy[filled[:, k], k, axis] = np.interp(times[filled[:, k]], seen, xy[seen, k, axis])
    return xy, filled


def jitter(xy: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square of the second difference of xy [T, K, 2] in time, in units of xy per frame squared.

    Only moments when a point is seen in three frames in a row count; 0 when there are none. Steady motion has
    no jitter; real acceleration has some, so a smooth video does not reach 0.
    """
    xy = np.asarray(xy, dtype=np.float64)
    seen = np.asarray(weights) > 0
    if len(xy) < 3:
        return 0.0
    bend = xy[2:] - 2.0 * xy[1:-1] + xy[:-2]
    usable = seen[2:] & seen[1:-1] & seen[:-2]
    return float(np.sqrt((bend[usable] ** 2).sum(axis=-1).mean())) if usable.any() else 0.0
