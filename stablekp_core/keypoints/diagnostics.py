"""The quality of each keypoint over a batch of images, and which keypoints to drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import KeypointError
from .edit_script import edit_tokens
from .keypoints import Keypoints
from .procrustes import align, figure_size, mean_shape

if TYPE_CHECKING:
    from .tokens import KeypointTokens

__all__ = ["PointReport", "edit_tokens", "keypoint_report", "report_labels", "report_text"]

# A point is dead when it is hardly ever seen, or stays at one position of the image while the figures move.
_RARELY = 0.2  # share of images
_STUCK = 0.25  # movement, relative to that of the median point
_STUCK_BELOW = 0.03  # and in image sides
_MOVING = 0.06  # image sides the median point must move before standing still means anything
_DUPLICATE = 0.08  # distance in figure sizes below which two points are one


@dataclass(frozen=True)
class PointReport:
    """One keypoint over a batch of images.

    consistency: in 0..1, how well its position follows from the other points: 1 minus its RMS distance, in figure
    sizes, from its position in the mean shape fitted to the others; lower for a hand than for a nose. confidence: mean
    over images. seen: share of images where confidence reaches the threshold. moves: standard deviation of its
    position, in image sides. votes, score: from training, None when unknown. duplicate_of: index of an earlier point at
    the same position, or None. dead: why the point is useless, or "".
    """

    index: int
    name: str
    consistency: float
    confidence: float
    seen: float
    moves: float
    votes: float | None
    score: float | None
    duplicate_of: int | None
    dead: str


def keypoint_report(
    keypoints: Keypoints, tokens: KeypointTokens | None = None, *, threshold: float = 0.3
) -> tuple[PointReport, ...]:
    """A report on each keypoint over the images of a batch, with the votes and scores of its token.

    threshold: the confidence in 0..1 from which on a point counts as seen. Raises KeypointError without rows, or when
    the tokens have another number of keypoints.
    """
    if not len(keypoints):
        raise KeypointError("there are no keypoints to report on; detect on at least one image, 10 or more to judge.")
    if tokens is not None and tokens.num_keypoints != keypoints.num_keypoints:
        raise KeypointError(
            f"the tokens have {tokens.num_keypoints} keypoints but {keypoints.num_keypoints} were detected; "
            f"use the tokens that these keypoints come from."
        )
    confidence = keypoints.confidence.astype(np.float64)
    xy = keypoints.xy.astype(np.float64)
    unit = xy / keypoints.sizes[:, None, :]  # [B, K, 2], shares of the image
    seen = (confidence >= threshold).mean(axis=0)
    moves = _weighted_spread(unit, confidence)
    consistency = _consistency(xy, confidence)
    duplicates = _duplicates(xy, confidence)
    votes, scores = _from_training(tokens, keypoints.num_keypoints)
    return tuple(
        PointReport(
            k,
            name,
            float(consistency[k]),
            float(confidence[:, k].mean()),
            float(seen[k]),
            float(moves[k]),
            votes[k],
            scores[k],
            duplicates[k],
            _dead(len(xy), seen[k], moves, k),
        )
        for k, name in enumerate(keypoints.names)
    )


def report_text(points: Sequence[PointReport]) -> str:
    """The report as a table in plain text, with a last line that suggests what to drop."""
    rows = [("#", "name", "consistency", "confidence", "seen", "votes", "remarks")]
    for p in points:
        remarks = [p.dead] if p.dead else []
        if p.duplicate_of is not None:
            remarks.append(f"same position as {p.duplicate_of}")
        votes = "-" if p.votes is None else f"{p.votes:g}"
        rows.append(
            (
                str(p.index),
                p.name,
                f"{p.consistency:.2f}",
                f"{p.confidence:.2f}",
                f"{100 * p.seen:.0f} %",
                votes,
                "; ".join(remarks),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    useless = [str(p.index) for p in points if p.dead or p.duplicate_of is not None]
    if useless and len(useless) < len(points):
        lines.append(f"suggested edit: drop {' '.join(useless)}")
    return "\n".join(lines)


def report_labels(points: Sequence[PointReport]) -> list[str]:
    """A short label per point for `draw_keypoints`: number and consistency, ! where something is wrong."""
    return [f"{p.index}: {p.consistency:.2f}{'!' if p.dead or p.duplicate_of is not None else ''}" for p in points]


def _consistency(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """1 - RMS distance of each point from its expected position given the others, in figure sizes, in 0..1: [K]."""
    shape = mean_shape(xy, confidence)
    size = np.maximum(figure_size(xy, confidence), 1e-9)
    result = np.zeros(xy.shape[1])
    for k in range(xy.shape[1]):
        others = confidence.copy()
        others[:, k] = 0
        wrong = ((align(shape, xy, others)[:, k] - xy[:, k]) ** 2).sum(axis=-1) / size**2
        total = confidence[:, k].sum()
        if total > 0:
            result[k] = 1.0 - np.sqrt((confidence[:, k] * wrong).sum() / total)
    return np.clip(result, 0.0, 1.0)


def _weighted_spread(unit: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    share = confidence / np.maximum(confidence.sum(axis=0), 1e-12)
    mean = (share[..., None] * unit).sum(axis=0)
    return np.sqrt((share * ((unit - mean) ** 2).sum(axis=-1)).sum(axis=0))


def _duplicates(xy: np.ndarray, confidence: np.ndarray) -> list[int | None]:
    """For each point the first earlier one that lies at the same position in at least half of the images, or None."""
    size = np.maximum(figure_size(xy, confidence), 1e-9)
    result: list[int | None] = []
    for k in range(xy.shape[1]):
        same = None
        for other in range(k):
            both = (confidence[:, k] > 0) & (confidence[:, other] > 0)
            distance = np.linalg.norm(xy[both, k] - xy[both, other], axis=-1) / size[both]
            if result[other] is None and both.any() and np.median(distance) < _DUPLICATE:
                same = other
                break
        result.append(same)
    return result


def _dead(images: int, seen: float, moves: np.ndarray, k: int) -> str:
    if seen < _RARELY:
        return f"seen in {100 * seen:.0f} % of the images"
    median = float(np.median(moves))
    if images >= 5 and median >= _MOVING and moves[k] < min(_STUCK * median, _STUCK_BELOW):
        return "stays at one position of the image"
    return ""


def _from_training(tokens: KeypointTokens | None, count: int) -> tuple[list, list]:
    """(votes [K], scores [K]) with None where unknown; votes may be stored for all tokens."""
    if tokens is None:
        return [None] * count, [None] * count
    votes = list(tokens.votes)
    if len(votes) == len(tokens.embeddings) and len(votes) != count:
        votes = [votes[i] for i in tokens.chosen]
    return votes or [None] * count, list(tokens.scores) or [None] * count
