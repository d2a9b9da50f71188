"""Placing an image of one size on a canvas of another size, for the image and for the points on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import KeypointError
from . import strokes

FITS = ("contain", "crop", "stretch")


@dataclass(frozen=True)
class CanvasFit:
    """An image of `source` (width, height) pixels on a canvas of `size`: a point at p lies at scale * p + offset.

    scale: (x, y), canvas pixels per image pixel. offset: (x, y), canvas pixels; whole numbers, negative where the
    image reaches over the canvas.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[int, int]

    @classmethod
    def of(cls, source: tuple[int, int], size: tuple[int, int], fit: str = "contain") -> CanvasFit:
        """fit: "contain" (the whole image, with bars beside it), "crop" (the canvas is filled, the image's middle
        shows), or "stretch" (the image's shape changes). A side of `size` that is 0 follows from the other one, and
        both are the image's when both are 0. Raises KeypointError for another fit.
        """
        if fit not in FITS:
            raise KeypointError(f"fit is {fit!r}, but it must be one of {', '.join(FITS)}.")
        source, size = _whole(source), _completed(_whole(size), _whole(source))
        ratios = [canvas / image for canvas, image in zip(size, source, strict=True)]
        if fit != "stretch":
            ratios = [min(ratios) if fit == "contain" else max(ratios)] * 2
        laid = [max(1, round(side * ratio)) for side, ratio in zip(source, ratios, strict=True)]
        scale = tuple(new / old for new, old in zip(laid, source, strict=True))
        offset = tuple((canvas - new) // 2 for canvas, new in zip(size, laid, strict=True))
        return cls(source, size, scale, offset)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points [..., 2] in pixels of the image, in pixels of the canvas."""
        return np.asarray(xy, np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def image(self, array: np.ndarray, background: int = 0) -> np.ndarray:
        """The image, uint8 [H, W, 3] of `source`'s size, on the canvas; bars have the grey value `background`."""
        (width, height), (left, top) = self.size, self.offset
        laid = strokes.resized(array, *(round(s * n) for s, n in zip(self.scale, self.source, strict=True)))
        canvas = np.full((height, width, 3), background, np.uint8)
        part = laid[max(0, -top) : max(0, -top) + height, max(0, -left) : max(0, -left) + width]
        canvas[max(0, top) : max(0, top) + part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part
        return canvas


def _whole(size: tuple[int, int]) -> tuple[int, int]:
    width, height = (int(side) for side in size)
    return width, height


def _completed(size: tuple[int, int], source: tuple[int, int]) -> tuple[int, int]:
    if not any(size):
        return source
    width = size[0] or max(1, round(size[1] * source[0] / source[1]))
    return width, size[1] or max(1, round(size[0] * source[1] / source[0]))
