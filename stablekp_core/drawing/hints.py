"""Images that ControlNets understand: OpenPose-18, AP-10K animals, and scribbles for any skeleton.

Colours, order and geometry are those of the images the ControlNets were trained on, so nothing here is
anti-aliased (except scribbles) or scaled: sizes are fixed pixels, draw at the size of the generated image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import KeypointError
from .raster import fill_disc, fill_ellipse, thick_line
from .strokes import FAR

OPENPOSE_POINTS = 18
AP10K_POINTS = 17
_ELLIPSE_HALF_WIDTH = 4
_DOT_RADIUS = 4
_AP10K_THICKNESS = 5  # in OpenCV's count; it covers 7 pixels, in the training images too

# (point, point, RGB), 0-based; a limb is drawn in this colour at 0.6 of its brightness.
OPENPOSE_LIMBS = (
    (1, 2, (255, 0, 0)),
    (1, 5, (255, 85, 0)),
    (2, 3, (255, 170, 0)),
    (3, 4, (255, 255, 0)),
    (5, 6, (170, 255, 0)),
    (6, 7, (85, 255, 0)),
    (1, 8, (0, 255, 0)),
    (8, 9, (0, 255, 85)),
    (9, 10, (0, 255, 170)),
    (1, 11, (0, 255, 255)),
    (11, 12, (0, 170, 255)),
    (12, 13, (0, 85, 255)),
    (1, 0, (0, 0, 255)),
    (0, 14, (85, 0, 255)),
    (14, 16, (170, 0, 255)),
    (0, 15, (255, 0, 255)),
    (15, 17, (255, 0, 170)),
)
# Point j has the colour of limb j; there is one point more than limbs.
OPENPOSE_DOTS = (*(color for _, _, color in OPENPOSE_LIMBS), (255, 0, 85))

# (point, point, RGB), 0-based.
AP10K_LIMBS = (
    (0, 1, (255, 255, 255)),
    (1, 2, (100, 255, 100)),
    (0, 2, (150, 255, 255)),
    (2, 3, (100, 50, 255)),
    (3, 8, (50, 150, 200)),
    (8, 9, (0, 255, 255)),
    (9, 10, (0, 150, 0)),
    (3, 5, (0, 0, 255)),
    (5, 6, (0, 0, 150)),
    (6, 7, (255, 50, 255)),
    (3, 4, (255, 0, 255)),
    (4, 14, (255, 0, 0)),
    (14, 15, (150, 0, 0)),
    (15, 16, (255, 255, 100)),
    (4, 11, (0, 150, 0)),
    (11, 12, (255, 255, 0)),
    (12, 13, (150, 150, 150)),
)


def draw_openpose(people: Any, width: int, height: int) -> np.ndarray:
    """OpenPose-18 hint image, uint8 RGB [height, width, 3] on black.

    people: one [18, 3] of (x, y, c) for each person, or [P, 18, 3], or flat lists of 54 numbers; x, y in
    pixels of the canvas, c > 0 for points that exist. Limbs are filled ellipses of half-width 4 at 0.6 of
    their colour, points are dots of radius 4 over all limbs of their person.
    """
    canvas = _black(width, height)
    for person in _people(people, OPENPOSE_POINTS):
        xy, there = person[:, :2], person[:, 2] > 0
        for a, b, color in OPENPOSE_LIMBS:
            if there[a] and there[b]:
                _limb(canvas, xy[a], xy[b], tuple(int(value * 0.6) for value in color))
        for j, color in enumerate(OPENPOSE_DOTS):
            if there[j]:
                fill_disc(canvas, _pixel(xy[j]), _DOT_RADIUS, color)
    return canvas


def draw_ap10k(animals: Any, width: int, height: int) -> np.ndarray:
    """AP-10K hint image for the animal ControlNet, uint8 RGB [height, width, 3] on black.

    animals: as `people` of `draw_openpose`, with 17 points each (or 51 numbers). Lines of thickness 5, no
    dots.
    """
    canvas = _black(width, height)
    for animal in _people(animals, AP10K_POINTS):
        xy, there = animal[:, :2], animal[:, 2] > 0
        for a, b, color in AP10K_LIMBS:
            if there[a] and there[b]:
                thick_line(canvas, _pixel(xy[a]), _pixel(xy[b]), color, _AP10K_THICKNESS)
    return canvas


def draw_scribble(
    xy: np.ndarray,
    skeleton: Any,
    width: int,
    height: int,
    line_width: int = 3,
    *,
    confidence: np.ndarray | None = None,
    threshold: float = 0.0,
) -> np.ndarray:
    """White anti-aliased skeleton lines on black for scribble, soft edge and line art ControlNets.

    xy: [K, 2] or [P, K, 2] (several figures), pixels of the canvas. skeleton: 0-based pairs. Lines to points
    with confidence (of the shape of xy without its last axis) under `threshold`, or exactly 0, are left out.
    Returns uint8 RGB [height, width, 3]. Raises KeypointError without a skeleton.
    """
    from .overlay import draw_keypoints

    if not len(skeleton):
        raise KeypointError("a scribble needs a skeleton, but these keypoints have none; set or discover edges first.")
    confidence = np.ones(np.shape(xy)[:-1]) if confidence is None else np.asarray(confidence)
    confidence = np.where(confidence > 0, confidence, -1.0)
    white = ((255, 255, 255),) * np.shape(xy)[-2]
    return draw_keypoints(
        None,
        xy,
        confidence,
        canvas="black",
        dots=False,
        numbers=False,
        lines=True,
        outline=False,
        skeleton=skeleton,
        width=line_width,
        threshold=threshold,
        colors=white,
        size=(width, height),
    )


def _black(width: int, height: int) -> np.ndarray:
    if width < 1 or height < 1:
        raise KeypointError(f"a canvas of {width}x{height} pixels was asked for; width and height must be positive.")
    return np.zeros((int(height), int(width), 3), dtype=np.uint8)


def _people(people: Any, points: int) -> np.ndarray:
    """[P, points, 3] float64 from any of the accepted shapes."""
    try:
        array = np.array(people, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KeypointError(f"the poses are not numbers ({error}); give {points} points (x, y, c) each.") from error
    if array.size == 0:
        return array.reshape(0, points, 3)
    if array.shape[-1] == 3 * points:
        array = array.reshape(-1, points, 3)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1:] != (points, 3):
        raise KeypointError(
            f"poses of shape {list(np.shape(people))} were given, but each needs {points} points "
            f"(x, y, c); map the keypoints to this pose first."
        )
    if not np.isfinite(array).all():
        raise KeypointError("a pose holds a value that is not finite; mark a missing point by c = 0.")
    array[..., :2] = np.clip(array[..., :2], -FAR, FAR)
    return array


def _pixel(xy: np.ndarray) -> tuple[int, int]:
    """The pixel a point lies in; pixel (0, 0) covers [0, 1) x [0, 1)."""
    return math.floor(xy[0]), math.floor(xy[1])


def _limb(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, color: tuple[int, ...]) -> None:
    """The ellipse between two points [2], in pixels.

    Centre, half length and degrees are cut to whole numbers only here, as in the programs that drew the training
    images: cutting the points themselves first would move and turn short limbs.
    """
    centre = (int((a[0] + b[0]) / 2), int((a[1] + b[1]) / 2))
    half_length = int(math.hypot(a[0] - b[0], a[1] - b[1]) / 2)
    angle = int(math.degrees(math.atan2(a[1] - b[1], a[0] - b[0])))
    fill_ellipse(canvas, centre, (half_length, _ELLIPSE_HALF_WIDTH), angle, color)
