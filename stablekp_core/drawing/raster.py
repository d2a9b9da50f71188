"""Whole-pixel shapes on uint8 RGB images [H, W, 3], in place: what ControlNets were trained on was drawn by OpenCV, and
these cover the same pixels.

Positions are whole pixels (x, y). Inside, polygons are in 1/65536 pixel, as OpenCV calculates.
"""

from __future__ import annotations

import math

import numpy as np

_BITS = 16
_ONE, _HALF = 1 << _BITS, 1 << (_BITS - 1)
#: Sines of 0 to 450 degrees, with the seven digits OpenCV has.
_SINES = np.round(np.sin(np.radians(np.arange(451))), 7).astype(np.float32).astype(np.float64)


def fill_ellipse(
    canvas: np.ndarray,
    centre: tuple[int, int],
    axes: tuple[int, int],
    degrees: int,
    color: tuple[int, int, int],
) -> None:
    """A filled ellipse: half axes (along, across) in pixels, the first turned by `degrees` clockwise from x."""
    t, turn = np.arange(361), degrees % 360
    along, across = axes[0] * _SINES[450 - t], axes[1] * _SINES[t]  # [361] each
    cos, sin = _SINES[450 - turn], _SINES[turn]
    corners = np.stack([centre[0] + along * cos - across * sin, centre[1] + along * sin + across * cos], axis=1)
    _fill(canvas, np.rint(corners).astype(np.int64) << _BITS, color)


def fill_disc(canvas: np.ndarray, centre: tuple[int, int], radius: int, color: tuple[int, int, int]) -> None:
    """All pixels at most `radius` from the centre pixel."""
    for dy in range(-radius, radius + 1):
        half = math.isqrt(radius**2 - dy**2)
        _fill_row(canvas, centre[1] + dy, centre[0] - half, centre[0] + half, color)


def thick_line(
    canvas: np.ndarray, a: tuple[int, int], b: tuple[int, int], color: tuple[int, int, int], thickness: int
) -> None:
    """A line with round ends, of an odd `thickness` in OpenCV's count: 5 covers 7 pixels."""
    ends = np.array([a, b], dtype=np.int64)
    dx, dy = ends[1] - ends[0]
    length = math.hypot(dx, dy)
    if length > 0:
        reach = (thickness + 1) / 2 * _ONE / length
        side = np.rint([dy * reach, -dx * reach]).astype(np.int64)
        start, end = ends << _BITS
        _fill(canvas, np.array([start - side, start + side, end + side, end - side]), color)
    for end in ends.tolist():
        fill_disc(canvas, tuple(end), (thickness + 1) // 2, color)


def _fill(canvas: np.ndarray, corners: np.ndarray, color: tuple[int, int, int]) -> None:
    """Fill a convex polygon [M, 2] in 1/65536 pixel: every pixel its outline touches and all between them."""
    pixels = np.concatenate([_outline(corners), _sides(corners)])
    top = int(pixels[:, 1].min())
    row = pixels[:, 1] - top
    left = np.full(row.max() + 1, pixels[:, 0].max())
    right = np.full(row.max() + 1, pixels[:, 0].min())
    np.minimum.at(left, row, pixels[:, 0])
    np.maximum.at(right, row, pixels[:, 0])
    for offset, (first, last) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        _fill_row(canvas, top + offset, first, last, color)


def _fill_row(canvas: np.ndarray, row: int, first: int, last: int, color: tuple[int, int, int]) -> None:
    if 0 <= row < canvas.shape[0]:
        canvas[row, max(first, 0) : max(last + 1, 0)] = color


def _outline(corners: np.ndarray) -> np.ndarray:
    """Pixels [n, 2] of a polygon's edges, one for each step along the longer side of an edge, from left to right."""
    a, b = _edges(corners, 0)
    extent, every = np.abs(b - a), np.arange(len(a))
    long = (extent[:, 0] <= extent[:, 1]).astype(int)  # the axis of each edge's longer side
    short, length = 1 - long, extent[every, long]
    forward = np.sign(b - a)[every, long]
    slope = np.trunc((b - a)[every, short] * _ONE / (length | 1)).astype(np.int64)
    edge, step = _counted((length >> _BITS) + 1)
    pixels, every = np.empty((len(edge), 2), dtype=np.int64), np.arange(len(edge))
    long, short = long[edge], short[edge]
    pixels[every, long] = (a[edge, long] + _HALF >> _BITS) + forward[edge] * step
    pixels[every, short] = a[edge, short] + _HALF + slope[edge] * step >> _BITS
    return np.concatenate([pixels, b + _HALF >> _BITS])


def _sides(corners: np.ndarray) -> np.ndarray:
    """The pixels [n, 2] where a polygon's edges cross the middle of each row."""
    a, b = _edges(corners, 1)
    top, rows = a[:, 1] + _HALF >> _BITS, (b[:, 1] + _HALF >> _BITS) - (a[:, 1] + _HALF >> _BITS)
    a, b, top, rows = (values[rows > 0] for values in (a, b, top, rows))
    slope = np.trunc((2 * (b[:, 0] - a[:, 0]) + rows) / (2 * rows)).astype(np.int64)
    edge, step = _counted(rows + 1)
    return np.stack([a[edge, 0] + slope[edge] * step + _HALF >> _BITS, top[edge] + step], axis=1)


def _edges(corners: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Both ends [M, 2] of a polygon's edges, the one that is lower along `axis` first."""
    a, b = corners, np.roll(corners, -1, axis=0)
    turned = (a[:, axis] > b[:, axis])[:, None]
    return np.where(turned, b, a), np.where(turned, a, b)


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts 2, 3: (0, 0, 1, 1, 1) and (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
