"""Carry a pose to a body of other proportions: the drive's bone directions with the target's bone lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.schema import Edges
from .formats import PoseFormat, joint_name, mirrored, pose_format
from .writing import to_pose

__all__ = ["PLACES", "bone_tree", "retarget_pose"]

#: Where the result lives: in the target's image, starting where its body stands, or in the drive's image.
PLACES = ("target", "drive")


def retarget_pose(
    drive: Keypoints,
    target: Keypoints,
    *,
    skeleton: Sequence[tuple[int, int]] | str | PoseFormat | None = None,
    root: str = "",
    place: str = "target",
    scale: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Keypoints:
    """The pose of every row of `drive`, on the body in the first row of `target`; in pixels.

    Along a tree of bones from the root, each bone keeps the direction it has in the drive (pixels, so that images need
    not be square, and a turned drive gives a turned result) and takes the length it has in the target, times `scale`.
    A bone that the target does not show has the length of its mirror image there, or else the drive's median length
    times the median ratio of the two bodies. Points that the drive does not show stay missing; points connected by them
    are placed from the nearest point that is seen, by the same ratio. Confidence and occlusion are the drive's.

    skeleton: pairs of `drive`'s keypoints, the name of a pose format ("openpose", "ap10k", "coco17": both sides are
    brought into its joints first), or None for the drive's own skeleton, or else the target's. root: name of the point
    the body hangs on; empty for the one with most bones. place: "target" puts the first frame's root where the target's
    is and lets it move by the drive's movement times the ratio of the bodies; "drive" keeps the root where the drive's
    is, in a body as large as the drive's. offset: shift of the result, in shares of the image's width and height.
    Raises KeypointError where names do not match, there are no bones, or the target shows none of them.
    """
    if place not in PLACES:
        raise KeypointError(f"place is {place!r}, but it must be one of {', '.join(PLACES)}.")
    if not 0 < scale <= 1000 or not all(abs(share) <= 1000 for share in offset):
        raise KeypointError(f"scale {scale} and offset {tuple(offset)} were given, but scale must lie in 0..1000.")
    drive, target, edges = _same_points(drive, target, skeleton)
    bones = bone_tree(drive.num_keypoints, edges, _root_index(drive, root, edges))
    lengths = _Lengths.make(drive, target, bones)
    body = scale * (lengths.ratio if place == "target" else 1.0)  # output pixels per pixel of the drive
    unit = scale * (1.0 if place == "target" else 1.0 / lengths.ratio)  # output pixels per pixel of the target
    sizes = np.repeat(target.sizes[:1], len(drive), axis=0) if place == "target" else drive.sizes
    start, goal = _anchors(drive, target, bones, lengths, place)
    xy = np.zeros(drive.xy.shape)
    for row in range(len(drive)):
        seen = drive.confidence[row] > 0  # [K]
        points = drive.xy[row].astype(np.float64)
        shift = np.array(offset) * sizes[row]
        origin = (lambda p: goal + body * (p - start)) if place == "target" else (lambda p: p)
        xy[row] = _pose(points, seen, bones, lengths, unit, lambda p, o=origin, s=shift: o(p) + s)
    return replace(drive, xy=np.where(drive.confidence[..., None] > 0, xy, 0.0), sizes=sizes, skeleton=tuple(edges))


@dataclass(frozen=True)
class BoneTree:
    """Bones (parent, child) from `root` outwards, and `neighbours` of each point in the tree."""

    root: int
    bones: tuple[tuple[int, int], ...]
    neighbours: tuple[tuple[int, ...], ...]

    def walk(self, start: int) -> list[tuple[int, int]]:
        """(parent, child) of all points that hang together with `start`, nearest first."""
        steps, seen = [], {start}
        queue = [start]
        for point in queue:
            for other in self.neighbours[point]:
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
                    steps.append((point, other))
        return steps


def bone_tree(count: int, edges: Sequence[tuple[int, int]], root: int) -> BoneTree:
    """The edges as a tree of fewest steps from `root`, earlier edges first; edges that close a circle are left out."""
    around: list[list[int]] = [[] for _ in range(count)]
    for a, b in dict.fromkeys((min(edge), max(edge)) for edge in edges):
        around[a].append(b)
        around[b].append(a)
    whole = BoneTree(root, (), tuple(map(tuple, around)))
    bones = list(whole.walk(root))
    reached = {root, *(child for _, child in bones)}
    for point in range(count):  # parts that the skeleton does not join to the root are trees of their own
        if point not in reached:
            part = whole.walk(point)
            bones += part
            reached |= {point, *(child for _, child in part)}
    tree: list[list[int]] = [[] for _ in range(count)]
    for parent, child in bones:
        tree[parent].append(child)
        tree[child].append(parent)
    return BoneTree(root, tuple(bones), tuple(map(tuple, tree)))


@dataclass(frozen=True, eq=False)
class _Lengths:
    """target: length of each bone (a, b), a < b, in pixels of the target. median: the same for the drive, the median of
    its rows. ratio: the size of the target's body divided by that of the drive's.
    """

    target: dict[tuple[int, int], float]
    median: dict[tuple[int, int], float]
    ratio: float

    @classmethod
    def make(cls, drive: Keypoints, target: Keypoints, tree: BoneTree) -> _Lengths:
        bones = [(min(bone), max(bone)) for bone in tree.bones]
        known = {bone: value for bone in bones if (value := _median_length(target.frame(0), bone)) > 0}
        median = {bone: value for bone in bones if (value := _median_length(drive, bone)) > 0}
        common = [bone for bone in known if bone in median]
        if not common:
            raise KeypointError(
                "the target's image and the drive have no bone in common that both show; choose an image that shows "
                "the whole body, or another skeleton."
            )
        ratio = sum(known[bone] for bone in common) / sum(median[bone] for bone in common)
        index = {joint_name(name): i for i, name in enumerate(drive.names)}
        other = [index.get(mirrored(name), i) for i, name in enumerate(drive.names)]
        for bone in bones:
            mirror = tuple(sorted((other[bone[0]], other[bone[1]])))
            if bone not in known and mirror in known:
                known[bone] = known[mirror]
        for bone in bones:
            known.setdefault(bone, median.get(bone, 0.0) * ratio)
        return cls(known, median, ratio)

    def path_ratio(self, path: Sequence[tuple[int, int]]) -> float:
        """Target pixels per pixel of the drive along some bones."""
        drive = sum(self.median.get(bone, 0.0) for bone in path)
        return sum(self.target[bone] for bone in path) / drive if drive > 0 else self.ratio


def _pose(points, seen, tree: BoneTree, lengths: _Lengths, unit: float, place) -> np.ndarray:
    """One figure's points [K, 2] rebuilt with the target's lengths times `unit`; unseen ones stay 0."""
    done = np.zeros(points.shape)
    placed: set[int] = set()
    for start in [tree.root, *range(len(points))]:
        if not seen[start] or start in placed:
            continue
        done[start] = place(points[start])
        placed.add(start)
        # For each point on the way: the nearest seen point before it, and the bones in between.
        behind: dict[int, tuple[int, tuple[tuple[int, int], ...]]] = {start: (start, ())}
        for parent, child in tree.walk(start):
            anchor, path = (parent, ()) if seen[parent] else behind[parent]
            path = (*path, (min(parent, child), max(parent, child)))
            behind[child] = (anchor, path)
            if not seen[child] or child in placed:
                continue
            step = points[child] - points[anchor]
            reach = float(np.hypot(*step))
            if len(path) > 1:
                factor = lengths.path_ratio(path)
            else:
                factor = lengths.target[path[0]] / reach if reach > 0 else 0.0
            done[child] = done[anchor] + unit * factor * step
            placed.add(child)
    return done


def _anchors(drive, target, tree: BoneTree, lengths: _Lengths, place: str) -> tuple[np.ndarray, np.ndarray]:
    """A position in the drive's image and the one it is moved to in the target's: the root of each, as first seen."""
    if place == "drive":
        return np.zeros(2), np.zeros(2)
    shown = target.confidence[0] > 0
    order = [tree.root, *(child for _, child in tree.walk(tree.root)), *range(len(shown))]
    for point in order:
        rows = np.flatnonzero(drive.confidence[:, point] > 0)
        if shown[point] and len(rows):
            return drive.xy[rows[0], point].astype(np.float64), target.xy[0, point].astype(np.float64)
    raise KeypointError("the target's image and the drive show no point in common; choose another image of the target.")


def _median_length(points: Keypoints, bone: tuple[int, int]) -> float:
    """Median length in pixels over the rows that show both ends; 0 where none does."""
    both = (points.confidence[:, bone] > 0).all(axis=1)
    if not both.any():
        return 0.0
    ends = points.xy[both][:, bone].astype(np.float64)  # [R, 2, 2]
    return float(np.median(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)))


def _same_points(drive: Keypoints, target: Keypoints, skeleton) -> tuple[Keypoints, Keypoints, Edges]:
    """Both sides with the drive's names in its order, and the edges between them."""
    if not len(target):
        raise KeypointError("the target has no figure; give keypoints of one image that shows the target's body.")
    if isinstance(skeleton, (str, PoseFormat)):
        pose = pose_format(skeleton)
        return to_pose(drive, pose), to_pose(target, pose), pose.skeleton
    ours = {joint_name(name): i for i, name in enumerate(target.names)}
    if target.names == drive.names:
        matched = target
    else:
        common = [joint_name(name) in ours for name in drive.names]
        if sum(common) < 2:
            raise KeypointError(
                f"the drive's keypoints ({', '.join(drive.names[:4])}…) and the target's "
                f"({', '.join(target.names[:4])}…) have other names; detect both with the same tokens, or give both "
                "joints' names first."
            )
        columns = [ours.get(joint_name(name), 0) for name in drive.names]
        confidence = target.confidence[:, columns] * np.array(common)
        matched = Keypoints(target.xy[:, columns], confidence, target.sizes, drive.names)
    edges = tuple(skeleton) if skeleton is not None else drive.skeleton
    if not edges and target.names == drive.names:
        edges = target.skeleton
    if not edges:
        raise KeypointError(
            "these keypoints have no skeleton to say which points are joined; discover one, give edges, or name a pose "
            "format."
        )
    if any(not 0 <= point < drive.num_keypoints for edge in edges for point in edge):
        raise KeypointError(f"an edge of the skeleton names a point outside 0..{drive.num_keypoints - 1}.")
    return drive, matched, edges


def _root_index(drive: Keypoints, root: str, edges: Edges) -> int:
    if root.strip():
        names = [joint_name(name) for name in drive.names]
        if root.strip() in drive.names:
            return drive.names.index(root.strip())
        if joint_name(root) in names:
            return names.index(joint_name(root))
        raise KeypointError(f"the root {root!r} is no keypoint; give one of {', '.join(drive.names)}.")
    bones = np.bincount(np.array(edges).reshape(-1), minlength=drive.num_keypoints)
    return int(bones.argmax())
