"""Skeletons for points without names, found from the movement of the points over many images.

Two neighbours on one part of a figure hardly move relative to each other while the rest of it moves. The skeleton is
the spanning tree with the largest sum of agreement (how little two points move relative to each other), plus further
edges of high agreement. Its text form is "0-1, 1-2", or the same with names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.procrustes import figure_size
from ..keypoints.schema import Edges, format_skeleton

MIN_IMAGES = 5
# Weight of the length of a pair beside how much it moves, chosen on dolls: neighbours are joined rather than far points
# that happen to move together.
_LENGTH = 0.3


@dataclass(frozen=True, eq=False)
class Skeleton:
    """edges: 0-based pairs, the tree's first (strongest first), then extra ones. agreement: float64 [K, K] in
    [0, 1], 1 for points that never move relative to each other; 0 on the diagonal and for pairs never seen
    together.
    """

    edges: Edges
    agreement: np.ndarray

    def text(self, names: Sequence[str] = ()) -> str:
        """See `format_skeleton`."""
        return format_skeleton(self.edges, names)


def discover_skeleton(keypoints: Keypoints, *, extra: float = 0.9, use_confidence: bool = True) -> Skeleton:
    """Find edges between the keypoints of many images of one kind of figure.

    extra: pairs outside the tree whose agreement reaches this (0..1) become edges too, unless two tree edges
    already join them almost straight; 1 for the tree alone.
    Raises KeypointError for fewer than 5 rows or 2 keypoints.
    """
    if len(keypoints) < MIN_IMAGES or keypoints.num_keypoints < 2:
        raise KeypointError(
            f"a skeleton needs keypoints on at least {MIN_IMAGES} images and 2 points, but there are "
            f"{len(keypoints)} images and {keypoints.num_keypoints} points; give more images, 30 or more to "
            f"be good."
        )
    weights = keypoints.confidence if use_confidence else np.ones_like(keypoints.confidence)
    cost, length = _costs(keypoints.xy.astype(np.float64), weights.astype(np.float64))
    above = cost[np.triu_indices(len(cost), 1)]
    typical = max(float(np.median(above[np.isfinite(above)])) if np.isfinite(above).any() else 1.0, 1e-12)
    agreement = np.where(np.isfinite(cost), 1 / (1 + (cost / typical) ** 2), 0.0)
    np.fill_diagonal(agreement, 0.0)
    tree = spanning_tree(agreement)
    edges = sorted(tree, key=lambda edge: -agreement[edge])
    return Skeleton((*edges, *_extra_edges(agreement, length, tree, extra)), agreement)


def spanning_tree(agreement: np.ndarray) -> Edges:
    """The tree over all K points with the largest sum of `agreement` [K, K], at least 0; pairs (low, high)."""
    cost = (
        agreement.max(initial=0.0) + 1.0 - np.asarray(agreement, dtype=np.float64)
    )  # above 0: scipy takes 0 for no edge
    from scipy.sparse.csgraph import minimum_spanning_tree  # only now: nodes read this module for its defaults

    tree = minimum_spanning_tree(np.triu(cost, 1)).tocoo()
    return tuple((int(a), int(b)) for a, b in zip(tree.row, tree.col, strict=True))


def _costs(xy: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cost of each pair, its median length): float64 [K, K], in figure sizes.

    The cost is the median distance of one point from its median position relative to the other, plus a share of the
    median length. Medians ignore points that are found in a wrong position now and then; a pair has in each row the
    weight of the product of its confidences; inf for pairs never seen together.
    """
    size = figure_size(xy, weights)
    usable = size > 1e-9
    points, weights = xy[usable] / size[usable, None, None], weights[usable]  # [B, K, 2]
    count = xy.shape[1]
    cost, length = np.full((count, count), np.inf), np.zeros((count, count))
    for k in range(count):  # one point at a time: [B, K, K] would not fit for thousands of images
        step = points - points[:, k, None]
        pair = weights * weights[:, k, None]  # [B, K]
        seen = pair.sum(axis=0) > 0
        median = np.stack([_weighted_median(step[..., axis], pair) for axis in (0, 1)], axis=-1)  # [K, 2]
        length[k] = np.linalg.norm(median, axis=-1)
        moved = _weighted_median(np.linalg.norm(step - median, axis=-1), pair)
        cost[k, seen] = (moved + _LENGTH * length[k])[seen]
    return cost, length


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[K]: of values [B, K] the one up to which half of the weight [B, K] lies; of none of them 0."""
    if not len(values):
        return np.zeros(values.shape[1])
    order = values.argsort(axis=0)
    total = np.take_along_axis(weights, order, axis=0).cumsum(axis=0)
    middle = (total < total[-1] / 2).sum(axis=0)[None]
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), middle, axis=0)[0]


def _extra_edges(agreement: np.ndarray, length: np.ndarray, tree: Edges, threshold: float) -> Edges:
    if threshold >= 1.0:
        return ()
    joined = {frozenset(edge) for edge in tree}
    neighbours = {k: {next(iter(e - {k})) for e in joined if k in e} for k in range(len(agreement))}
    found = []
    for a in range(len(agreement)):
        for b in range(a + 1, len(agreement)):
            through = [length[a, c] + length[c, b] for c in neighbours[a] & neighbours[b]]
            straight = bool(through) and length[a, b] > 0.9 * min(through)
            if agreement[a, b] >= threshold and frozenset((a, b)) not in joined and not straight:
                found.append((a, b))
    return tuple(sorted(found, key=lambda edge: -agreement[edge]))
