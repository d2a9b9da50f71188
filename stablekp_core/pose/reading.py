"""Reading POSE_KEYPOINT, AP-10K and COCO poses, whoever wrote them, as keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KeypointError
from ..images.files import scan_folder
from ..keypoints.keypoints import EmptyImage, Keypoints
from ..keypoints.label_files import load_json, parse_json
from .formats import AP10K, OPENPOSE, PoseFormat

# OpenPose's 25-point body has a hip centre at 8 and feet at the end; these are its 18 points.
_BODY25_POINTS = 25
_OUTSIDE = 0.5  # how far beyond its frame a figure in shares of the canvas may reach
_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)


def read_pose(
    source: Any,
    images: tuple[str, ...] | None = None,
    *,
    category: str | None = None,
    canvas: tuple[int, int] | None = None,
) -> Keypoints:
    """Read poses of any of the three kinds as `Keypoints` in pixels of their canvas; one row per figure.

    source: a POSE_KEYPOINT or AP-10K list (or the dict of one image), a COCO keypoint dict, JSON text of one
    of these, the path of such a file, or a folder of OpenPose's own files, one a frame. images: names of the images,
    when they are known. category: of COCO labels with several. canvas: (width, height) of the images, for files that do
    not say. Coordinates that all lie in about 0..1 are taken as shares of the canvas. A confidence of 0 marks a missing
    point. Raises KeypointError for anything else.
    """
    data = _load(source)
    if isinstance(data, dict) and "annotations" in data:
        return Keypoints.from_coco(data, category)
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
    return _rows(frames, pose, images, canvas)


def _load(source: Any) -> Any:
    wanted = "a JSON file of poses (POSE_KEYPOINT, AP-10K or COCO)"
    if isinstance(source, Path) or (isinstance(source, str) and source.lstrip()[:1] not in ("[", "{")):
        path = Path(source)
        if not path.is_dir():
            return load_json(path, wanted)
        files = [file for file in scan_folder(path)[1] if file.suffix.lower() == ".json"]
        frames = [load_json(file, wanted) for file in files]
        for file, frame in zip(files, frames, strict=True):
            if not isinstance(frame, dict) or "people" not in frame:
                raise KeypointError(f"{file.name} is not one of OpenPose's files, one a frame; take it out of {path}.")
            frame.setdefault("file_name", file.stem.removesuffix("_keypoints"))
        return frames
    return parse_json(source, "the text", wanted) if isinstance(source, str) else source


def _rows(frames: list[dict], pose: PoseFormat, images: tuple[str, ...] | None, canvas) -> Keypoints:
    points, sizes, index, names, empty = [], [], [], [], []
    for i, frame in enumerate(frames):
        size, name = _canvas(frame, i, canvas), images[i] if images else str(frame.get("file_name", ""))
        empty.append(EmptyImage(i, name, *size))
        for figure in frame["animals" if pose is AP10K else "people"] or ():
            flat = figure.get("pose_keypoints_2d") if isinstance(figure, dict) else figure
            points.append(_points(flat, len(pose.joints), i))
            sizes.append(size)
            index.append(i)
            names.append(name)
    array = _in_pixels(np.array(points, dtype=np.float64).reshape(-1, len(pose.joints), 3), sizes)
    there = array[..., 2] > 0
    return Keypoints(
        xy=np.where(there[..., None], array[..., :2], 0.0),
        confidence=np.clip(np.where(there, array[..., 2], 0.0), 0.0, 1.0),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        names=pose.joints,
        skeleton=pose.skeleton,
        images=tuple(names),
        image_index=np.array(index, dtype=np.int64),
        num_images=len(frames),
        empty_images=tuple(empty),
    )


def _canvas(frame: dict, image: int, canvas: tuple[int, int] | None) -> tuple[int, int]:
    if canvas is not None and "canvas_width" not in frame:
        return canvas
    try:
        width, height = int(frame["canvas_width"]), int(frame["canvas_height"])
    except (KeyError, TypeError, ValueError) as error:
        raise KeypointError(
            f"the pose of image {image} does not say how large its image is (canvas_width and canvas_height), as "
            "OpenPose's own files; give the images' size in pixels (--canvas WIDTH HEIGHT)."
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
    if values.size == 3 * count:
        values = values.reshape(count, 3)
        missing = ~(np.nan_to_num(values[:, 2]) > 0)
        values[missing] = 0.0  # whatever x and y are
    if values.size != 3 * count or not np.isfinite(values).all():
        raise KeypointError(
            f"a pose of image {image} has {values.size} numbers, but {3 * count} finite ones (x, y, "
            f"confidence of {count} points) are needed; free keypoints must be mapped first."
        )
    return values.reshape(count, 3)


def _nested(flat: Any) -> bool:
    return any(isinstance(point, (list, tuple)) for point in flat)


def _in_pixels(points: np.ndarray, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Points [P, K, 3] as they are, or times the canvas where all of them lie in 0..1, or somewhat outside as a figure
    may that is cut off by the frame (no figure is that small in pixels)."""
    there = points[..., 2] > 0
    if there.any() and min(map(min, sizes)) > 8:
        xy = points[there][:, :2]
        if xy.min() > -_OUTSIDE and xy.max() < 1 + _OUTSIDE:
            points = points.copy()
            points[..., :2] *= np.array(sizes, dtype=np.float64)[:, None]
    return points
