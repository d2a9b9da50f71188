"""Smoothing the keypoints of a video: identities kept, short gaps filled, jitter removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..config import SMOOTHING_METHODS
from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.procrustes import figure_size, reference_confidence, trust
from ..keypoints.schema import parse_skeleton
from ..pose.formats import side_pairs
from .filters import fill_gaps, jitter, one_euro, savitzky_golay
from .swaps import keep_identity, track_figures

__all__ = ["METHODS", "Smoothed", "jitter", "parse_swaps", "smooth_keypoints", "track_figures"]

METHODS = SMOOTHING_METHODS
_FILLED = 0.5  # confidence of a filled point, in units of the lower one of its two neighbours


@dataclass(frozen=True)
class Smoothed:
    """Smoothed keypoints, with figures about the smoothing. Jitter is the RMS second difference in time, pixels per
    frame^2, over moments when a point is seen three frames in a row. tracks: figures followed. swaps: frames
    in which points were put back in order. filled: points placed in gaps.
    """

    keypoints: Keypoints
    jitter_before: float
    jitter_after: float
    tracks: int
    swaps: int
    filled: int

    def report(self) -> str:
        """One line of text."""
        change = self.jitter_after / self.jitter_before if self.jitter_before > 0 else 1.0
        return (
            f"jitter {self.jitter_before:.2f} -> {self.jitter_after:.2f} px/frame^2 ({100 * change:.0f} %), "
            f"{self.tracks} figure(s), points put back in order in {self.swaps} frames, {self.filled} filled"
        )


def smooth_keypoints(
    keypoints: Keypoints,
    method: str = "savitzky-golay",
    *,
    window: int = 9,
    order: int = 2,
    fps: float = 25.0,
    min_cutoff: float = 1.0,
    beta: float = 1.0,
    causal: bool = False,
    fill: int = 5,
    threshold: float = 0.3,
    identity: str | Sequence[tuple[int, int]] = "auto",
) -> Smoothed:
    """Smooth keypoints whose images are the frames of a video, in order of image_index.

    method: "savitzky-golay" (local polynomials of `order` over `window` frames), "one-euro" (a low-pass of
    `min_cutoff` Hz at rest, `beta` more Hz for each figure size per second of speed; `causal` for past frames
    only, at the price of lag), or "none". Both weigh frames by confidence. fill: longest gap, in frames, that
    is bridged; a gap is where confidence is 0 or under `threshold`. Points in longer gaps stay as they are,
    at their confidence. identity: which points may have been swapped by the detector: "auto" (pairs named
    left and right where there are any, else all points), "all", "none", or pairs of indices. Several figures
    per frame are followed and smoothed each on its own. Raises KeypointError for unknown methods and
    impossible settings.
    """
    if method not in METHODS:
        raise KeypointError(f"method is {method!r}, but it must be one of {', '.join(METHODS)}.")
    if fill < 0:
        raise KeypointError(f"fill is {fill} frames, but it must be 0 or more.")
    pairs = _pairs(identity, keypoints)
    if method == "one-euro":
        smoother = partial(one_euro, fps=fps, min_cutoff=min_cutoff, beta=beta, causal=causal)
    else:
        smoother = partial(savitzky_golay, window=window, order=order) if method != "none" else None
    xy, confidence = keypoints.xy.astype(np.float64), keypoints.confidence.astype(np.float64)
    orders = np.tile(np.arange(keypoints.num_keypoints), (len(keypoints), 1))  # [B, K]
    tracks = track_figures(keypoints, patience=max(fill, 10))
    done = []
    for rows in tracks:
        times = keypoints.image_index[rows] - keypoints.image_index[rows[0]]
        points = np.zeros((int(times[-1]) + 1, *xy.shape[1:]))  # [T, K, 2]
        sure = np.zeros(points.shape[:2])  # frames without the figure count as not seen
        points[times], sure[times] = xy[rows], confidence[rows]
        track = _smooth_track(points, sure, pairs, smoother, fill, threshold)
        done.append(track)
        xy[rows], confidence[rows], orders[rows] = track.xy[times], track.confidence[times], track.orders[times]
    moments = max(sum(track.moments for track in done), 1)
    before, after = (
        math.sqrt(sum(track.moments * getattr(track, name) ** 2 for track in done) / moments)
        for name in ("before", "after")
    )
    return Smoothed(
        replace(keypoints.reordered(orders), xy=xy, confidence=np.clip(confidence, 0.0, 1.0)),
        before,
        after,
        len(tracks),
        sum(track.swaps for track in done),
        sum(track.filled for track in done),
    )


def parse_swaps(text: str, keypoints: Keypoints) -> str | tuple[tuple[int, int], ...]:
    """What `identity` of `smooth_keypoints` takes, from text: auto, all, none, or pairs as "3-5, 2-7"."""
    word = text.strip().lower()
    if word in ("", "auto", "all", "none"):
        return word or "auto"
    return parse_skeleton(text, keypoints.num_keypoints, keypoints.names)


@dataclass(frozen=True, eq=False)
class _Track:
    """One figure smoothed: xy [T, K, 2], confidence [T, K], which detection point k is [T, K], RMS jitter before and
    after over `moments`."""

    xy: np.ndarray
    confidence: np.ndarray
    orders: np.ndarray
    before: float
    after: float
    moments: int
    swaps: int
    filled: int


def _smooth_track(points, sure, pairs, smoother, fill, threshold) -> _Track:
    detected = np.where(sure >= threshold, sure, 0.0)
    orders = keep_identity(points, detected, pairs)
    frames = np.arange(len(points))[:, None]
    ordered, sure, seen = points[frames, orders], sure[frames, orders], detected[frames, orders]
    complete, filled = fill_gaps(ordered, seen, fill)
    sure = np.where(filled, _FILLED * _lower_end(seen, filled), sure)
    known = (seen > 0) | filled
    weights = trust(sure, reference_confidence(seen)) * known
    smooth = complete
    if smoother is not None and known.any():
        sizes = figure_size(complete, known.astype(np.float64))
        scale = max(float(np.median(sizes[known.any(axis=1)])), 1e-9)
        smooth = np.where(known[..., None], scale * smoother(complete / scale, weights), complete)
    return _Track(
        smooth,
        sure,
        orders,
        jitter(points, detected),
        jitter(smooth, detected),
        _moments(detected),
        int((orders != np.arange(points.shape[1])).any(axis=1).sum()),
        int(filled.sum()),
    )


def _lower_end(seen: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """For filled points the lower confidence of the two frames that bound the gap: [T, K]."""
    last, following = seen.copy(), seen.copy()
    for t in range(1, len(seen)):
        last[t] = np.where(filled[t], last[t - 1], last[t])
        following[-1 - t] = np.where(filled[-1 - t], following[-t], following[-1 - t])
    return np.minimum(last, following)


def _moments(seen: np.ndarray) -> int:
    """How many second differences `jitter` averages over."""
    there = seen > 0
    return int((there[2:] & there[1:-1] & there[:-2]).sum())


def _pairs(identity: str | Sequence[tuple[int, int]], keypoints: Keypoints) -> tuple[tuple[int, int], ...] | None:
    """Points that may have been swapped, from the `identity` of `smooth_keypoints`; None for any."""
    count = keypoints.num_keypoints
    if isinstance(identity, str):
        if identity not in ("auto", "all", "none"):
            raise KeypointError(
                f"identity is {identity!r}, but it must be auto, all, none, or pairs of keypoints such as 3-5."
            )
        return {"none": (), "all": None, "auto": side_pairs(keypoints.names) or None}[identity]
    pairs = tuple((int(a), int(b)) for a, b in identity)
    flat = [i for pair in pairs for i in pair]
    if len(set(flat)) != len(flat) or not all(0 <= i < count for i in flat):
        raise KeypointError(
            f"the pairs {list(pairs)} of points that may be swapped must be of different numbers from 0 to {count - 1}."
        )
    return pairs
