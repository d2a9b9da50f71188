"""Reading POSE_KEYPOINT, AP-10K and COCO poses, whoever wrote them, as keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from .formats import AP10K, OPENPOSE, PoseFormat

# OpenPose's 25-point body has a hip centre at 8 and feet at the end; these are its 18 points.
_BODY25_POINTS = 25
_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)


def read_pose(source: Any, images: tuple[str, ...] | None = None) -> Keypoints:
    """Poses of any of the three kinds as `Keypoints` in pixels of their canvas; one row per figure.

    source: a POSE_KEYPOINT or AP-10K list (or the dict of one image), a COCO keypoint dict, JSON text of one
    of these, or the path of such a file. images: names of the images, when they are known. Coordinates that
    all lie in 0..1 are taken as shares of the canvas. A confidence of 0 marks a missing point. Raises
    KeypointError for anything else.
    """
    data = _load(source)
    if isinstance(data, dict) and "annotations" in data:
        return Keypoints.from_coco(data)
    frames = data if isinstance(data, list) else [data]
    if not frames or not all(isinstance(frame, dict) for frame in frames):
        raise KeypointError(
            "these are no poses; give a POSE_KEYPOINT or AP-10K list with one entry per image, or COCO keypoints."
        )
    kinds = {"animals" if "animals" in frame else "people" if "people" in frame else "" for frame in frames}
    if len(kinds) != 1 or "" in kinds:
        raise KeypointError(
            "an entry has neither people nor animals, or the list mixes both; give POSE_KEYPOINT or AP-10K "
            "of one kind, or COCO keypoints."
        )
    pose = AP10K if kinds == {"animals"} else OPENPOSE
    if images is not None and len(images) != len(frames):
        raise KeypointError(f"{len(images)} image names were given for poses of {len(frames)} images; give one each.")
    return _rows(frames, pose, images)


def _load(source: Any) -> Any:
    if isinstance(source, Path) or (isinstance(source, str) and source.lstrip()[:1] not in ("[", "{")):
        try:
            source = Path(source).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise KeypointError(f"{source} cannot be read ({error}); give a JSON file of poses.") from error
    if isinstance(source, str):
        try:
            return json.loads(source)
        except json.JSONDecodeError as error:
            raise KeypointError(f"the poses are not JSON ({error}); give POSE_KEYPOINT, AP-10K or COCO.") from error
    return source


def _rows(frames: list[dict], pose: PoseFormat, images: tuple[str, ...] | None) -> Keypoints:
    points, sizes, index, names = [], [], [], []
    for i, frame in enumerate(frames):
        size = _canvas(frame, i)
        for figure in frame["animals" if pose is AP10K else "people"] or ():
            flat = figure.get("pose_keypoints_2d") if isinstance(figure, dict) else figure
            row = _points(flat, len(pose.joints), i)
            points.append(_in_pixels(row, size))
            sizes.append(size)
            index.append(i)
            names.append(images[i] if images else str(frame.get("file_name", "")))
    array = np.array(points, dtype=np.float64).reshape(-1, len(pose.joints), 3)
    there = array[..., 2] > 0
    return Keypoints(
        xy=np.where(there[..., None], array[..., :2], 0.0),
        confidence=np.clip(np.where(there, array[..., 2], 0.0), 0.0, 1.0),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        names=pose.joints,
        skeleton=pose.skeleton,
        images=tuple(names),
        image_index=np.array(index, dtype=np.int64),
    )


def _canvas(frame: dict, image: int) -> tuple[int, int]:
    try:
        width, height = int(frame["canvas_width"]), int(frame["canvas_height"])
    except (KeyError, TypeError, ValueError) as error:
        raise KeypointError(
            f"the pose of image {image} has no canvas_width and canvas_height ({error!r}); add them in pixels."
        ) from error
    if min(width, height) < 1:
        raise KeypointError(f"the canvas of image {image} is {width}x{height}; both must be positive.")
    return width, height


def _points(flat: Any, count: int, image: int) -> np.ndarray:
    """[count, 3] from a flat or nested list; a body that was not found may be None."""
    if flat is None:
        return np.zeros((count, 3))
    try:
        values = np.array([[0.0] * 3 if p is None else p for p in flat] if _nested(flat) else flat, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KeypointError(f"a pose of image {image} is not a list of numbers ({error}).") from error
    if values.size == 3 * _BODY25_POINTS and count == len(_BODY25):
        values = values.reshape(-1, 3)[list(_BODY25)]
    if values.size != 3 * count or not np.isfinite(values).all():
        raise KeypointError(
            f"a pose of image {image} has {values.size} numbers, but {3 * count} finite ones (x, y, "
            f"confidence of {count} points) are needed; free keypoints must be mapped first."
        )
    return values.reshape(count, 3)


def _nested(flat: Any) -> bool:
    return any(point is None or isinstance(point, (list, tuple)) for point in flat)


def _in_pixels(row: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points as they are, or times the canvas where all of them lie in 0..1 (no figure does in pixels)."""
    there = row[:, 2] > 0
    if there.any() and 0 <= row[there, :2].min() and row[there, :2].max() <= 1.0 and min(size) > 1:
        return row * np.array([size[0], size[1], 1.0])
    return row
