"""Strokes on uint8 RGB images [H, W, 3], in place and anti-aliased: dots, lines, text with a rim. The one importer of
OpenCV.

Positions are (x, y) in continuous pixels: pixel (0, 0) covers [0, 1) x [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import KeypointError

DARK, LIGHT = (20, 20, 20), (255, 255, 255)
_SHIFT = 4  # OpenCV takes positions in 1/16 pixel
_TEXT_OVERSAMPLING = 4


def opencv() -> Any:
    """OpenCV, imported on first use; raises KeypointError with what to install."""
    try:
        import cv2
    except ImportError as error:
        raise KeypointError(
            f"drawing needs OpenCV, which cannot be imported ({error}); install it with 'pip install opencv-python'."
        ) from error
    return cv2


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
            f"an image of shape {list(np.shape(image))} and type {getattr(image, 'dtype', type(image))} "
            f"was given to draw on, but uint8 RGB [height, width, 3] is needed."
        )


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A copy [height, width, 3] of an image [H, W, 3]: area average when it shrinks, cubic when it grows."""
    if image.shape[:2] == (height, width):
        return image.copy()
    cv2 = opencv()
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


def line(canvas: np.ndarray, a: Sequence[float], b: Sequence[float], color: tuple[int, int, int], width: float) -> None:
    """An anti-aliased line with round ends from `a` to `b` (x, y); `width` in pixels, under 2 it is a
    hairline.

    Drawn as a polygon: OpenCV's own thick lines come out as 3.4, 5.4, 7.4 … pixels whatever is asked for.
    """
    cv2 = opencv()
    start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    length = float(np.hypot(*(end - start)))
    if width < 2.0:
        cv2.line(canvas, _fixed(start), _fixed(end), color, 1, cv2.LINE_AA, _SHIFT)
        return
    if length > 0:
        # The soft edge that OpenCV adds to a polygon is 0.7 pixels wide on each side.
        side = np.array([start[1] - end[1], end[0] - start[0]]) / length * (width / 2 - 0.7)
        corners = [_fixed(corner) for corner in (start + side, end + side, end - side, start - side)]
        cv2.fillConvexPoly(canvas, np.array(corners, dtype=np.int32), color, cv2.LINE_AA, _SHIFT)
    disc(canvas, start, width / 2, color)
    disc(canvas, end, width / 2, color)


def polyline(canvas: np.ndarray, points: np.ndarray, color: tuple[int, int, int], thick: bool = False) -> None:
    """An anti-aliased curve through `points` [M, 2], a hairline or about three pixels wide."""
    cv2 = opencv()
    fixed = np.array([_fixed(point) for point in points], dtype=np.int32)
    cv2.polylines(canvas, [fixed[:, None]], False, color, 2 if thick else 1, cv2.LINE_AA, _SHIFT)


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

    OpenCV 4 strokes text with lines and OpenCV 5 with a font whose weight follows the thickness, so drawing
    twice makes no outline that fits both. The rim is therefore the grown ink, and small sizes come from a
    larger drawing.
    """
    cv2 = opencv()
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
    return np.stack([cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in (grown, ink)]).astype(np.float32) / 255


@lru_cache(maxsize=1)
def _capital_height() -> float:
    """Height in pixels of a digit at font scale 1; measured, as OpenCV's versions differ."""
    cv2 = opencv()
    canvas = np.zeros((400, 400), dtype=np.uint8)
    cv2.putText(canvas, "0", (60, 320), cv2.FONT_HERSHEY_SIMPLEX, 8.0, 255, 8)
    return len(np.flatnonzero(canvas.any(axis=1))) / 8.0
