"""Labels made by hand on a few images, and guesses for the others once a landmark map can be fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.point_edits import KeypointEdits, apply_edits
from ..keypoints.schema import parse_skeleton
from .fitting import MIN_LABELLED, fit_landmark_map
from .landmark_map import LandmarkMap


@dataclass(frozen=True, eq=False)
class Labelling:
    """labels: one row for each labelled image; joints that no one placed have confidence 0. suggested: one row for each
    image, the guesses of `landmarks`, or nothing (confidence 0) while there are too few labels for a map.
    """

    labels: Keypoints
    suggested: Keypoints
    landmarks: LandmarkMap | None
    unused: tuple[str, ...] = ()

    def report(self) -> str:
        """A few lines of text: how much is labelled, and how good the guesses are on images left out."""
        images, joints = len(self.labels), int((self.labels.confidence > 0).sum())
        lines = [f"{joints} joints labelled in {images} of {len(self.suggested)} images"]
        if self.landmarks is not None:
            lines.append(f"guesses for the others by a {self.landmarks.report()}")
        elif images < MIN_LABELLED:
            lines.append(
                f"from {MIN_LABELLED} labelled images on, the others are guessed where keypoints are connected"
            )
        return "\n".join([*lines, *self.unused])


def label_images(
    edits: KeypointEdits,
    sizes: Sequence[tuple[int, int]],
    joints: Sequence[str],
    *,
    skeleton: Sequence[tuple[int, int]] = (),
    images: Sequence[str] = (),
    keypoints: Keypoints | None = None,
) -> Labelling:
    """Labels of images from edits (see `point_edits`) whose points are named as `joints`.

    sizes: (width, height) of every image. images: their file names, where known. keypoints: what was detected on the
    same images; with it and three labelled images, the joints of all images are guessed by the landmark map that
    `fit_landmark_map` fits. A label that is occluded is a label; a deleted one is none.
    Raises KeypointError where there are no joints or no images.
    """
    if not joints or not len(sizes):
        raise KeypointError(
            f"there are {len(joints)} joints to label on {len(sizes)} images; name at least one joint and give an "
            f"image."
        )
    count = len(sizes)
    empty = Keypoints(
        np.zeros((count, len(joints), 2)),
        np.zeros((count, len(joints))),
        np.array(sizes),
        tuple(joints),
        tuple(skeleton),
        tuple(images),
    )
    done = apply_edits(empty, edits)
    labelled = np.flatnonzero((done.keypoints.confidence > 0).any(axis=1))
    labels = done.keypoints.rows(labelled)
    landmarks = _fit(keypoints, labels)
    suggested = empty if landmarks is None else _guess(empty, landmarks.apply(keypoints))
    return Labelling(labels, suggested, landmarks, done.unused)


def joint_list(text: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Joints from text, one a line (or between commas), and edges from lines such as `head - tail` that join two of
    them. `#` starts a comment. Raises KeypointError for a joint named twice or none at all.
    """
    parts = [part.strip() for line in text.splitlines() for part in line.split("#")[0].split(",") if part.strip()]
    names = [part for part in parts if not (_ends(part) and all(end in parts for end in _ends(part)))]
    if not names or len(set(names)) != len(names):
        raise KeypointError(f"the joints {names} must be at least one, each named once; write one name a line.")
    edges = parse_skeleton("\n".join(part for part in parts if part not in names), len(names), names)
    return tuple(names), edges


def _ends(part: str) -> tuple[str, ...]:
    ends = tuple(end.strip() for end in part.split(" - "))
    return ends if len(ends) == 2 else ()


def _fit(keypoints: Keypoints | None, labels: Keypoints) -> LandmarkMap | None:
    """The map, or None while no joint is labelled often enough or nothing was detected."""
    if keypoints is None or not len(keypoints) or not len(labels):
        return None
    if (labels.confidence > 0).sum(axis=0).max() < MIN_LABELLED:
        return None
    return fit_landmark_map(keypoints, labels)


def _guess(empty: Keypoints, named: Keypoints) -> Keypoints:
    """Guesses [B, L] for all images, from landmarks of those that have keypoints (the first figure of each)."""
    rows = {int(image): row for row, image in reversed(list(enumerate(named.image_index)))}
    xy, confidence = empty.xy.copy(), empty.confidence.copy()
    for image in sorted(set(rows) & set(range(len(empty)))):
        row = rows[image]
        xy[image], confidence[image] = named.xy[row] * (empty.sizes[image] / named.sizes[row]), named.confidence[row]
    return replace(empty, xy=xy, confidence=confidence)
