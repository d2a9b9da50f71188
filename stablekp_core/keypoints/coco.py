"""COCO keypoint JSON: written, and read as this program, CVAT, Label Studio and other tools write it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import KeypointError

if TYPE_CHECKING:
    from .keypoints import Keypoints

_log = logging.getLogger(__name__)


def write_coco(keypoints: Keypoints, threshold: float) -> dict[str, Any]:
    """See `Keypoints.to_coco`; images are numbered from 1 by their image_index."""
    usual = tuple(keypoints.sizes[0].tolist()) if len(keypoints) else (1, 1)
    images = [
        dict(
            zip(("id", "file_name", "width", "height"), (index + 1, name, *(size if all(size) else usual)), strict=True)
        )
        for index, (name, size) in enumerate(keypoints.image_list())
    ]
    category = {
        "id": 1,
        "name": "object",
        "supercategory": "object",
        "keypoints": list(keypoints.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoints.skeleton],
    }
    if keypoints.colors:
        category["keypoint_colors"] = [list(color) for color in keypoints.colors]
    annotations = [_annotation(keypoints, row, threshold) for row in range(len(keypoints))]
    return {"images": images, "annotations": annotations, "categories": [category]}


def _annotation(keypoints: Keypoints, row: int, threshold: float) -> dict[str, Any]:
    xy, confidence, occluded = keypoints.xy[row], keypoints.confidence[row], keypoints.occluded[row]  # [K, 2], [K], [K]
    v = np.where((confidence >= threshold) & ~keypoints.is_occluded[row], 2, 1) * (confidence > 0)
    points = [(short_float(x), short_float(y), int(seen)) for (x, y), seen in zip(xy, v, strict=True)]
    box = [0.0, 0.0, 0.0, 0.0]
    if v.any():
        low, high = xy[v > 0].min(axis=0), xy[v > 0].max(axis=0)
        box = [short_float(value) for value in (*low, *(high - low))]
    extra = {"hidden": [short_float(h) for h in occluded]} if keypoints.occluded.any() else {}
    return {
        "id": row + 1,
        "image_id": int(keypoints.image_index[row]) + 1,
        "category_id": 1,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": int((v > 0).sum()),
        "scores": [short_float(c) for c in confidence],
        **extra,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }


def read_coco(data: Any, category: str | None = None) -> dict[str, Any]:
    """The fields of `Keypoints` from a parsed COCO file; see `Keypoints.from_coco` for what is accepted and refused.

    Skeletons are 1-based in COCO; one that mentions a 0 can only be 0-based and is read so. Annotations
    without keypoints (boxes, polygons) are left out.
    """
    images, annotations, categories = _sections(data)
    chosen, annotations = _choose_category(annotations, categories, category)
    order = {str(image["id"]): index for index, image in enumerate(images)}  # some tools write ids as text
    for annotation in annotations:
        if str(annotation.get("image_id")) not in order:
            raise KeypointError(
                f"annotation {annotation.get('id')!r} belongs to image "
                f"{annotation.get('image_id')!r}, which the file does not list; export the "
                "labels again."
            )
    annotations.sort(
        key=lambda annotation: order[str(annotation["image_id"])]
    )  # stable: the file's order within an image
    names = _names(chosen, annotations)
    xy, confidence, occluded = _points(annotations, len(names))
    index = [order[str(annotation["image_id"])] for annotation in annotations]
    return {
        "xy": xy,
        "confidence": confidence,
        "occluded": occluded,
        "names": names,
        "skeleton": _skeleton(chosen, len(names)),
        "sizes": np.array([_size(images[i]) for i in index], dtype=np.int64).reshape(-1, 2),
        "images": tuple(str(images[i].get("file_name", "")) for i in index),
        "colors": tuple(tuple(color) for color in chosen.get("keypoint_colors") or ()),
        "image_index": np.array(index, dtype=np.int64),
        "num_images": len(images),
        "empty_images": _empty(images, set(index)),
    }


def _empty(images: list[dict], shown: set[int]) -> tuple[tuple[int, str, int, int], ...]:
    """(index, name, width, height) of the images without an annotation; 0 for a size that the file does not give."""
    sizes = [[image.get(side) for side in ("width", "height")] for image in images]
    return tuple(
        (
            i,
            str(image.get("file_name", "")),
            *(int(s) if isinstance(s, (int, float)) and s > 0 else 0 for s in sizes[i]),
        )
        for i, image in enumerate(images)
        if i not in shown
    )


def _sections(data: Any) -> tuple[list[dict], list[dict], list[dict]]:
    sections = []
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise KeypointError(
                f"the file has no list of {key}, so it is not COCO keypoint JSON; export the labels as COCO Keypoints."
            )
        sections.append(entries)
    for key, entries in (("images", sections[0]), ("categories", sections[2])):
        ids = [entry.get("id") for entry in entries]
        if None in ids or len(set(map(str, ids))) != len(ids):
            raise KeypointError(f"two {key} share one id, or one has none; export the labels again.")
    return sections[0], sections[1], sections[2]


def _choose_category(annotations: list[dict], categories: list[dict], name: str | None) -> tuple[dict, list[dict]]:
    """The category whose keypoints are read, and its annotations that have keypoints."""
    if name is not None:
        listed = [str(c.get("name")) for c in categories]
        categories = [c for c in categories if str(c.get("name")) == name]
        if not categories:
            raise KeypointError(f"the labels have no category {name!r}, but {', '.join(listed)}; use one of these.")
    with_points = [a for a in annotations if a.get("keypoints") and not a.get("iscrowd")]  # a crowd is no figure
    ids = {str(a.get("category_id")) for a in with_points}
    used = [c for c in categories if str(c["id"]) in ids]
    declared = [c for c in categories if c.get("keypoints")]
    candidates = used or declared  # a file may list keypoints that nobody has drawn yet
    if not candidates:
        raise KeypointError("the labels hold no keypoints; draw points and export them as COCO Keypoints.")
    if len({tuple(c.get("keypoints") or ()) for c in candidates}) > 1:  # many kinds of one skeleton are one: AP-10K
        names = ", ".join(str(c.get("name")) for c in candidates)
        raise KeypointError(
            f"the labels hold keypoints of several categories ({names}); say which one to read (--category NAME, or "
            "the category of the node)."
        )
    taken = {str(c["id"]) for c in candidates}
    return candidates[0], [a for a in with_points if str(a.get("category_id")) in taken]


def _names(category: dict, annotations: list[dict]) -> tuple[str, ...]:
    names = tuple(str(name) for name in category.get("keypoints") or ())
    if not names and annotations:  # some exporters leave the names out
        names = tuple(f"kp{i}" for i in range(len(_flat(annotations[0]["keypoints"])) // 3))
    return names


def _skeleton(category: dict, count: int) -> tuple[tuple[int, int], ...]:
    """0-based pairs of the `count` points; lines that cannot be (CrowdPose has another set's) are left out."""
    edges = category.get("skeleton") or ()
    try:
        pairs = [(int(a), int(b)) for a, b in edges]
    except (TypeError, ValueError) as error:
        raise KeypointError(f"the skeleton {edges!r} is not a list of pairs of numbers; export it again.") from error
    base = 0 if any(0 in pair for pair in pairs) else 1
    good = [(a - base, b - base) for a, b in pairs if 0 <= a - base < count and 0 <= b - base < count and a != b]
    if len(good) < len(pairs):
        first = next([a, b] for a, b in pairs if (a - base, b - base) not in good)
        _log.warning(
            "%d of %d lines of the skeleton of category %r join points that do not exist, such as %s, where points "
            "count from %d to %d; they are left out.",
            *(len(pairs) - len(good), len(pairs), str(category.get("name")), first, base, base + count - 1),
        )
    return tuple(good)


def _points(annotations: list[dict], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(xy [B, K, 2], confidence [B, K], occluded [B, K]) of B annotations."""
    xy = np.zeros((len(annotations), count, 2))
    confidence, occluded = np.zeros((len(annotations), count)), np.zeros((len(annotations), count))
    for row, annotation in enumerate(annotations):
        who = f"annotation {annotation.get('id')!r}"
        points = _numbers(_flat(annotation["keypoints"]), 3 * count, f"{who}: keypoints").reshape(count, 3)
        labelled = np.nan_to_num(points[:, 2]) > 0
        lost = labelled & ~np.isfinite(points[:, :2]).all(1)
        if lost.any():
            raise KeypointError(
                f"{who}: keypoint {int(lost.argmax())} is labelled (v = {points[lost.argmax(), 2]:g}) but has no place "
                "(its x or y is not a number); export the labels again, or set its v to 0."
            )
        xy[row] = np.where(np.isfinite(points[:, :2]).all(1)[:, None], points[:, :2], 0.0)
        confidence[row] = labelled
        if annotation.get("scores"):  # null and [] say nothing
            scores = _numbers(annotation["scores"], count, f"{who}: scores")
            confidence[row] = np.where(labelled, scores, np.nan_to_num(scores))
        if annotation.get("hidden"):
            occluded[row] = _numbers(annotation["hidden"], count, f"{who}: hidden")
    return xy, confidence, occluded


def _flat(values: Any) -> Any:
    """Keypoints as one flat list; some tools write a list of [x, y, v]."""
    if isinstance(values, list) and values and all(isinstance(v, (list, tuple)) and len(v) == 3 for v in values):
        return [number for point in values for number in point]
    return values


def _numbers(values: Any, length: int, what: str) -> np.ndarray:
    """float64 [length]; null is nan."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KeypointError(f"{what} are not numbers ({error}); export the labels again.") from error
    if array.ndim != 1:
        raise KeypointError(f"{what} are nested as {list(array.shape)}; write x, y, v one after the other.")
    if array.shape != (length,):
        raise KeypointError(f"{what} has {array.size} numbers, but {length} are needed; export the labels again.")
    return array


def _size(image: dict) -> tuple[int, int]:
    try:
        return int(image["width"]), int(image["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise KeypointError(
            f"image {image.get('file_name', image['id'])!r} has no width and height in the labels; export them again."
        ) from error


def short_float(value: Any) -> float:
    """The shortest decimal that reads back as the same float32, so that files are small and lossless."""
    return float(str(np.float32(value)))
