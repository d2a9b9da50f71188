"""Several figures in one image: crop each, detect on the crops, and transform the points back to the image.

A box is (left, top, width, height) in pixels of its image, x right, y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import EmptyImage, Keypoints

Box = tuple[float, float, float, float]
ISOLATE = ("none", "others", "background")
MIN_CROP = 16  # pixels; the smallest image the rest of the program takes


@dataclass(frozen=True)
class Crop:
    """Where a crop lies: number, name and (width, height) of its image, and the window in pixels of that image.

    The window may reach over the border of the image.
    """

    image: int
    name: str
    size: tuple[int, int]
    left: int
    top: int
    width: int
    height: int


def read_boxes(value: Any, images: int = 1) -> list[list[tuple[float, float, float, float]]]:
    """Boxes of each of `images` images, from what nodes and files give.

    A box is a dict with x, y, width, height, or four numbers in that order. value: for each image a list of
    boxes (or one box); for one image also its boxes alone. Raises KeypointError for anything else, boxes
    without area, and a wrong number of images.
    """
    if _is_box(value) or (images == 1 and len(value) and all(_is_box(box) for box in value)):
        value = [value]
    per_image = [[frame] if _is_box(frame) else list(() if frame is None else frame) for frame in value]
    if len(per_image) != images:
        raise KeypointError(f"boxes of {len(per_image)} images were given for {images} images; give a list for each.")
    return [[_read_box(box) for box in boxes] for boxes in per_image]


def boxes_from_masks(masks: np.ndarray, threshold: float = 0.5) -> list[tuple[float, float, float, float]]:
    """The smallest box around each mask [M, H, W] (bool, or float where above `threshold` is inside).

    Raises KeypointError for an empty mask, by number.
    """
    boxes = []
    for number, inside in enumerate(_as_masks(masks, threshold)):
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            raise KeypointError(f"mask {number} is empty; paint the figure in each mask, or leave that mask out.")
        boxes.append(
            (
                float(columns[0]),
                float(rows[0]),
                float(columns[-1] - columns[0] + 1),
                float(rows[-1] - rows[0] + 1),
            )
        )
    return boxes


def boxes_from_keypoints(keypoints: Keypoints, threshold: float = 0.5, margin: float = 0.15) -> list[list[Box]]:
    """The boxes around the points of each row with confidence `threshold` or more: a list for each image, in whole
    pixels inside the image.

    margin: space around the points, share of the longer side of the box. A row without such points has no box.
    """
    boxes: list[list[Box]] = [[] for _ in range(keypoints.num_images)]
    for row, image in enumerate(keypoints.image_index.tolist()):
        points = keypoints.xy[row][keypoints.confidence[row] >= max(threshold, 1e-9)]  # [k, 2]
        if not len(points):
            continue
        low, high, size = points.min(0), points.max(0), keypoints.sizes[row]
        room = margin * (high - low).max()
        low, high = np.floor(np.maximum(low - room, 0)), np.ceil(np.minimum(high + room, size))
        if (high > low).all():
            boxes[image].append((float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])))
    return boxes


def crop_instances(
    images: Sequence[np.ndarray],
    boxes: Sequence[Sequence[Any]] | None = None,
    figure_masks: Sequence[np.ndarray] | None = None,
    *,
    names: Sequence[str] | None = None,
    margin: float = 0.15,
    square: bool = True,
    isolate: str = "none",
) -> tuple[list[np.ndarray], tuple[Crop, ...]]:
    """Crop each figure.

    images: uint8 RGB [H, W, 3] each. boxes: for each image its boxes (see `read_boxes`); or figure_masks: for each
    image a mask per figure, [M, H, W]. margin: space around the box, on each side a share in 0..10 of its longer side.
    square: make the windows square, like the model input. isolate, with figure_masks only: paint over the other
    figures ("others") or everything but the figure ("background") in the mean colour of the crop. Returns the crops,
    uint8 RGB, and where they lie. A window is moved into the image if it fits; what still reaches over the border
    repeats the pixels of the border. Raises KeypointError for settings, boxes or masks that do not fit.
    """
    if (boxes is None) == (figure_masks is None):
        raise KeypointError("give either boxes or masks of the figures, not both and not neither.")
    if isolate not in ISOLATE or (isolate != "none" and figure_masks is None):
        raise KeypointError(
            f"isolate is {isolate!r}, but it must be one of {', '.join(ISOLATE)}, and others than none need masks."
        )
    if not 0 <= margin <= 10:
        raise KeypointError(f"margin is {margin:g}, but it must be from 0 to 10 times the size of a box.")
    inside = None if figure_masks is None else [_as_masks(m, 0.5) for m in figure_masks]
    per_image = read_boxes(boxes, len(images)) if inside is None else [boxes_from_masks(m) for m in inside]
    if len(per_image) != len(images):
        raise KeypointError(f"masks of {len(per_image)} images were given for {len(images)} images; give all.")
    cut, crops = [], []
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        if inside is not None and inside[i].shape[1:] != (height, width):
            raise KeypointError(
                f"the masks of image {i} are {inside[i].shape[2]}x{inside[i].shape[1]} but the image is "
                f"{width}x{height}; make masks of the image's size."
            )
        for number, box in enumerate(per_image[i]):
            window = _window(box, width, height, margin, square)
            crop = Crop(i, str(names[i]) if names else "", (width, height), *window)
            piece = _cut(image, crop)
            if isolate != "none":
                removed = _removed(inside[i], number, isolate)
                piece = np.where(_cut(removed, crop)[..., None], _mean_colour(piece), piece)
            cut.append(piece)
            crops.append(crop)
    return cut, tuple(crops)


def to_full_image(
    keypoints: Keypoints,
    crops: Sequence[Crop],
    sizes: Sequence[tuple[int, int]] | None = None,
    names: Sequence[str] | None = None,
) -> Keypoints:
    """Transform keypoints on crops (row i in pixels of crop i) to pixels of the whole images, several rows per image.

    sizes, names: (width, height) and name of every image, also of those without a figure; without them the last image
    is the last one that has a figure. Raises KeypointError when there is not one crop for each row.
    """
    if len(keypoints) != len(crops):
        raise KeypointError(
            f"there are keypoints of {len(keypoints)} crops but {len(crops)} crops; detect on all of them."
        )
    window = np.array([(c.width, c.height) for c in crops], dtype=np.float64).reshape(-1, 2)
    corner = np.array([(c.left, c.top) for c in crops], dtype=np.float64).reshape(-1, 2)
    scale = window / keypoints.sizes.reshape(-1, 2)  # 1 unless the crops were resized in between
    return replace(
        keypoints,
        xy=keypoints.xy * scale[:, None] + corner[:, None],
        sizes=np.array([c.size for c in crops], dtype=np.int64).reshape(-1, 2),
        images=tuple(c.name for c in crops),
        image_index=np.array([c.image for c in crops], dtype=np.int64),
        num_images=None if sizes is None else len(sizes),
        empty_images=tuple(EmptyImage(i, names[i] if names else "", *size) for i, size in enumerate(sizes or ())),
    )


def detect_instances(
    detect: Callable[[list[np.ndarray]], Keypoints],
    images: Sequence[np.ndarray],
    boxes: Sequence[Sequence[Any]] | None = None,
    figure_masks: Sequence[np.ndarray] | None = None,
    **settings: Any,
) -> Keypoints:
    """Detect on a crop for each box or mask; the keypoints are in pixels of the whole images, uint8 RGB [H, W, 3].

    detect: crops (uint8 RGB) -> keypoints, one row each. settings: see `crop_instances`.
    Raises KeypointError when there is no box or mask.
    """
    cut, crops = crop_instances(images, boxes, figure_masks, **settings)
    if not cut:
        raise KeypointError("there is no box or mask in any image, so there is nothing to detect; add one.")
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    return to_full_image(detect(cut), crops, sizes, settings.get("names"))


def _is_box(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    numbers = (int, float, np.integer, np.floating)
    return (
        isinstance(value, (list, tuple, np.ndarray)) and len(value) == 4 and all(isinstance(v, numbers) for v in value)
    )


def _read_box(box: Any) -> tuple[float, float, float, float]:
    try:
        values = [box[key] for key in ("x", "y", "width", "height")] if isinstance(box, dict) else list(box)
        left, top, width, height = (float(value) for value in values)
    except (KeyError, TypeError, ValueError) as error:
        raise KeypointError(f"{box!r} is no box ({error!r}); give x, y, width and height in pixels.") from error
    if not (np.isfinite([left, top]).all() and 0 < width < np.inf and 0 < height < np.inf):
        raise KeypointError(f"box {left:g}, {top:g}, {width:g}x{height:g} has no area; draw it around the figure.")
    return left, top, width, height


def _as_masks(masks: Any, threshold: float) -> np.ndarray:
    """bool [M, H, W] from one mask or several, numpy or torch."""
    array = np.asarray(masks.detach().cpu() if hasattr(masks, "detach") else masks)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise KeypointError(f"masks of shape {list(array.shape)} were given, but [figures, height, width] is needed.")
    return array if array.dtype == bool else array > threshold


def _window(box, width: int, height: int, margin: float, square: bool) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the crop in whole pixels."""
    left, top, w, h = box
    x, y = left + w / 2, top + h / 2
    if not (0 <= x < width and 0 <= y < height):
        raise KeypointError(
            f"the middle of box {left:g}, {top:g}, {w:g}x{h:g} lies outside its {width}x{height} image; "
            f"boxes are in pixels of the whole image."
        )
    room = 2 * margin * max(w, h)
    w, h = (max(w, h) + room,) * 2 if square else (w + room, h + room)
    w, h = max(MIN_CROP, round(w)), max(MIN_CROP, round(h))
    return _inside(x - w / 2, w, width), _inside(y - h / 2, h, height), w, h


def _inside(start: float, length: int, limit: int) -> int:
    """Where a stretch must begin to lie within 0..limit, or centred when it is longer."""
    if length >= limit:
        return (limit - length) // 2
    return int(min(max(round(start), 0), limit - length))


def _cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    rows = np.clip(np.arange(crop.top, crop.top + crop.height), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(crop.left, crop.left + crop.width), 0, image.shape[1] - 1)
    return image[rows[:, None], columns[None]]


def _removed(masks: np.ndarray, number: int, isolate: str) -> np.ndarray:
    """bool [H, W]: what to paint over around figure `number`."""
    if isolate == "background":
        return ~masks[number]
    others = np.delete(masks, number, axis=0)
    return others.any(axis=0) & ~masks[number]


def _mean_colour(image: np.ndarray) -> np.ndarray:
    return np.rint(image.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
