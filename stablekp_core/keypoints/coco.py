"""COCO keypoint JSON: written, and read as this program, CVAT, Label Studio and other tools write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import KeypointError

if TYPE_CHECKING:
    from .keypoints import Keypoints


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
    """The fields of `Keypoints` from a parsed COCO file; see `Keypoints.from_coco` for what is accepted.

    Skeletons are 1-based in COCO; one that mentions a 0 can only be 0-based and is read so. Annotations
    without keypoints (boxes, polygons) are left out.
    """
    images, annotations, categories = _sections(data)
    chosen, annotations = _choose_category(annotations, categories, category)
    order = {image["id"]: index for index, image in enumerate(images)}
    for annotation in annotations:
        if annotation.get("image_id") not in order:
            raise KeypointError(
                f"annotation {annotation.get('id')!r} belongs to image "
                f"{annotation.get('image_id')!r}, which the file does not list; export the "
                "labels again."
            )
    annotations.sort(key=lambda annotation: order[annotation["image_id"]])  # stable: the file's order within an image
    names = _names(chosen, annotations)
    xy, confidence, occluded = _points(annotations, len(names))
    index = [order[annotation["image_id"]] for annotation in annotations]
    return {
        "xy": xy,
        "confidence": confidence,
        "occluded": occluded,
        "names": names,
        "skeleton": _skeleton(chosen),
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
        categories = [c for c in categories if c.get("name") == name]
        if not categories:
            raise KeypointError(f"the labels have no category {name!r}; use one that the file lists.")
    with_points = [a for a in annotations if a.get("keypoints") and not a.get("iscrowd")]  # a crowd is no figure
    used = [c for c in categories if any(a.get("category_id") == c["id"] for a in with_points)]
    declared = [c for c in categories if c.get("keypoints")]
    candidates = used or declared  # a file may list keypoints that nobody has drawn yet
    if not candidates:
        raise KeypointError("the labels hold no keypoints; draw points and export them as COCO Keypoints.")
    if len(candidates) > 1:
        names = ", ".join(str(c.get("name")) for c in candidates)
        raise KeypointError(f"the labels hold keypoints of several categories ({names}); say which one to read.")
    return candidates[0], [a for a in with_points if a.get("category_id") == candidates[0]["id"]]


def _names(category: dict, annotations: list[dict]) -> tuple[str, ...]:
    names = tuple(str(name) for name in category.get("keypoints") or ())
    if not names and annotations:  # some exporters leave the names out
        names = tuple(f"kp{i}" for i in range(len(annotations[0]["keypoints"]) // 3))
    return names


def _skeleton(category: dict) -> tuple[tuple[int, int], ...]:
    edges = category.get("skeleton") or ()
    try:
        pairs = [(int(a), int(b)) for a, b in edges]
    except (TypeError, ValueError) as error:
        raise KeypointError(f"the skeleton {edges!r} is not a list of pairs of numbers; export it again.") from error
    base = 0 if any(0 in pair for pair in pairs) else 1
    return tuple((a - base, b - base) for a, b in pairs)


def _points(annotations: list[dict], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(xy [B, K, 2], confidence [B, K], occluded [B, K]) of B annotations."""
    xy = np.zeros((len(annotations), count, 2))
    confidence, occluded = np.zeros((len(annotations), count)), np.zeros((len(annotations), count))
    for row, annotation in enumerate(annotations):
        who = f"annotation {annotation.get('id')!r}"
        flat = _numbers(annotation["keypoints"], 3 * count, f"{who}: keypoints")
        points = flat.reshape(count, 3)
        xy[row] = points[:, :2]
        if annotation.get("scores") is None:
            confidence[row] = points[:, 2] > 0
        else:
            confidence[row] = _numbers(annotation["scores"], count, f"{who}: scores")
        if annotation.get("hidden") is not None:
            occluded[row] = _numbers(annotation["hidden"], count, f"{who}: hidden")
    return xy, confidence, occluded


def _numbers(values: Any, length: int, what: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KeypointError(f"{what} are not numbers ({error}); export the labels again.") from error
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
