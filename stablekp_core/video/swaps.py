"""Identity over time: figures tracked from frame to frame, and points that a detector swaps (left and right)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..keypoints.keypoints import Keypoints
from ..keypoints.procrustes import figure_size

# All in figure sizes. Movement that a swap would save counts only above _NEAR squared: points that pass each
# other slowly are near each other, and then noise decides which of them is which. It counts only where the
# better order leaves no more than _UNEXPLAINED of the movement; else the scene was cut, or a point is wrong.
_NEAR = 0.25
_UNEXPLAINED = 0.25
_CHANGE = 1.0  # what a change of the order costs, against the squared distance of a jump
_DOUBT = 0.004  # what a swapped frame costs: detectors are right most of the time
_MEMORY = 10  # frames over which a position is remembered while a point is not seen


def keep_identity(xy: np.ndarray, confidence: np.ndarray, pairs: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Find the frames in which a detector swapped points, by the order of points with the least movement.

    xy: [T, K, 2]. confidence: [T, K], 0 for points not seen. pairs: points that may be mistaken for each
    other, such as left and right hand; None for any. The cheapest sequence of orders over the whole video is
    found for each pair, so points that cross stay who they are, and the minority of frames counts as the
    swapped ones. Returns int64 [T, K]: which detection of a frame is point k.
    """
    xy, seen = np.array(xy, dtype=np.float64), np.asarray(confidence) > 0
    orders = np.tile(np.arange(xy.shape[1]), (len(xy), 1))
    sizes = figure_size(xy, seen.astype(np.float64))
    if not (sizes > 0).any():
        return orders
    xy /= np.median(sizes[sizes > 0])
    # First all pairs together: the most common mistake is a figure taken for its mirror image, and many points show
    # it more reliably than two. Then each pair alone.
    for together in (True, False):
        chosen = _jumping_pairs(xy, seen) if pairs is None else [tuple(pair) for pair in pairs]
        for group in [chosen] if together else [[pair] for pair in chosen]:
            swapped = _swapped_frames(xy, seen, group)
            for pair in group:
                there, back = np.ix_(swapped, pair), np.ix_(swapped, pair[::-1])
                for values in (orders, xy, seen):
                    values[there] = values[back]
    return orders


def _swapped_frames(xy: np.ndarray, seen: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """bool [T]: frames in which all these pairs are swapped in the cheapest explanation (Viterbi)."""
    swapped = np.zeros(len(xy), dtype=bool)
    if not len(xy) or not pairs:
        return swapped
    costs = sum(_order_costs(xy[:, list(pair)], seen[:, list(pair)].all(axis=1)) for pair in pairs)
    total = np.array([[0.0, np.inf], [np.inf, _DOUBT]])  # [swapped before, swapped now]
    came = np.zeros((len(xy), 2, 2), dtype=np.int64)
    for t in range(1, len(xy)):
        same, other = costs[t]
        step = np.array([[same, other[::-1]], [other, same[::-1]]])  # [before, last, now]
        paths = total[:, :, None] + step + _CHANGE * (1.0 - np.eye(2)) + [0.0, _DOUBT]
        came[t], total = paths.argmin(axis=0), paths.min(axis=0)
    last, now = np.unravel_index(int(total.argmin()), (2, 2))
    for t in range(len(xy) - 1, -1, -1):
        swapped[t] = bool(now)
        last, now = came[t, last, now], last
    return swapped


def _order_costs(xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The cost of keeping or swapping the order of two points [T, 2, 2] at each frame: [T, 2, 2].

    The middle axis is whether the order changed between the two frames before, the last whether it changes now.
    Points are expected to continue at their speed; the cost is the deviation from that beyond the one of the better
    order. Sum and difference of the two points hold half of it each, and an order is only a sign of the difference.
    Frames in which not both are `seen` [T] cost nothing.
    """
    costs = np.zeros((len(xy), 2, 2))
    frames = np.flatnonzero(seen)
    if len(frames) < 2:
        return costs
    together, apart = xy[frames, 0] + xy[frames, 1], xy[frames, 0] - xy[frames, 1]  # [F, 2]
    gap = np.diff(frames, prepend=frames[0] - _MEMORY - 1)  # [F], to the moment before
    usable = gap <= _MEMORY
    steps = np.where(np.roll(usable, 1), np.minimum(gap / np.roll(gap, 1), 2.0), 0.0)[:, None]
    shared = 0.5 * ((_expected(together, 1.0, steps) - together) ** 2).sum(axis=-1)
    for changed, sign in ((0, 1.0), (1, -1.0)):
        expected = _expected(apart, sign, steps)
        keep, swap = (shared + 0.5 * ((expected - turn * apart) ** 2).sum(axis=-1) for turn in (1.0, -1.0))
        low, high = np.minimum(keep, swap), np.maximum(keep, swap)
        excess = np.maximum(high - low - _NEAR**2, 0.0) * (usable & (low < _UNEXPLAINED * high))
        costs[frames, changed] = np.stack([excess * (keep > swap), excess * (swap > keep)], axis=-1)
    return costs


def _expected(values: np.ndarray, sign: float, steps: np.ndarray) -> np.ndarray:
    """Values [F, 2] continued from the moment before, and `sign` times the one before it, at their speed."""
    last, before = np.roll(values, 1, axis=0), sign * np.roll(values, 2, axis=0)
    return last + steps * (last - before)


def _jumping_pairs(xy: np.ndarray, seen: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of points that exchange positions at some time, without common points; most such movement first."""
    found = []
    count = xy.shape[1]
    for a in range(count):
        for b in range(a + 1, count):
            jumps = _order_costs(xy[:, [a, b]], seen[:, a] & seen[:, b])[:, 0, 0].sum()
            if jumps > 0:
                found.append((float(jumps), a, b))
    taken: set[int] = set()
    pairs = []
    for _, a, b in sorted(found, reverse=True):
        if not taken & {a, b}:
            taken |= {a, b}
            pairs.append((a, b))
    return pairs


def track_figures(keypoints: Keypoints, patience: int = 10) -> list[np.ndarray]:
    """Rows of the same figure through the images (frames): a list of int64 row arrays, in order of time.

    Each frame's figures are given to the tracks so that the total distance is smallest; a figure that is
    further than its own size from every track, or unseen for more than `patience` frames, starts a new one.
    """
    frames = np.unique(keypoints.image_index)
    tracks: list[list[int]] = []
    for frame in frames:
        rows = np.flatnonzero(keypoints.image_index == frame)
        alive = [i for i, t in enumerate(tracks) if frame - keypoints.image_index[t[-1]] <= patience + 1]
        given = _continue_tracks(keypoints, [tracks[i][-1] for i in alive], rows)
        for row, place in zip(rows, given, strict=True):
            if place < 0:
                tracks.append([int(row)])
            else:
                tracks[alive[place]].append(int(row))
    return [np.array(track, dtype=np.int64) for track in tracks]


def _continue_tracks(keypoints: Keypoints, last: list[int], rows: np.ndarray) -> np.ndarray:
    """For each row the index into `last` of the track it continues, or -1."""
    given = np.full(len(rows), -1)
    if not last:
        return given
    # One more column per row, at the largest distance allowed, stands for "a new track".
    cost = np.ones((len(rows), len(last) + len(rows)))
    for i, row in enumerate(rows):
        for j, other in enumerate(last):
            cost[i, j] = _figure_distance(keypoints, int(row), other)
    from scipy.optimize import linear_sum_assignment  # only now: nodes read this module for its defaults

    _, chosen = linear_sum_assignment(cost)  # rows come in order
    fits = (chosen < len(last)) & (cost[np.arange(len(rows)), chosen] < 1.0)
    given[fits] = chosen[fits]
    return given


def _figure_distance(keypoints: Keypoints, a: int, b: int) -> float:
    """Mean distance of common points in figure sizes; 2 when nothing is common."""
    both = (keypoints.confidence[a] > 0) & (keypoints.confidence[b] > 0)
    if not both.any():
        return 2.0
    pair = keypoints.xy[[a, b]][:, both].astype(np.float64)
    size = float(figure_size(pair, np.ones(pair.shape[:2])).max())
    return min(2.0, float(np.linalg.norm(pair[0] - pair[1], axis=-1).mean()) / max(2.0 * size, 1.0))
