"""Many images on one sheet: keypoints across images, and heat maps of chosen keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..errors import KeypointError
from . import overlay, strokes
from .palette import heat_colors

_PAPER, _INK = 250, (40, 40, 40)


def contact_sheet(
    images: Sequence[np.ndarray],
    xy: Sequence[np.ndarray] | None = None,
    confidence: Sequence[np.ndarray] | None = None,
    *,
    titles: Sequence[str] | None = None,
    heading: str = "",
    columns: int | None = None,
    cell: int = 256,
    **how: Any,
) -> np.ndarray:
    """Images in a grid, each with its keypoints; uint8 RGB on light paper.

    images: B uint8 RGB images of any sizes. xy: for each its [K, 2] (or [P, K, 2]) pixels, or None.
    confidence: for each [K] (or [P, K]), or None. titles: a line of text under each cell. columns: None for
    about as many as rows. cell: side in pixels of a cell; images keep their aspect ratio. `how`: options of
    `draw_keypoints`, but for `size`. Raises KeypointError when the numbers disagree or there is no image.
    """
    count = len(images)
    if not count:
        raise KeypointError("there are no images for a contact sheet; give at least one.")
    for what, values in (("keypoint sets", xy), ("confidences", confidence), ("titles", titles)):
        if values is not None and len(values) != count:
            raise KeypointError(f"{len(values)} {what} were given for {count} images; give one for each.")
    if cell < 32 or (columns is not None and columns < 1):
        raise KeypointError(
            f"cell {cell} and columns {columns} were given; a cell needs at least 32 pixels, and "
            f"there must be at least 1 column."
        )
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    gap, text = max(4, cell // 40), max(9, cell // 22)
    strip = round(2.2 * text) if titles is not None else 0
    top = round(3.4 * text) if heading else 0
    rows = math.ceil(count / columns)
    sheet = np.full((top + gap + rows * (cell + strip + gap), gap + columns * (cell + gap), 3), _PAPER, np.uint8)
    if heading:
        fitted = _fit_text(heading, round(1.3 * text), sheet.shape[1] - 2 * gap)
        strokes.put_text(sheet, fitted, (gap, gap), round(1.3 * text), _INK)
    for index, image in enumerate(images):
        fitted = _cell_image(
            image,
            None if xy is None else xy[index],
            None if confidence is None else confidence[index],
            cell,
            how,
        )
        row, column = divmod(index, columns)
        x, y = gap + column * (cell + gap), top + gap + row * (cell + strip + gap)
        left, above = x + (cell - fitted.shape[1]) // 2, y + (cell - fitted.shape[0]) // 2
        sheet[above : above + fitted.shape[0], left : left + fitted.shape[1]] = fitted
        if titles is not None:
            _centred_text(sheet, titles[index], x, y + cell, cell, text)
    return sheet


def _cell_image(image: np.ndarray, xy: Any, confidence: Any, cell: int, how: dict[str, Any]) -> np.ndarray:
    strokes.check_image(image)
    height, width = image.shape[:2]
    factor = cell / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if xy is None:
        return strokes.resized(image, *size)
    return overlay.draw_keypoints(image, xy, confidence, size=size, **how)


def _fit_text(text: str, height: int, width: int) -> str:
    """`text`, cut in the middle when it is wider than `width`: file names differ at both ends."""
    short, keep = text, len(text)
    while keep > 2 and strokes.text_size(short, height)[0] > width:
        keep -= 1
        short = text[: (keep + 1) // 2] + ".." + text[len(text) - keep // 2 :]
    return short


def _centred_text(sheet: np.ndarray, text: str, x: int, y: int, width: int, height: int) -> None:
    text = _fit_text(text, height, width)
    if text:
        extent = strokes.text_size(text, height)[0]
        strokes.put_text(sheet, text, (x + (width - extent) / 2, y + 0.2 * height), height, _INK)


def heat_overlay(image: np.ndarray, heat: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """One map [R, R] (any scale, at least 0) over an image uint8 RGB [H, W, 3]; uint8 RGB of its size or `size`
    (width, height).

    The map covers the whole image. Its largest value is brightest; the image is dimmed and grey where the
    map is low, so that the heat shows by brightness and not by hue alone. Raises KeypointError for a map of another
    shape.
    """
    strokes.check_image(image)
    heat = np.asarray(heat, dtype=np.float32)
    if heat.ndim != 2 or not np.isfinite(heat).all():
        raise KeypointError(f"a heat map of shape {list(heat.shape)} was given, but finite values [R, R] are needed.")
    width, height = size or (image.shape[1], image.shape[0])
    base = strokes.resized(image, width, height).astype(np.float32)
    grey = base @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    base = 0.55 * (0.5 * base + 0.5 * grey[:, :, None])
    level = np.clip(heat / max(float(heat.max()), 1e-12), 0.0, 1.0)
    level = np.asarray(Image.fromarray(level).resize((width, height), Image.Resampling.BILINEAR))  # [H, W]
    hot = heat_colors(level)
    weight = (0.85 * level**0.7)[:, :, None]
    return np.rint(base * (1 - weight) + hot * weight).astype(np.uint8)


def heat_maps(
    image: np.ndarray,
    maps: np.ndarray,
    which: Sequence[int] | None = None,
    *,
    xy: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    cell: int = 256,
    colors: Sequence[tuple[int, int, int]] = (),
) -> np.ndarray:
    """Heat maps of keypoints over one image, a cell each; uint8 RGB sheet.

    maps: [K, R, R], at least 0, each scaled by its own largest value. which: keypoints to show, None for all.
    xy: [K, 2] pixels of the image; marks each keypoint in its cell. titles: K texts, by default "keypoint
    i". cell: side of a cell in pixels. Raises KeypointError for maps of another shape and unknown keypoints.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or not len(maps):
        raise KeypointError(f"heat maps of shape {list(maps.shape)} were given, but [keypoints, R, R] is needed.")
    which = list(range(len(maps))) if which is None else [int(i) for i in which]
    if any(not 0 <= i < len(maps) for i in which):
        raise KeypointError(f"keypoints {which} were asked for, but there are {len(maps)}, counted from 0.")
    strokes.check_image(image)
    factor = cell / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    overlays = [heat_overlay(image, maps[i], size=size) for i in which]
    if xy is not None:
        scale = np.array(size) / (image.shape[1], image.shape[0])
        overlays = [
            overlay.draw_keypoints(over, np.asarray(xy) * scale, which=[i], numbers=False, colors=colors)
            for over, i in zip(overlays, which, strict=True)
        ]
    texts = [f"keypoint {i}" if titles is None else titles[i] for i in which]
    return contact_sheet(overlays, titles=texts, columns=columns, cell=cell)
