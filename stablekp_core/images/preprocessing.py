"""The model's square: resize an image into it, and map points between it and the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import KeypointError
from ..keypoints.sizes import scale_to_image

if TYPE_CHECKING:
    import torch

RESIZE_MODES = ("squash", "pad")


@dataclass(frozen=True)
class InputTransform:
    """Where a `width` x `height` image lies in the model's unit square, [0, 1] x [0, 1], x right, y down.

    The image fills the rectangle from (`left`, `top`) of size (`span_x`, `span_y`) in unit coordinates.
    Both directions are one scale and shift per axis in float64, so that they are each other's inverse.
    """

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    span_x: float = 1.0
    span_y: float = 1.0

    def to_original(self, xy_unit: np.ndarray) -> np.ndarray:
        """Unit square [..., 2] -> pixels of the original image [..., 2]; not clipped to the image."""
        xy = np.asarray(xy_unit, dtype=np.float64)
        return (xy - (self.left, self.top)) * (self.width / self.span_x, self.height / self.span_y)

    def to_unit(self, xy_pixels: np.ndarray) -> np.ndarray:
        """Pixels of the original image [..., 2] -> unit square [..., 2]."""
        xy = np.asarray(xy_pixels, dtype=np.float64)
        return xy / (self.width / self.span_x, self.height / self.span_y) + (self.left, self.top)


def input_transform(width: int, height: int, size: int, mode: str = "squash") -> InputTransform:
    """The map `to_model_input` uses for an image of this size, without touching pixels."""
    left, top, inner_w, inner_h = _inner_box(width, height, size, mode)
    return InputTransform(width, height, left / size, top / size, inner_w / size, inner_h / size)


def to_model_input(image: np.ndarray, size: int, mode: str = "squash") -> tuple[torch.Tensor, InputTransform]:
    """Antialiased resize of uint8 RGB [H, W, 3] to the model's square.

    mode "squash" stretches both axes to `size`; "pad" keeps the aspect ratio, centres the image and fills
    the two bars with the mean colour of the image's edges that touch them (a black bar would be a strong
    edge that tokens can lock on to). Returns (float32 [3, size, size] in [0, 1], InputTransform).
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
    square = np.empty((size, size, 3), dtype=np.uint8)
    square[:] = _edge_colour(image)
    square[top : top + inner_h, left : left + inner_w] = np.asarray(inner)
    tensor = torch.from_numpy(square).permute(2, 0, 1).contiguous().float().div_(255.0)  # [3, S, S]
    return tensor, input_transform(width, height, size, mode)


def input_mask(way: InputTransform, size: int, mask: np.ndarray | None = None) -> torch.Tensor:
    """Where the model's square shows what counts: float32 [1, size, size] in [0, 1].

    1 where the image is, 0 in the bars that pad it; with `mask` (bool, uint8 or float in [0, 1], [H, W] of the image or
    a copy of it) what the mask leaves of it. Raises KeypointError for a mask of another shape.
    """
    import torch

    left, top, right, bottom = (
        round(x * size) for x in (way.left, way.top, way.left + way.span_x, way.top + way.span_y)
    )
    square = np.zeros((size, size), dtype=np.float32)
    if mask is not None and np.ndim(mask) == 2:
        scale_to_image(np.shape(mask)[::-1], (way.width, way.height), "masks")
    inner = np.ones((bottom - top, right - left), dtype=np.float32) if mask is None else _unit_mask(mask)
    if inner.shape != (bottom - top, right - left):
        shape = (right - left, bottom - top)
        inner = np.asarray(Image.fromarray(inner).resize(shape, Image.Resampling.BOX))
    square[top:bottom, left:right] = inner
    return torch.from_numpy(square)[None]


def _unit_mask(mask: np.ndarray) -> np.ndarray:
    """float32 [H, W] in [0, 1]."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or 0 in mask.shape:
        raise KeypointError(f"a mask of shape {list(mask.shape)} was given, but a mask is [height, width].")
    return mask.astype(np.float32) / 255 if mask.dtype == np.uint8 else np.clip(mask.astype(np.float32), 0, 1)


def _inner_box(width: int, height: int, size: int, mode: str) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the image inside the square, in whole pixels of the square."""
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
