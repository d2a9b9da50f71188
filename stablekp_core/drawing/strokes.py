"""Strokes on uint8 RGB images [H, W, 3], in place and anti-aliased: dots, lines, text with a rim.

Positions are (x, y) in continuous pixels: pixel (0, 0) covers [0, 1) x [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import KeypointError

DARK, LIGHT = (20, 20, 20), (255, 255, 255)
FAR = 30000.0  # pixels; nothing of a point this far outside is seen, and lines to it stay short enough to draw
_TEXT_OVERSAMPLING = 4
_TEXT_WEIGHT = 0.04  # of a capital's height, by which the font's thin strokes are made bolder


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
    shrinks = width * height < image.shape[0] * image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(image).resize((width, height), method))


def disc(canvas: np.ndarray, centre: Sequence[float], radius: float, color: tuple[int, int, int]) -> None:
    """A filled anti-aliased circle; `centre` (x, y), `radius` in pixels."""
    x, y = float(centre[0]), float(centre[1])
    x0, y0 = max(0, math.floor(x - radius - 1)), max(0, math.floor(y - radius - 1))
    x1, y1 = min(canvas.shape[1], math.ceil(x + radius + 1)), min(canvas.shape[0], math.ceil(y + radius + 1))
    if x0 >= x1 or y0 >= y1:
        return
    distance = np.hypot(np.arange(x0, x1)[None, :] + 0.5 - x, np.arange(y0, y1)[:, None] + 0.5 - y)
    _blend(canvas[y0:y1, x0:x1], np.clip(radius + 0.5 - distance, 0.0, 1.0), color)


def line(canvas: np.ndarray, a: Sequence[float], b: Sequence[float], color: tuple[int, int, int], width: float) -> None:
    """An anti-aliased line with round ends from `a` to `b` (x, y); `width` in pixels, under 1 it is a hairline."""
    start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    reach = max(width, 1.0) / 2
    long = int(np.abs(end - start).argmax())  # the axis it runs along: each step has a few pixels across
    if start[long] > end[long]:
        start, end = end, start
    sides = canvas.shape[1::-1]  # (W, H)
    step = np.arange(max(0, math.floor(start[long] - reach - 1)), min(sides[long], math.ceil(end[long] + reach + 1)))
    slope = (end - start)[1 - long] / max((end - start)[long], 1e-9)
    # Pixels further across than this are further than `reach` from the line, whatever its slope.
    across = math.ceil((reach + 1) * math.hypot(1.0, slope))
    middle = start[1 - long] + slope * np.clip(step + 0.5 - start[long], 0.0, (end - start)[long])
    other = np.floor(middle).astype(int)[:, None] + np.arange(-across, across + 1)  # [steps, 2 * across + 1]
    at = np.empty((*other.shape, 2))
    at[..., long], at[..., 1 - long] = step[:, None] + 0.5, other + 0.5
    coverage = np.clip(reach + 0.5 - _distance(at, start, end), 0.0, 1.0)
    coverage[(other < 0) | (other >= sides[1 - long])] = 0.0
    steps, columns = np.nonzero(coverage)
    pixels = (other[steps, columns], step[steps]) if long == 0 else (step[steps], other[steps, columns])
    below = canvas[pixels].astype(np.float32)
    canvas[pixels] = _mixed(below, coverage[steps, columns], color)


def _distance(at: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of points [..., 2] to the segment between two points [2]."""
    along = end - start
    part = np.clip((at - start) @ along / max(float(along @ along), 1e-9), 0.0, 1.0)
    return np.hypot(*np.moveaxis(at - start - part[..., None] * along, -1, 0))


def polyline(canvas: np.ndarray, points: np.ndarray, color: tuple[int, int, int], thick: bool = False) -> None:
    """An anti-aliased curve through `points` [M, 2], a hairline or about three pixels wide."""
    for a, b in zip(points, points[1:], strict=False):
        line(canvas, a, b, color, 3.0 if thick else 1.0)


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
    patch[:] = _mixed(patch.astype(np.float32), coverage, color)


def _mixed(below: np.ndarray, coverage: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """float32 [..., 3] under a colour with `coverage` [...]."""
    return np.rint(below + coverage[..., None] * (np.array(color, dtype=np.float32) - below))


def _rim(height: int) -> int:
    return max(1, round(height / 7))


@lru_cache(maxsize=2048)
def _text_mask(text: str, height: int, rim: int) -> np.ndarray:
    """Coverage of rim and ink, float32 [2, h, w] in [0, 1]; drawn larger, as fonts are hinted to whole pixels."""
    over = _TEXT_OVERSAMPLING
    font, weight = _font(height * over), max(1, round(_TEXT_WEIGHT * height * over / 2))
    margin = over * (rim + 1)
    left, top = font.getbbox("0")[:2]
    width, below = math.ceil(font.getlength(text)), max(font.getmetrics()[1], round(0.35 * height * over))
    size = (-(-(width + 2 * (margin + weight)) // over) * over, -(-(height * over + below + 2 * margin) // over) * over)
    layers = []
    for stroke in (weight + rim * over, weight):
        layer = Image.new("L", size)
        place = (margin + weight - left, margin + weight - top)
        ImageDraw.Draw(layer).text(place, text, fill=255, font=font, stroke_width=stroke)
        layers.append(np.asarray(layer.reduce(over)))
    columns = np.flatnonzero(layers[0].any(axis=0))
    if len(columns):
        layers = [layer[:, : columns[-1] + 2] for layer in layers]
    return np.stack(layers).astype(np.float32) / 255


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, in the size whose digits are `height` pixels tall."""
    top, bottom = ImageFont.load_default(1000).getbbox("0")[1::2]
    return ImageFont.load_default(max(4, round(1000 * height / (bottom - top))))
