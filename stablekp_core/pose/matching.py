"""Matching the rows of two sets of keypoints that show the same figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.names import match_names
from ..keypoints.sizes import scale_to_image


def pair_rows(keypoints: Keypoints, labels: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """The rows of keypoints and of labels that show the same figures, pair by pair: two int64 [B].

    Rows pair by image name, see `match_names`. Where one side has no names, image i of the labels is
    image i of the keypoints. Several figures in one image pair by how near their centres are. Raises
    KeypointError when names have nothing in common or may mean two images, or there are labels of more images.
    """
    ours, theirs = _by_image(keypoints, "keypoints"), _by_image(labels, "labels")
    if "" in ours or "" in theirs:
        ours, theirs = _by_index(keypoints), _by_index(labels)
        if theirs and max(theirs) >= keypoints.num_images:
            raise KeypointError(
                f"there are labels of image {max(theirs)} but keypoints of {keypoints.num_images} images, and no image "
                f"names to go by; give the same images in the same order, or image names."
            )
        match = {image: image for image in theirs}
    else:
        match = match_names(ours, theirs)
        if len(labels) and not match:
            raise KeypointError(
                f"no labelled image (such as {next(iter(theirs))}) is among the images with keypoints (such as "
                f"{next(iter(ours), 'none')}); give labels of the same images."
            )
    labels_of = {image: theirs[other] for other, image in match.items()}
    left, right = [], []
    for image, rows in ours.items():
        for a, b in _nearest_pairs(keypoints, rows, labels, labels_of.get(image, [])):
            left.append(a)
            right.append(b)
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)


def _by_image(points: Keypoints, what: str) -> dict[Any, list[int]]:
    """Rows by the name of their image. Two images of one name cannot be told apart."""
    groups: dict[Any, list[int]] = {}
    for row, name in enumerate(points.images):
        groups.setdefault(name, []).append(row)
    for name, rows in groups.items():
        if name and len(set(points.image_index[rows].tolist())) > 1:
            raise KeypointError(f"two images of the {what} are named {name}; name them with their folders.")
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


def label_scales(sizes: np.ndarray, labels: Keypoints, rows: np.ndarray) -> np.ndarray:
    """float64 [B, 2]: factors from pixels of `rows` of the labels to pixels of images of `sizes` [B, 2]; see
    `scale_to_image`, which refuses labels of another shape."""
    return np.array(
        [
            scale_to_image(labels.sizes[row].tolist(), size, f"the labels of {labels.images[row] or f'row {row}'}")
            for size, row in zip(sizes.tolist(), rows, strict=True)
        ]
    ).reshape(-1, 2)
