"""The fixed skeletons that pose tools know: joint names, order, edges, and the many spellings of a joint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..drawing.hints import AP10K_LIMBS, OPENPOSE_LIMBS
from ..errors import KeypointError


@dataclass(frozen=True)
class PoseFormat:
    """A pose: `joints` in the order files list them, 0-based `skeleton`, and `means`, joints that are the
    mean of others where a source does not have them.
    """

    name: str
    joints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    means: tuple[tuple[str, tuple[str, ...]], ...] = ()


_NECK = (("neck", ("left_shoulder", "right_shoulder")),)

OPENPOSE = PoseFormat(
    "openpose",
    (
        "nose",
        "neck",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_eye",
        "left_eye",
        "right_ear",
        "left_ear",
    ),
    tuple((a, b) for a, b, _ in OPENPOSE_LIMBS),
    _NECK,
)
AP10K = PoseFormat(
    "ap10k",
    (
        "left_eye",
        "right_eye",
        "nose",
        "neck",
        "tail_root",
        "left_shoulder",
        "left_elbow",
        "left_front_paw",
        "right_shoulder",
        "right_elbow",
        "right_front_paw",
        "left_hip",
        "left_knee",
        "left_back_paw",
        "right_hip",
        "right_knee",
        "right_back_paw",
    ),
    tuple((a, b) for a, b, _ in AP10K_LIMBS),
    _NECK,
)
COCO17 = PoseFormat(
    "coco17",
    (
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    (
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
)
POSES = {pose.name: pose for pose in (OPENPOSE, AP10K, COCO17)}

_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
_PARTS = {
    "sho": "shoulder",
    "elb": "elbow",
    "wri": "wrist",
    "kne": "knee",
    "ank": "ankle",
    "fpaw": "front_paw",
    "f_paw": "front_paw",
    "forepaw": "front_paw",
    "bpaw": "back_paw",
    "b_paw": "back_paw",
    "hind_paw": "back_paw",
    "hindpaw": "back_paw",
    "root_of_tail": "tail_root",
    "tailroot": "tail_root",
    "tail_base": "tail_root",
}


def pose_format(target: str | PoseFormat) -> PoseFormat:
    """The pose named "openpose", "ap10k" or "coco17"; raises KeypointError for another name."""
    if isinstance(target, PoseFormat):
        return target
    if target not in POSES:
        raise KeypointError(f"there is no pose {target!r}; the poses are {', '.join(POSES)}.")
    return POSES[target]


def joint_name(name: str) -> str:
    """One spelling for a joint: "Left Wrist", "L_Wrist", "Lwri" and "leftWrist" are "left_wrist"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name).strip())
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    side = next((_SIDES[word] for word in (words[:1] + words[-1:]) if word in _SIDES), "")
    part = "_".join(word for word in words if word not in _SIDES)
    if not side and len(words) == 1 and part[:1] in "lr" and part[1:] in _SHORT:
        side, part = _SIDES[part[0]], part[1:]
    part = _PARTS.get(part, part)
    return f"{side}_{part}" if side else part


# What may follow a bare l or r, as in "Lsho"; without this list "lip" would be a left "ip".
_SHORT = frozenset(
    ("eye", "ear", "hip", "shoulder", "elbow", "wrist", "knee", "ankle")
    + ("sho", "elb", "wri", "kne", "ank", "fpaw", "bpaw")
)


def mirrored(name: str) -> str:
    """The joint of the other side, or the name itself for one in the middle."""
    joint = joint_name(name)
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if joint.startswith(side):
            return other + joint[len(side) :]
    return joint


def side_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Index pairs (left, right) of joints that are each other's mirror image, found by their names."""
    index = {joint_name(name): i for i, name in enumerate(names)}
    return tuple(
        (i, index[mirrored(name)])
        for i, name in enumerate(names)
        if joint_name(name).startswith("left_") and mirrored(name) in index
    )
