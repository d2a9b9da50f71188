"""Placing the labels of points without overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DIRECTIONS = 16
_RINGS = (0.0, 0.8, 1.8, 3.0)  # extra distance from the point, in label heights
_SWEEPS = 4


def place_labels(
    anchors: np.ndarray,
    sizes: np.ndarray,
    clearance: float,
    canvas: tuple[int, int],
    avoid: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Top left corners [M, 2] of M labels of `sizes` (width, height) [M, 2] around points `anchors` [M, 2].

    All in pixels. Each label tries positions around its point, nearest first, right above preferred, and takes the
    one that covers least of the other labels, of the dots (radius `clearance`), of the outside of the canvas
    (width, height), and of the points `avoid` (x, y), such as samples of lines. A few sweeps let early labels make
    room for later ones. Also returns bool [M]: moved so far that it needs a line to its point. Deterministic.
    """
    count = len(anchors)
    offsets = [_candidates(size, clearance) for size in sizes]  # each [C, 2], from the point to the corner
    rings = np.repeat(np.arange(len(_RINGS)), _DIRECTIONS)
    preference = 0.02 * np.tile(np.arange(_DIRECTIONS), len(_RINGS)) + rings
    dots = np.concatenate([anchors - clearance, anchors + clearance], axis=1)  # [M, 4]
    avoid = np.reshape(np.asarray(avoid, dtype=np.float64), (-1, 2))
    boxes = np.full((count, 4), np.nan)  # x0, y0, x1, y1 of the labels placed so far
    choice = np.zeros(count, dtype=int)
    for sweep in range(_SWEEPS):
        before = choice.copy()
        for i in range(count):
            corner = anchors[i] + offsets[i]  # [C, 2]
            box = np.concatenate([corner, corner + sizes[i]], axis=1)  # [C, 4]
            others = np.delete(boxes, i, axis=0)
            others = others[~np.isnan(others[:, 0])]
            area = sizes[i].prod()
            inside = _overlap(box, np.array([[0.0, 0.0, *canvas]]))
            cost = 2000.0 * _overlap(box, others) + 60.0 * _overlap(box, dots) + 2000.0 * (area - inside)
            hits = ((avoid > box[:, None, :2]) & (avoid < box[:, None, 2:])).all(axis=2).sum(axis=1)
            cost += area * 0.25 * np.minimum(hits, 3)  # never worth a leader line
            choice[i] = int(np.argmin(cost / area + preference))
            boxes[i] = box[choice[i]]
        if sweep and (choice == before).all():
            break
    return boxes[:, :2], rings[choice] > 0


def _candidates(size: np.ndarray, clearance: float) -> np.ndarray:
    """Corner offsets [C, 2]: label boxes that just clear a disc around the point, in rings of directions."""
    # Directions alternate outwards from up-right, so that argmin's first hit is the preferred position.
    steps = np.array([(i + 1) // 2 * (-1) ** i for i in range(_DIRECTIONS)])
    angle = -np.pi / 4 + steps * 2 * np.pi / _DIRECTIONS
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [D, 2]
    # Distance along the direction at which the box, centred there, leaves the disc in x or in y.
    reach = np.min((size / 2 + clearance) / np.maximum(np.abs(direction), 1e-9), axis=1, keepdims=True)
    rings = [direction * (reach + ring * size[1]) - size / 2 for ring in _RINGS]
    return np.concatenate(rings)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Summed overlap area [C] of each of `boxes` [C, 4] with all of `others` [M, 4]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0.0, None).prod(axis=2).sum(axis=1)
