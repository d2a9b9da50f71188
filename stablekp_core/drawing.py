"""Keypoints drawn with OpenCV on uint8 RGB pictures; knows nothing of models.

The one place where cv2 is imported. Points are in the pixel frame of the rest of the program: continuous, pixel
(0, 0) covers [0, 1) x [0, 1). Everything scales with the shorter side of the picture.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import KeypointError
from .palette import palette
from .placement import place_labels

CANVASES = ("image", "black", "white")
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
_SHIFT = 4  # OpenCV takes positions in 1/16 pixel
_FAR = 30000.0  # OpenCV takes 32-bit integers; nothing this far outside is seen
_TEXT_OVERSAMPLING = 4

# Drawing of other kinds, found here too so that callers need one import.
_ELSEWHERE = {
    "contact_sheet": "sheets",
    "heat_maps": "sheets",
    "heat_overlay": "sheets",
    "loss_plot": "plots",
    "draw_openpose": "hints",
    "draw_ap10k": "hints",
    "draw_scribble": "hints",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f".{_ELSEWHERE[name]}", __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _cv2() -> Any:
    """OpenCV, imported on first use; raises KeypointError with what to install."""
    try:
        import cv2
    except ImportError as error:
        raise KeypointError(
            f"drawing needs OpenCV, which cannot be imported ({error}); install it with "
            f"'pip install opencv-python'."
        ) from error
    return cv2


def draw_keypoints(
    image: np.ndarray | None,
    xy: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    canvas: str = "image",
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
    """Keypoints over a picture, or on black or white; a new uint8 RGB [H, W, 3].

    image: uint8 RGB [H, W, 3], or None for an empty canvas of `size`. xy: [K, 2] pixels of the image, or [P, K, 2]
    for several figures. confidence: [K] or [P, K] in [0, 1], or None for all sure; points under `threshold`, or at
    exactly 0 (missing), are hidden together with their lines. canvas: "image", "black" or "white". size: (width,
    height) of the result, by default the image's; the points scale along. skeleton: 0-based pairs joined by lines.
    width: line width in pixels of the result, None to follow its size; dots have twice that as radius. which:
    keypoints to draw, None for all; they keep their numbers. colors: K RGB colours, empty for the palette. labels:
    K texts in place of the numbers. outline: thin dark edge around dots and lines, so that they show on anything.
    """
    xy, confidence = _check_points(xy, confidence)
    result, scale = _canvas(image, canvas, size)
    count = xy.shape[1]
    colors = tuple(colors) or palette(count)
    if len(colors) != count or (labels is not None and len(labels) != count):
        raise KeypointError(
            f"{len(colors)} colours and {count if labels is None else len(labels)} labels were given "
            f"for {count} keypoints; give one each."
        )
    texts = [str(i) for i in range(count)] if labels is None else [str(label) for label in labels]
    points = np.clip(xy * scale, -_FAR, _FAR)
    shown = (confidence >= threshold) & (confidence > 0) & _chosen(which, count)  # [P, K]
    unit = min(result.shape[:2]) / 256.0
    width = max(1.0, 1.7 * unit) if width is None else float(width)
    radius = max(2.5, 2.0 * width)
    if lines:
        _draw_lines(result, points, shown, skeleton, colors, width, outline)
    if dots:
        for figure, k in zip(*np.nonzero(shown), strict=True):
            if outline:
                disc(result, points[figure, k], radius + max(1.0, 0.3 * radius), DARK)
            disc(result, points[figure, k], radius, colors[k])
    if numbers:
        _draw_numbers(
            result,
            points,
            shown,
            texts,
            colors,
            radius if dots else 0.0,
            max(8, round(9 * unit)),
            skeleton if lines else (),
        )
    return result


def _check_points(xy: Any, confidence: Any) -> tuple[np.ndarray, np.ndarray]:
    """(xy [P, K, 2], confidence [P, K]) float64."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim not in (2, 3) or xy.shape[-1] != 2:
        raise KeypointError(
            f"points of shape {list(xy.shape)} were given to draw, but [keypoints, 2] is needed."
        )
    confidence = np.ones(xy.shape[:-1]) if confidence is None else np.asarray(confidence, dtype=np.float64)
    if confidence.shape != xy.shape[:-1]:
        raise KeypointError(
            f"confidence of shape {list(confidence.shape)} was given for points of shape "
            f"{list(xy.shape)}; give one number for each point."
        )
    if not (np.isfinite(xy).all() and np.isfinite(confidence).all()):
        raise KeypointError("a point to draw is not finite; mark a missing point by confidence 0.")
    return (xy[None], confidence[None]) if xy.ndim == 2 else (xy, confidence)


def _chosen(which: Sequence[int] | None, count: int) -> np.ndarray:
    chosen = np.full(count, which is None)
    for index in which if which is not None else ():
        if not 0 <= int(index) < count:
            raise KeypointError(f"keypoint {index} was asked for, but there are {count}, counted from 0.")
        chosen[int(index)] = True
    return chosen  # [K]


def _canvas(
    image: np.ndarray | None, canvas: str, size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """A fresh canvas and the (x, y) scale from the image's pixels to its own."""
    if canvas not in CANVASES:
        raise KeypointError(f"canvas {canvas!r} was given, but it must be one of {', '.join(CANVASES)}.")
    if image is not None:
        check_image(image)
    elif size is None or canvas == "image":
        raise KeypointError(
            "there is no image to draw on; give an image, or a size and a black or white canvas."
        )
    if size is not None and min(size) < 1:
        raise KeypointError(f"a canvas of {size[0]}x{size[1]} pixels was asked for; both must be at least 1.")
    width, height = (image.shape[1], image.shape[0]) if size is None else map(int, size)
    scale = np.ones(2) if image is None else np.array([width / image.shape[1], height / image.shape[0]])
    if canvas == "image":
        return resized(image, width, height), scale
    return np.full((height, width, 3), 0 if canvas == "black" else 255, dtype=np.uint8), scale


def _draw_lines(
    canvas: np.ndarray,
    points: np.ndarray,
    shown: np.ndarray,
    skeleton: Sequence[tuple[int, int]],
    colors: Sequence[tuple[int, int, int]],
    width: float,
    outline: bool,
) -> None:
    count = shown.shape[1]
    for a, b in skeleton:
        if not (0 <= a < count and 0 <= b < count):
            raise KeypointError(
                f"the skeleton joins keypoints {a} and {b}, but there are {count}, counted from 0."
            )
    edges = [
        (figure, a, b)
        for figure in range(len(points))
        for a, b in skeleton
        if shown[figure, a] and shown[figure, b]
    ]
    if outline:  # all edges first, or the dark rim of a line would cut through its neighbours
        for figure, a, b in edges:
            line(canvas, points[figure, a], points[figure, b], DARK, width + 2.0)
    for figure, a, b in edges:
        line(canvas, points[figure, a], points[figure, b], colors[b], width)


def _draw_numbers(
    canvas: np.ndarray,
    points: np.ndarray,
    shown: np.ndarray,
    texts: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    radius: float,
    height: int,
    skeleton: Sequence[tuple[int, int]],
) -> None:
    """Labels beside their points, moved so that they cover neither each other nor dots where that can be avoided."""
    rows, cols = canvas.shape[:2]
    inside = (points >= 0).all(-1) & (points < (cols, rows)).all(-1) & shown
    keep = [(figure, k) for figure, k in zip(*np.nonzero(inside), strict=True) if texts[k]]
    if not keep:
        return
    crossings = [
        points[f, a] + t * (points[f, b] - points[f, a])
        for f in range(len(points))
        for a, b in skeleton
        if shown[f, a] and shown[f, b]
        for t in np.linspace(0.0, 1.0, 24)
    ]
    anchors = np.array([points[entry] for entry in keep])  # [M, 2]
    sizes = np.array([text_size(texts[k], height, outline=True) for _, k in keep], dtype=np.float64)  # [M, 2]
    corners, moved = place_labels(anchors, sizes, radius * 1.3 + 1.0, (cols, rows), crossings)
    for (_, k), anchor, corner, extent, far in zip(keep, anchors, corners, sizes, moved, strict=True):
        if far:
            middle = corner + extent / 2
            line(canvas, anchor, middle, DARK, 3.0)
            line(canvas, anchor, middle, LIGHT, 1.0)
            disc(canvas, anchor, max(1.0, radius), colors[k])
    for (_, k), corner in zip(keep, corners, strict=True):
        put_text(canvas, texts[k], corner, height, LIGHT, outline=True)


# ---------------------------------------------------------------------------------------------------------------
# Strokes, in place, in the pixel frame of this module


def check_image(image: Any) -> None:
    """Raise KeypointError unless `image` is uint8 RGB [H, W, 3]."""
    if (
        not isinstance(image, np.ndarray)
        or image.ndim != 3
        or image.shape[2] != 3
        or image.dtype != np.uint8
        or 0 in image.shape
    ):
        raise KeypointError(
            f"a picture of shape {list(np.shape(image))} and type {getattr(image, 'dtype', type(image))} "
            f"was given to draw on, but uint8 RGB [height, width, 3] is needed."
        )


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A copy of the picture at this size: area average when it shrinks, cubic when it grows."""
    if image.shape[:2] == (height, width):
        return image.copy()
    cv2 = _cv2()
    shrinks = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def disc(canvas: np.ndarray, centre: Sequence[float], radius: float, color: tuple[int, int, int]) -> None:
    """A filled anti-aliased circle; `centre` (x, y), `radius` in pixels.

    Coverage is computed here: OpenCV turns circles of two or three pixels into diamonds.
    """
    x, y = float(centre[0]), float(centre[1])
    x0, y0 = max(0, math.floor(x - radius - 1)), max(0, math.floor(y - radius - 1))
    x1, y1 = min(canvas.shape[1], math.ceil(x + radius + 1)), min(canvas.shape[0], math.ceil(y + radius + 1))
    if x0 >= x1 or y0 >= y1:
        return
    distance = np.hypot(np.arange(x0, x1)[None, :] + 0.5 - x, np.arange(y0, y1)[:, None] + 0.5 - y)
    _blend(canvas[y0:y1, x0:x1], np.clip(radius + 0.5 - distance, 0.0, 1.0), color)


def line(
    canvas: np.ndarray, a: Sequence[float], b: Sequence[float], color: tuple[int, int, int], width: float
) -> None:
    """An anti-aliased line from `a` to `b` (x, y); its width is rounded to whole pixels."""
    cv2 = _cv2()
    cv2.line(canvas, _fixed(a), _fixed(b), color, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _fixed(xy: Sequence[float]) -> tuple[int, int]:
    """Fixed-point position for OpenCV, whose whole numbers are pixel centres."""
    return round((float(xy[0]) - 0.5) * 2**_SHIFT), round((float(xy[1]) - 0.5) * 2**_SHIFT)


def text_size(text: str, height: int, outline: bool = False) -> tuple[int, int]:
    """(width, height) in pixels that `put_text` covers; `height` is that of a capital letter."""
    mask = _text_mask(text, height, _rim(height) if outline else 0)
    return mask.shape[2], mask.shape[1]


def put_text(
    canvas: np.ndarray,
    text: str,
    corner: Sequence[float],
    height: int,
    color: tuple[int, int, int],
    outline: bool = False,
) -> None:
    """Text with its top left at `corner` (x, y), rounded to whole pixels; a dark rim on request."""
    mask = _text_mask(text, height, _rim(height) if outline else 0)  # [2, h, w]
    left, top = round(float(corner[0])), round(float(corner[1]))
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + mask.shape[2], canvas.shape[1]), min(top + mask.shape[1], canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    rim, ink = mask[:, y0 - top : y1 - top, x0 - left : x1 - left]
    if outline:
        _blend(canvas[y0:y1, x0:x1], rim, DARK)
    _blend(canvas[y0:y1, x0:x1], ink, color)


def _blend(patch: np.ndarray, coverage: np.ndarray, color: tuple[int, int, int]) -> None:
    """Lay a colour over `patch` [h, w, 3] in place, as opaque as `coverage` [h, w] in [0, 1]."""
    below = patch.astype(np.float32)
    patch[:] = np.rint(below + coverage[:, :, None] * (np.array(color, dtype=np.float32) - below))


def _rim(height: int) -> int:
    return max(1, round(height / 7))


@lru_cache(maxsize=2048)
def _text_mask(text: str, height: int, rim: int) -> np.ndarray:
    """Coverage of rim and ink, float32 [2, h, w] in [0, 1].

    OpenCV 4 strokes text with lines and OpenCV 5 with a font whose weight follows the thickness, so drawing twice
    makes no outline that fits both. The rim is therefore the grown ink, and small sizes come from a larger drawing.
    """
    cv2 = _cv2()
    over = _TEXT_OVERSAMPLING
    scale = height * over / _capital_height()
    thickness = max(1, round(height * over / 8))
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    margin = over * (rim + 1)
    ascent, descent = height * over + thickness, max(below, round(0.35 * height * over))
    ink = np.zeros((ascent + descent + 2 * margin, text_width + 2 * (margin + thickness)), dtype=np.uint8)
    cv2.putText(
        ink,
        text,
        (margin + thickness, margin + ascent),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        255,
        thickness,
        cv2.LINE_AA,
    )
    columns = np.flatnonzero(ink.any(axis=0))
    if len(columns):
        ink = ink[:, max(0, columns[0] - margin) : columns[-1] + margin + 1]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim * over + 1, 2 * rim * over + 1))
    grown = cv2.dilate(ink, kernel) if rim else ink
    size = (-(-ink.shape[1] // over), -(-ink.shape[0] // over))
    return (
        np.stack([cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in (grown, ink)]).astype(np.float32)
        / 255
    )


@lru_cache(maxsize=1)
def _capital_height() -> float:
    """Height in pixels of a digit at font scale 1, which differs between OpenCV's versions; measured at scale 8."""
    cv2 = _cv2()
    canvas = np.zeros((400, 400), dtype=np.uint8)
    cv2.putText(canvas, "0", (60, 320), cv2.FONT_HERSHEY_SIMPLEX, 8.0, 255, 8)
    return len(np.flatnonzero(canvas.any(axis=1))) / 8.0
