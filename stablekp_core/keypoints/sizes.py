"""Scaling what was made on one copy of an image (labels, masks, keypoints) to another copy of a different size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import KeypointError

if TYPE_CHECKING:
    from .keypoints import Keypoints

# Tools that resize to multiples of 64 change the shape by up to 32 pixels of 512; a crop to the next usual shape (4:3
# to 3:2, 5:4 to 4:3) changes it more.
_ROUNDED = 544 / 512


def scale_to_image(made_on: Sequence[int], image: Sequence[int], what: str) -> tuple[float, float]:
    """(x, y) factors from pixels of a `made_on` = (width, height) copy to pixels of the `image` = (width, height).

    what: names the thing in the message, such as "the labels of bird.jpg". Raises KeypointError when the two have
    another shape, with the likeliest reason.
    """
    (from_width, from_height), (width, height) = made_on, image
    if min(from_width, from_height, width, height) < 1:
        raise KeypointError(f"{what} are for {from_width}x{from_height} pixels, which is no size; correct it.")
    if not _same_shape(from_width, from_height, width, height):
        if _same_shape(from_height, from_width, width, height):
            reason = (
                "width and height are exchanged, as some tools do with photos that carry their turn as a note "
                "(EXIF orientation): save the turned photo anew, or correct the sizes"
            )
        else:
            reason = "it takes the whole image, not a cropped or padded one"
        raise KeypointError(
            f"{what} are for {from_width}x{from_height} pixels, but the image is {width}x{height}; {reason}."
        )
    return width / from_width, height / from_height


def fit_to_image(points: Keypoints, image: tuple[int, int]) -> Keypoints:
    """Rows of one image in pixels of an `image` of (width, height): scaled where it is a copy of another size."""
    if (points.sizes == image).all():
        return points
    what = f"the keypoints of {points.images[0] or 'an image'}"
    factors = np.array([scale_to_image(size, image, what) for size in points.sizes.tolist()])  # [B, 2]
    return replace(points, xy=points.xy * factors[:, None], sizes=np.broadcast_to(image, points.sizes.shape))


def _same_shape(from_width: float, from_height: float, width: float, height: float) -> bool:
    if abs(math.log(width * from_height / (height * from_width))) <= math.log(_ROUNDED) + 1e-9:
        return True
    # Or the sides were rounded to whole pixels, which counts for thumbnails.
    low = max((width - 1) / from_width, (height - 1) / from_height)
    high = min((width + 1) / from_width, (height + 1) / from_height)
    return low <= high and max(from_width, from_height) > 2 and low > 0
