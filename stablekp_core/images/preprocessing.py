"""The model input: resize or pad an image to a square, and map points between it and the pixels of the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import KeypointError
from ..keypoints.sizes import scale_to_image

if TYPE_CHECKING:
    import torch

RESIZE_MODES = ("squash", "pad")
SQUARE_ENOUGH = 1.6  # long side by short side up to which images are squashed
ENLARGED = 1.5  # the most that the model input grows for images that are far from square
SHORT_SIDE = 0.75  # share of the usual model input that their short side is to have then


@dataclass(frozen=True)
class InputTransform:
    """The transform between an image of `width` x `height` pixels and the unit square of the model input.

    In the unit square, [0, 1] x [0, 1] with x right and y down, the image fills the rectangle from (`left`, `top`) of
    size (`span_x`, `span_y`). Both directions scale and shift each axis in float64 and are inverse to each other.
    """

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    span_x: float = 1.0
    span_y: float = 1.0

    def to_original(self, xy_unit: np.ndarray) -> np.ndarray:
        """Points (x, y) [..., 2] of the unit square -> pixels of the original image, float64 [..., 2], not clipped to
        it."""
        xy = np.asarray(xy_unit, dtype=np.float64)
        return (xy - (self.left, self.top)) * (self.width / self.span_x, self.height / self.span_y)

    def to_unit(self, xy_pixels: np.ndarray) -> np.ndarray:
        """Points (x, y) [..., 2] in pixels of the original image -> the unit square, float64 [..., 2]."""
        xy = np.asarray(xy_pixels, dtype=np.float64)
        return xy / (self.width / self.span_x, self.height / self.span_y) + (self.left, self.top)


def fitting_input(sizes: Iterable[tuple[int, int]], side: int, step: int) -> tuple[str, int]:
    """What resize "auto" comes to for images of `sizes` (width, height): a mode of `RESIZE_MODES`, and the side of the
    model input in pixels.

    By the median of their aspect ratios: up to `SQUARE_ENOUGH` "squash" at `side`; above, "pad", at a side that is
    larger by as much as it takes to keep the short side of the images, a multiple of `step`.
    """
    ratios = sorted(max(size) / min(size) for size in sizes)
    middle = ratios[len(ratios) // 2] if ratios else 1.0
    if middle <= SQUARE_ENOUGH:
        return "squash", side
    return "pad", max(side, round(side * min(SHORT_SIDE * middle, ENLARGED) / step) * step)


def input_transform(width: int, height: int, size: int, mode: str = "squash") -> InputTransform:
    """The transform that `to_model_input` applies to an image of `width` x `height` pixels. Raises KeypointError for an
    unknown mode."""
    left, top, inner_w, inner_h = _inner_box(width, height, size, mode)
    return InputTransform(width, height, left / size, top / size, inner_w / size, inner_h / size)


def to_model_input(image: np.ndarray, size: int, mode: str = "squash") -> tuple[torch.Tensor, InputTransform]:
    """The model input of an image uint8 RGB [H, W, 3], by an antialiased resize: float32 [3, size, size] in [0, 1], and
    the transform between both.

    mode: "squash" stretches both axes to `size`; "pad" keeps the aspect ratio, centres the image and fills the two bars
    with the mean colour of the image's edges that touch them (a black bar would be a strong edge that tokens can lock
    on to). Raises KeypointError for an image of another shape or type, and for an unknown mode.
    """
    import torch

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise KeypointError(
            f"an image of shape {list(image.shape)} and type {image.dtype} was given, but "
            f"RGB uint8 [height, width, 3] is needed; read it with load_image."
        )
    height, width = image.shape[:2]
    left, top, inner_w, inner_h = _inner_box(width, height, size, mode)
    inner = Image.fromarray(image).resize((inner_w, inner_h), Image.Resampling.LANCZOS)
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = _edge_colour(image)
    canvas[top : top + inner_h, left : left + inner_w] = np.asarray(inner)
    tensor = torch.from_numpy(canvas).permute(2, 0, 1).contiguous().float().div_(255.0)  # [3, S, S]
    return tensor, input_transform(width, height, size, mode)


def input_mask(transform: InputTransform, size: int, mask: np.ndarray | None = None) -> torch.Tensor:
    """How much each pixel of the model input counts: float32 [1, size, size] in [0, 1], 0 in the bars of "pad".

    mask: [H, W] of the image or a copy of it, bool, uint8 or float in [0, 1]; None: all of the image counts. Raises
    KeypointError for a mask of another shape.
    """
    import torch

    t = transform
    left, top, right, bottom = (round(x * size) for x in (t.left, t.top, t.left + t.span_x, t.top + t.span_y))
    out = np.zeros((size, size), dtype=np.float32)
    if mask is not None and np.ndim(mask) == 2:
        scale_to_image(np.shape(mask)[::-1], (t.width, t.height), "masks")
    inner = np.ones((bottom - top, right - left), dtype=np.float32) if mask is None else _unit_mask(mask)
    if inner.shape != (bottom - top, right - left):
        shape = (right - left, bottom - top)
        inner = np.asarray(Image.fromarray(inner).resize(shape, Image.Resampling.BOX))
    out[top:bottom, left:right] = inner
    return torch.from_numpy(out)[None]


def _unit_mask(mask: np.ndarray) -> np.ndarray:
    """float32 [H, W] in [0, 1]."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or 0 in mask.shape:
        raise KeypointError(f"a mask of shape {list(mask.shape)} was given, but a mask is [height, width].")
    return mask.astype(np.float32) / 255 if mask.dtype == np.uint8 else np.clip(mask.astype(np.float32), 0, 1)


def _inner_box(width: int, height: int, size: int, mode: str) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the image inside the model input, in whole pixels of that."""
    if mode not in RESIZE_MODES:
        raise KeypointError(f"resize mode {mode!r} was given, but it must be one of {', '.join(RESIZE_MODES)}.")
    if mode == "squash":
        return 0, 0, size, size
    longest = max(width, height)
    inner_w = max(1, round(width * size / longest))
    inner_h = max(1, round(height * size / longest))
    return (size - inner_w) // 2, (size - inner_h) // 2, inner_w, inner_h


def _edge_colour(image: np.ndarray) -> np.ndarray:
    """Mean RGB of the two long edges of an image, the ones that touch the bars of "pad"."""
    height, width = image.shape[:2]
    edges = image[[0, -1]] if width >= height else image[:, [0, -1]]
    return np.rint(edges.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
