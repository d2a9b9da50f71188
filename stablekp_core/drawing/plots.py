"""The plot of the losses of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import KeypointError
from . import strokes

_PAPER, _INK, _GRID = 255, (60, 60, 60), (225, 225, 225)
_CURVE = (0, 51, 255)
_TEXT = 11


def loss_plot(
    losses: Mapping[str, Sequence[float]], *, width: int = 420, height: int = 300, first_step: int = 1
) -> np.ndarray:
    """One panel for each series, side by side, since losses differ by orders of magnitude; uint8 RGB.

    losses: name -> one value per step, from `first_step` on. The pale line has every step (values that are
    not finite leave a gap), the strong one their running mean over about a thirtieth of the steps. width,
    height: size of one panel in pixels, at least 160 x 120. Raises KeypointError for no series or a panel too
    small.
    """
    if not losses:
        raise KeypointError("there are no losses to plot; give at least one named series.")
    if width < 160 or height < 120:
        raise KeypointError(f"a plot of {width}x{height} pixels was asked for; a panel needs at least 160x120.")
    return np.concatenate(
        [
            _panel(name, np.asarray(values, dtype=np.float64).reshape(-1), width, height, first_step)
            for name, values in losses.items()
        ],
        axis=1,
    )


def _panel(name: str, values: np.ndarray, width: int, height: int, first_step: int) -> np.ndarray:
    canvas = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    strokes.put_text(canvas, name, (14, 10), _TEXT + 1, _INK)
    finite = values[np.isfinite(values)]
    if not len(finite):
        strokes.put_text(canvas, "no steps yet", (width / 2 - 40, height / 2), _TEXT, _INK)
        return canvas
    low, high = _limits(finite)
    y_ticks = _ticks(low, high, 5)
    labels = _tick_labels(y_ticks)
    left = 18 + max(strokes.text_size(label, _TEXT)[0] for label in labels)
    x0, x1, y0, y1 = left, width - 28, 42, height - 44  # the plotting area
    last_step = first_step + len(values) - 1
    span = max(1, last_step - first_step)

    def at(step: np.ndarray, value: np.ndarray) -> np.ndarray:
        return np.stack(
            [x0 + (step - first_step) / span * (x1 - x0), y1 - (value - low) / (high - low) * (y1 - y0)], -1
        )

    for tick, label in zip(y_ticks, labels, strict=True):
        y = at(first_step, tick)[1]
        strokes.line(canvas, (x0, y), (x1, y), _GRID, 1)
        strokes.put_text(canvas, label, (x0 - 8 - strokes.text_size(label, _TEXT)[0], y - 0.75 * _TEXT), _TEXT, _INK)
    x_ticks = [tick for tick in _ticks(first_step, last_step, max(2, (x1 - x0) // 80)) if tick == int(tick)]
    for tick in x_ticks or [first_step]:
        label, x = str(int(tick)), at(tick, low)[0]
        strokes.line(canvas, (x, y1), (x, y1 + 4), _INK, 1)
        strokes.put_text(canvas, label, (x - strokes.text_size(label, _TEXT)[0] / 2, y1 + 6), _TEXT, _INK)
    strokes.put_text(canvas, "step", ((x0 + x1) / 2 - 12, y1 + 24), _TEXT, _INK)
    strokes.line(canvas, (x0, y1), (x1, y1), _INK, 1)
    steps = np.arange(first_step, last_step + 1, dtype=np.float64)
    pale = tuple(round(255 - 0.3 * (255 - c)) for c in _CURVE)
    # Clipped also for the mean, which one wild step would lift for a whole window; infinite values stay gaps.
    clipped = np.where(np.isfinite(values), np.clip(values, low, high), np.nan)
    _curve(canvas, at(steps, clipped), pale, thick=False)
    _curve(canvas, at(steps, _running_mean(clipped)), _CURVE, thick=True)
    return canvas


def _curve(canvas: np.ndarray, points: np.ndarray, color: tuple[int, int, int], thick: bool) -> None:
    """A line through `points` [M, 2], broken where one is not finite."""
    gaps = np.flatnonzero(~np.isfinite(points).all(axis=1))
    for piece in np.split(points, gaps):
        piece = piece[np.isfinite(piece).all(axis=1)]  # all but the first of a piece are finite
        if len(piece) == 1:  # alone between gaps: a line of no length would not show
            strokes.disc(canvas, piece[0], 3.0 if thick else 2.0, color)
        elif len(piece):
            strokes.polyline(canvas, piece, color, thick)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a window that is cut off at the ends; gaps do not count and stay gaps."""
    half = len(values) // 60
    there = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    number = np.concatenate([[0], np.cumsum(there)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[high] - total[low]) / (number[high] - number[low])
    return np.where(there, mean, np.nan)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of the y axis without the most extreme percent, so that one bad step cannot fill it."""
    low, high = np.quantile(values, [0.005, 0.995]) if len(values) > 100 else (values.min(), values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        half = 0.5 * max(abs(low), 1e-6)
        return float(low - half), float(high + half)
    margin = 0.05 * (high - low)
    return float(low - margin), float(high + margin)


def _ticks(low: float, high: float, at_most: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high, `at_most` + 1 of them."""
    if high <= low:
        return [low]
    rough = (high - low) / at_most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """The same number of decimals for all, enough to tell them apart; powers of ten outside 1e-4..1e5."""
    largest = max(abs(tick) for tick in ticks)
    step = min((b - a for a, b in zip(ticks[:-1], ticks[1:], strict=True)), default=largest or 1.0)
    if largest and not 1e-3 <= largest < 1e5:
        digits = max(0, math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9))
        return [f"{tick:.{digits}e}" if tick else "0" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick + 0.0:.{decimals}f}" for tick in ticks]
