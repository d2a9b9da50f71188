"""Where each keypoint shall be: a pose in pixels of its own image -> targets on the image that is generated."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from .readers import KeypointGuidance

ASPECT_TOLERANCE = 0.01  # relative; poses of another aspect ratio are fitted into the image and said to be


@dataclass(frozen=True)
class Targets:
    """xy: float32 [B, K, 2] in the unit square of the generated image, x right, y down. weights: float32 [B, K], 0 for
    keypoints that are left free. fitted: whether the pose's image has another aspect ratio, so that bars were added."""

    xy: torch.Tensor
    weights: torch.Tensor
    fitted: bool = False

    def of(self, rows: list[int]) -> Targets:
        """Those of some poses, in this order."""
        return Targets(self.xy[rows], self.weights[rows], self.fitted)

    def repeated(self, count: int) -> Targets:
        """For `count` images: one pose serves all, or poses take turns as whole rounds."""
        if count % len(self.xy):
            raise KeypointError(
                f"{len(self.xy)} poses were given for {count} images; make as many images as poses, or a multiple of "
                "them."
            )
        times = count // len(self.xy)
        return Targets(self.xy.repeat(times, 1, 1), self.weights.repeat(times, 1), self.fitted)


def check_pose(pose: Keypoints, guidance: KeypointGuidance) -> None:
    """Raise KeypointError unless `pose` has a row and the keypoints that `guidance` reads."""
    if not len(pose):
        raise KeypointError("the pose is empty; give keypoints of at least one image.")
    if pose.num_keypoints != guidance.num_keypoints:
        raise KeypointError(
            f"the pose has {pose.num_keypoints} keypoints but the guidance reads {guidance.num_keypoints}; detect the "
            "pose with the tokens that the guidance was fitted for."
        )
    if pose.names != guidance.names:
        ours, theirs = next(pair for pair in zip(guidance.names, pose.names, strict=True) if pair[0] != pair[1])
        raise KeypointError(
            f"the pose names a keypoint {theirs!r} where the guidance has {ours!r}; detect the pose with the tokens "
            "that the guidance was fitted for."
        )


def choose_points(text: str, names: tuple[str, ...]) -> np.ndarray:
    """bool [K]: the keypoints that `text` lists, by number from 0 or by name, separated by commas; all when empty."""
    chosen = np.zeros(len(names), dtype=bool)
    for word in filter(None, (part.strip() for part in re.split(r"[,\n]", text))):
        if word in names:
            chosen[names.index(word)] = True
        elif word.isdigit() and int(word) < len(names):
            chosen[int(word)] = True
        else:
            raise KeypointError(
                f"there is no keypoint {word!r}; give numbers from 0 to {len(names) - 1} or names: {', '.join(names)}."
            )
    return chosen if chosen.any() else np.ones(len(names), dtype=bool)


def pose_targets(pose: Keypoints, guidance: KeypointGuidance, width: int, height: int, points: str = "") -> Targets:
    """Targets for images of width x height (any unit) from each row of `pose`.

    The pose's image is fitted into the generated one: scaled as a whole until it just fits, and centred. A keypoint's
    weight is its confidence; 0 for those that `points` (see `choose_points`) does not list. Raises KeypointError for
    poses that do not fit the guidance and when no keypoint is left.
    """
    check_pose(pose, guidance)
    xy = fitted(pose, width, height) / (width, height)
    weights = pose.confidence * choose_points(points, guidance.names)
    if not (weights > 0).any(1).all():
        raise KeypointError(
            f"row {int(np.flatnonzero(~(weights > 0).any(1))[0])} of the pose leaves every keypoint free (confidence 0 "
            "or not chosen), so that nothing guides; choose at least one that was found."
        )
    aspect = pose.sizes[:, 0] / pose.sizes[:, 1] / (width / height)
    other = bool((np.abs(np.log(aspect)) > ASPECT_TOLERANCE).any())
    return Targets(torch.from_numpy(xy).float(), torch.from_numpy(weights).float(), other)


def fitted(pose: Keypoints, width: float, height: float) -> np.ndarray:
    """float64 [B, K, 2]: a pose's points in an image of width x height, into which the pose's own image is scaled until
    it just fits, and centred."""
    size, canvas = pose.sizes.astype(np.float64), np.array([width, height], np.float64)
    scale = (canvas / size).min(1, keepdims=True)  # [B, 1]
    margin = (canvas - size * scale) / 2  # [B, 2]
    return pose.xy * scale[:, None] + margin[:, None]


@dataclass(frozen=True, eq=False)
class PoseError:
    """How far keypoints found on images are from the pose that was asked for: distances float32 [B, K] in longer sides
    of the image, NaN for points that were left free."""

    distances: np.ndarray

    @property
    def mean(self) -> float:
        """Mean distance, in longer sides of the image."""
        return float(np.nanmean(self.distances))

    def pck(self, within: float = 0.1) -> float:
        """Share of points within this distance."""
        known = self.distances[~np.isnan(self.distances)]
        return float((known < within).mean())

    def report(self) -> str:
        """As text: all, and each image."""
        lines = [f"mean distance {self.mean:.1%} of the longer side, {self.pck():.0%} of the points within 10 %"]
        lines += [f"image {i}: {np.nanmean(row):.1%}" for i, row in enumerate(self.distances)]
        return "\n".join(lines)


def pose_error(found: Keypoints, pose: Keypoints, points: str = "") -> PoseError:
    """Compare keypoints found on B generated images with the pose asked for, fitted into each image as guidance does.

    pose: one row for each image, or one for all, or rows that take turns. points: those asked for (see
    `choose_points`). Raises KeypointError when rows or keypoints do not agree, or no point was asked for.
    """
    if found.names != pose.names:
        raise KeypointError("the keypoints found and the pose name different points; detect both with the same tokens.")
    if not len(pose) or not len(found) or len(found) % len(pose):
        raise KeypointError(f"{len(found)} images cannot be compared with {len(pose)} poses; give one pose for each.")
    pose = pose.rows(np.arange(len(found)) % len(pose))
    at = np.concatenate([fitted(pose.rows([i]), *found.sizes[i]) for i in range(len(found))])
    away = np.linalg.norm(found.xy - at, axis=-1) / found.sizes.max(1, keepdims=True)  # [B, K]
    away[~((pose.confidence > 0) & choose_points(points, pose.names))] = np.nan
    if np.isnan(away).all(1).any():
        raise KeypointError("no point of the pose was asked for, so that there is nothing to compare.")
    return PoseError(away.astype(np.float32))
