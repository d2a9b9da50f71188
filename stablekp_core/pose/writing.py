"""Named poses: writing POSE_KEYPOINT (OpenPose-18), AP-10K animals and named COCO, and a map made by hand.

In between a pose is ordinary `Keypoints` whose names are joints, in the order of the pose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from .formats import AP10K, OPENPOSE, POSES, PoseFormat, joint_name, pose_format
from .reading import read_pose

__all__ = ["POSES", "map_by_hand", "parse_mapping", "read_pose", "to_ap10k", "to_named_coco", "to_pose"]
__all__ += ["to_pose_keypoint"]

POSE_THRESHOLD = 0.3  # confidence from which a joint is drawn; pose files hold yes or no, nothing between
_FACE, _HAND, _FOOT = 70, 21, 6


def to_pose(keypoints: Keypoints, target: str | PoseFormat) -> Keypoints:
    """Keypoints whose names are joints -> all joints of "openpose", "ap10k" or "coco17", in its order.

    Joints are found by name in any common spelling; a neck that is missing is the middle of the shoulders (its
    confidence the lower of theirs); other missing joints get confidence 0 at (0, 0). Raises KeypointError
    when fewer than 3 joints are among the names.
    """
    pose = pose_format(target)
    index: dict[str, int] = {}
    for i, name in enumerate(keypoints.names):
        index.setdefault(joint_name(name), i)
    sources: dict[int, tuple[int, ...]] = {j: (index[n],) for j, n in enumerate(pose.joints) if n in index}
    if len(sources) < min(3, keypoints.num_keypoints):
        raise KeypointError(
            f"keypoints named {', '.join(keypoints.names[:4])}… are not joints of {pose.name}; fit and apply "
            f"a landmark map, or map them by hand, first."
        )
    for name, parts in pose.means:
        if name not in index and all(part in index for part in parts):
            sources[pose.joints.index(name)] = tuple(index[part] for part in parts)
    return _assemble(keypoints, pose, sources)


def map_by_hand(keypoints: Keypoints, text: str, target: str | PoseFormat = "openpose") -> Keypoints:
    """Keypoints -> a pose, by a table of lines `joint = keypoint`; see `parse_mapping`."""
    pose = pose_format(target)
    return _assemble(keypoints, pose, parse_mapping(text, keypoints.names, pose))


def parse_mapping(text: str, names: Sequence[str], target: str | PoseFormat = "openpose") -> dict[int, tuple[int, ...]]:
    """Joint index -> keypoint indices, from lines (or parts between commas) such as `left wrist = 4`.

    Left of `=` is a joint of the target pose in any common spelling, or its number; right is a keypoint's name
    or number, or several joined by `+`, whose middle is taken. `#` starts a comment. Joints that are not
    mentioned are missing. Raises KeypointError with the line for anything else, and when nothing is mapped.
    """
    pose = pose_format(target)
    mapping: dict[int, tuple[int, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for part in line.split("#", 1)[0].split(","):
            if not part.strip():
                continue
            joint_text, equals, sources = part.partition("=")
            if not equals:
                raise KeypointError(f"line {number}, {part.strip()!r}, is not of the form 'joint = keypoint'.")
            joint = _joint_index(joint_text.strip(), pose, number)
            if joint in mapping:
                raise KeypointError(f"line {number} maps {pose.joints[joint]} a second time; keep one line for it.")
            mapping[joint] = tuple(_source_index(word.strip(), names, number) for word in sources.split("+"))
    if not mapping:
        raise KeypointError(
            f"no joint is mapped; write lines such as '{pose.joints[0]} = 0', one for each joint there is."
        )
    return mapping


def to_pose_keypoint(
    keypoints: Keypoints,
    threshold: float = POSE_THRESHOLD,
    canvas_sizes: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """POSE_KEYPOINT: one plain dict per image, in the form every consumer accepts.

    Exactly 18 body points [x, y, c] as one flat list of floats in pixels of the canvas; c is 1.0, or 0.0 with
    x = y = 0 for joints under `threshold`; face (70) and hands (21 each) zero-filled. People without any
    joint are left out. keypoints: names must be joints (see `to_pose`); rows with the same image_index are
    people of one image. canvas_sizes: (width, height) of every image, where the keypoints do not know those of images
    without rows.
    """
    pose = to_pose(keypoints, OPENPOSE)
    result = []
    for image, (width, height) in enumerate(_canvases(pose, canvas_sizes)):
        people = [
            {
                "pose_keypoints_2d": body,
                "face_keypoints_2d": [0.0] * (3 * _FACE),
                "hand_left_keypoints_2d": [0.0] * (3 * _HAND),
                "hand_right_keypoints_2d": [0.0] * (3 * _HAND),
                "foot_keypoints_2d": [0.0] * (3 * _FOOT),
            }
            for body in _flat_rows(pose, image, threshold)
        ]
        result.append({"people": people, "canvas_width": width, "canvas_height": height})
    return result


def to_ap10k(
    keypoints: Keypoints,
    threshold: float = POSE_THRESHOLD,
    canvas_sizes: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """AP-10K animal poses: one plain dict per image, `animals` a list of 17 points [x, y, c] each.

    Points, threshold and arguments are as in `to_pose_keypoint`.
    """
    pose = to_pose(keypoints, AP10K)
    result = []
    for image, (width, height) in enumerate(_canvases(pose, canvas_sizes)):
        animals = [[flat[i : i + 3] for i in range(0, len(flat), 3)] for flat in _flat_rows(pose, image, threshold)]
        result.append({"version": "ap10k", "animals": animals, "canvas_width": width, "canvas_height": height})
    return result


def to_named_coco(keypoints: Keypoints, target: str | PoseFormat | None = None) -> dict[str, Any]:
    """COCO keypoint annotations with the keypoints' own names, or as all joints of `target`."""
    return (keypoints if target is None else to_pose(keypoints, target)).to_coco()


def _assemble(keypoints: Keypoints, pose: PoseFormat, sources: dict[int, tuple[int, ...]]) -> Keypoints:
    count = len(pose.joints)
    xy = np.zeros((len(keypoints), count, 2), dtype=np.float64)
    confidence, occluded = np.zeros((len(keypoints), count)), np.zeros((len(keypoints), count))
    for joint, points in sources.items():
        chosen = list(points)
        confidence[:, joint] = keypoints.confidence[:, chosen].min(axis=1)
        occluded[:, joint] = keypoints.occluded[:, chosen].max(axis=1)
        known = confidence[:, joint] > 0
        xy[known, joint] = keypoints.xy[:, chosen].mean(axis=1)[known]
    return replace(
        keypoints,
        xy=xy,
        confidence=confidence,
        occluded=occluded,
        names=pose.joints,
        skeleton=pose.skeleton,
        colors=(),
    )


def _canvases(pose: Keypoints, sizes: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """(width, height) of every image; one of unknown size takes the first row's."""
    count = pose.num_images
    if sizes is not None:
        if len(sizes) < count:
            raise KeypointError(
                f"{len(sizes)} canvas sizes were given, but there are keypoints on {count} images; give all sizes."
            )
        return [(int(w), int(h)) for w, h in sizes]
    first = tuple(pose.sizes[0].tolist()) if len(pose) else (0, 0)
    return [size if all(size) else first for _, size in pose.image_list()]


def _flat_rows(pose: Keypoints, image: int, threshold: float) -> list[list[float]]:
    """x, y, c of the joints of each row of an image that has any."""
    flats = []
    for row in np.flatnonzero(pose.image_index == image):
        there = (pose.confidence[row] >= threshold) & (pose.confidence[row] > 0)
        if there.any():
            points = np.column_stack([pose.xy[row], np.ones(len(there))]) * there[:, None]
            flats.append([float(value) for value in points.reshape(-1)])
    return flats


def _joint_index(text: str, pose: PoseFormat, line: int) -> int:
    if re.fullmatch(r"\d+", text) and int(text) < len(pose.joints):
        return int(text)
    name = joint_name(text)
    if name in pose.joints:
        return pose.joints.index(name)
    raise KeypointError(f"line {line}: {text!r} is no joint of {pose.name}; its joints are {', '.join(pose.joints)}.")


def _source_index(text: str, names: Sequence[str], line: int) -> int:
    if text in names:
        return list(names).index(text)
    if re.fullmatch(r"\d+", text) and int(text) < len(names):
        return int(text)
    raise KeypointError(
        f"line {line}: {text!r} is no keypoint; give a name ({', '.join(names[:4])}…) or a number from 0 to "
        f"{len(names) - 1}."
    )
