"""Which row of one set of keypoints shows the same figure as which row of another."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints


def pair_rows(keypoints: Keypoints, labels: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of keypoints and of labels show the same figure: two int64 [B].

    Rows pair by image name without folder and suffix. Where one side has no names, image i of the labels is
    image i of the keypoints. Several figures in one image pair by how near their centres are. Raises
    KeypointError when names have nothing in common, or there are labels of more images.
    """
    ours, theirs = _by_image(keypoints), _by_image(labels)
    if "" in ours or "" in theirs:
        ours, theirs = _by_index(keypoints), _by_index(labels)
        if not set(theirs) <= set(ours):
            raise KeypointError(
                f"there are labels of image {max(theirs)} but keypoints of {len(ours)} images, and no image "
                f"names to go by; give the same images in the same order, or image names."
            )
    elif len(labels) and not set(ours) & set(theirs):
        raise KeypointError(
            f"no labelled image (such as {next(iter(theirs))}) is among the images with keypoints (such as "
            f"{next(iter(ours))}); give labels of the same images."
        )
    left, right = [], []
    for image, rows in ours.items():
        for a, b in _nearest_pairs(keypoints, rows, labels, theirs.get(image, [])):
            left.append(a)
            right.append(b)
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)


def _by_image(points: Keypoints) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for row, name in enumerate(points.images):
        last = name.replace("\\", "/").rsplit("/", 1)[-1]
        groups.setdefault(last.rsplit(".", 1)[0] if "." in last else last, []).append(row)
    return groups


def _by_index(points: Keypoints) -> dict[Any, list[int]]:
    return {int(i): np.flatnonzero(points.image_index == i).tolist() for i in np.unique(points.image_index)}


def _nearest_pairs(a: Keypoints, a_rows: list[int], b: Keypoints, b_rows: list[int]) -> list[tuple[int, int]]:
    options = sorted((float(np.linalg.norm(_middle(a, i) - _middle(b, j))), i, j) for i in a_rows for j in b_rows)
    pairs: list[tuple[int, int]] = []
    for _, i, j in options:
        if all(i != p and j != q for p, q in pairs):
            pairs.append((i, j))
    return sorted(pairs)


def _middle(points: Keypoints, row: int) -> np.ndarray:
    """Centre of a row's known points in units of its image's sides."""
    known = points.confidence[row] > 0
    xy = points.xy[row][known] if known.any() else points.xy[row]
    return xy.mean(axis=0) / points.sizes[row]


def check_aspect(sizes: np.ndarray, label_sizes: np.ndarray, labels: Keypoints) -> None:
    """Labels may be in pixels of a resized image, but not of one that was padded or cropped."""
    ratio = (sizes[:, 0] / sizes[:, 1]) / (label_sizes[:, 0] / label_sizes[:, 1])
    wrong = np.flatnonzero(np.abs(np.log(ratio)) > np.log(1.15))
    if len(wrong):
        i = int(wrong[0])
        raise KeypointError(
            f"a labelled canvas is {label_sizes[i, 0]}x{label_sizes[i, 1]} but its image is {sizes[i, 0]}x"
            f"{sizes[i, 1]}; labels must be made on the whole image, not on a cropped or padded one."
        )
