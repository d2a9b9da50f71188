"""Keypoints drawn on uint8 RGB images; knows nothing of models.

Points are in the pixel frame of the rest of the program: continuous,
pixel (0, 0) covers [0, 1) x [0, 1). Everything scales with the shorter side of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import KeypointError
from .label_layout import place_labels
from .palette import palette
from .strokes import DARK, FAR, LIGHT, check_image, disc, line, put_text, resized, text_size

CANVASES = ("image", "black", "white")


def draw_keypoints(
    image: np.ndarray | None,
    xy: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    canvas: str = "image",
    occluded: np.ndarray | None = None,
    dots: bool = True,
    numbers: bool = True,
    lines: bool = True,
    skeleton: Sequence[tuple[int, int]] = (),
    width: float | None = None,
    threshold: float = 0.0,
    which: Sequence[int] | None = None,
    colors: Sequence[tuple[int, int, int]] = (),
    size: tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
    outline: bool = True,
) -> np.ndarray:
    """Keypoints over an image, or on black or white; a new uint8 RGB [H, W, 3].

    image: uint8 RGB [H, W, 3], or None for an empty canvas of `size`. xy: [K, 2] pixels of the image, or [P, K,
    2] for several figures. confidence: [K] or [P, K] in [0, 1], or None for 1; points under `threshold`,
    or at exactly 0 (missing), are left out together with their lines. canvas: "image", "black" or "white".
    occluded: bool [K] or [P, K], points that are occluded; their dots get a dark centre. size: (width, height)
    of the result, by default the image's; the points scale along. skeleton: 0-based pairs joined by lines.
    width: line width in pixels of the result, None to follow its size; dots grow with it. which: keypoints to
    draw, None for all; they keep their numbers. colors: K RGB colours, empty for the palette. labels: K texts
    in place of the numbers. outline: thin dark edge around dots and lines, so that they show on anything.
    Raises KeypointError for arguments that do not fit together.
    """
    xy, confidence = _check_points(xy, confidence)
    result, scale = _canvas(image, canvas, size)
    occluded = _check_occluded(occluded, confidence.shape)
    count = xy.shape[1]
    colors = tuple(colors) or palette(count)
    if len(colors) != count or (labels is not None and len(labels) != count):
        raise KeypointError(
            f"{len(colors)} colours and {count if labels is None else len(labels)} labels were given "
            f"for {count} keypoints; give one each."
        )
    texts = [str(i) for i in range(count)] if labels is None else [str(label) for label in labels]
    points = np.clip(xy * scale, -FAR, FAR)
    shown = (confidence >= threshold) & (confidence > 0) & _chosen(which, count)  # [P, K]
    unit = min(result.shape[:2]) / 256.0
    width = max(2.0, 2.6 * unit) if width is None else float(width)
    radius = max(2.5, 1.35 * width)
    edges = _edges(skeleton, shown) if lines else []
    _draw_lines(result, points, edges, colors, width, outline)
    placed = []
    if numbers:
        height = max(8, round(9 * unit))
        placed = _place_numbers(points, shown, texts, height, radius if dots else 0.0, edges, result.shape)
        _draw_leaders(result, placed)  # under the dots: a leader may pass close to a neighbour
    if dots:
        for figure, k in zip(*np.nonzero(shown), strict=True):
            if outline:
                disc(result, points[figure, k], radius + max(1.0, 0.3 * radius), DARK)
            disc(result, points[figure, k], radius, colors[k])
            if occluded is not None and occluded[figure, k]:
                disc(result, points[figure, k], 0.55 * radius, DARK)
    for label in placed:
        put_text(result, label.text, label.corner, height, LIGHT, outline=True)
    return result


def _check_points(xy: Any, confidence: Any) -> tuple[np.ndarray, np.ndarray]:
    """(xy [P, K, 2], confidence [P, K]) float64."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim not in (2, 3) or xy.shape[-1] != 2:
        raise KeypointError(f"points of shape {list(xy.shape)} were given to draw, but [keypoints, 2] is needed.")
    confidence = np.ones(xy.shape[:-1]) if confidence is None else np.asarray(confidence, dtype=np.float64)
    if confidence.shape != xy.shape[:-1]:
        raise KeypointError(
            f"confidence of shape {list(confidence.shape)} was given for points of shape "
            f"{list(xy.shape)}; give one number for each point."
        )
    if not (np.isfinite(xy).all() and np.isfinite(confidence).all()):
        raise KeypointError("a point to draw is not finite; mark a missing point by confidence 0.")
    return (xy[None], confidence[None]) if xy.ndim == 2 else (xy, confidence)


def _check_occluded(occluded: Any, shape: tuple[int, int]) -> np.ndarray | None:
    if occluded is None:
        return None
    occluded = np.atleast_2d(np.asarray(occluded, dtype=bool))
    if occluded.shape != shape:
        raise KeypointError(
            f"occluded has shape {list(occluded.shape)}, but there are {shape[0]} figures of {shape[1]} keypoints; "
            "give one value for each point."
        )
    return occluded  # [P, K]


def _chosen(which: Sequence[int] | None, count: int) -> np.ndarray:
    chosen = np.full(count, which is None)
    for index in which if which is not None else ():
        if not 0 <= int(index) < count:
            raise KeypointError(f"keypoint {index} was asked for, but there are {count}, counted from 0.")
        chosen[int(index)] = True
    return chosen  # [K]


def _canvas(image: np.ndarray | None, canvas: str, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """A fresh canvas and the (x, y) scale from the image's pixels to its own."""
    if canvas not in CANVASES:
        raise KeypointError(f"canvas {canvas!r} was given, but it must be one of {', '.join(CANVASES)}.")
    if image is not None:
        check_image(image)
    elif size is None or canvas == "image":
        raise KeypointError("there is no image to draw on; give an image, or a size and a black or white canvas.")
    if size is not None and min(size) < 1:
        raise KeypointError(f"a canvas of {size[0]}x{size[1]} pixels was asked for; both must be at least 1.")
    width, height = (image.shape[1], image.shape[0]) if size is None else map(int, size)
    scale = np.ones(2) if image is None else np.array([width / image.shape[1], height / image.shape[0]])
    if canvas == "image":
        return resized(image, width, height), scale
    return np.full((height, width, 3), 0 if canvas == "black" else 255, dtype=np.uint8), scale


def _edges(skeleton: Sequence[tuple[int, int]], shown: np.ndarray) -> list[tuple[int, int, int]]:
    """(figure, a, b) of every edge whose two points are shown [P, K]."""
    figures, count = shown.shape
    for a, b in skeleton:
        if not (0 <= a < count and 0 <= b < count):
            raise KeypointError(f"the skeleton joins keypoints {a} and {b}, but there are {count}, counted from 0.")
    return [(p, a, b) for p in range(figures) for a, b in skeleton if shown[p, a] and shown[p, b]]


def _draw_lines(
    canvas: np.ndarray,
    points: np.ndarray,
    edges: list[tuple[int, int, int]],
    colors: Sequence[tuple[int, int, int]],
    width: float,
    outline: bool,
) -> None:
    if outline:  # all rims first, or the rim of a line would cut through its neighbours
        for figure, a, b in edges:
            line(canvas, points[figure, a], points[figure, b], DARK, width + 2.0)
    for figure, a, b in edges:
        line(canvas, points[figure, a], points[figure, b], colors[b], width)


class _Label(NamedTuple):
    text: str
    anchor: np.ndarray  # (x, y) of its point
    corner: np.ndarray  # top left (x, y)
    size: np.ndarray  # (width, height)
    far: bool  # needs a line to its point


def _place_numbers(
    points: np.ndarray,
    shown: np.ndarray,
    texts: Sequence[str],
    height: int,
    radius: float,
    edges: list[tuple[int, int, int]],
    shape: tuple[int, ...],
) -> list[_Label]:
    """Labels beside the shown points inside the canvas, off each other, dots and lines where possible."""
    inside = (points >= 0).all(-1) & (points < (shape[1], shape[0])).all(-1) & shown
    keep = [(figure, k) for figure, k in zip(*np.nonzero(inside), strict=True) if texts[k]]
    if not keep:
        return []
    anchors = np.array([points[entry] for entry in keep])  # [M, 2]
    sizes = np.array([text_size(texts[k], height, outline=True) for _, k in keep], dtype=float)  # [M, 2]
    along = np.linspace(0.0, 1.0, 24)[:, None]
    crossings = [points[p, a] + along * (points[p, b] - points[p, a]) for p, a, b in edges]  # each [24, 2]
    corners, far = place_labels(anchors, sizes, radius * 1.3 + 1.0, (shape[1], shape[0]), crossings)
    return [_Label(texts[k], *rest) for (_, k), *rest in zip(keep, anchors, corners, sizes, far, strict=True)]


def _draw_leaders(canvas: np.ndarray, placed: list[_Label]) -> None:
    for color, width in ((DARK, 3.0), (LIGHT, 1.0)):
        for label in placed:
            if label.far:
                line(canvas, label.anchor, label.corner + label.size / 2, color, width)
