"""Keypoints of a video's frames as point tracks, one entry for each image, whether it shows the figure or not."""

from __future__ import annotations

import json

import numpy as np

from ..keypoints.coco import short_float
from ..keypoints.keypoints import VISIBLE_CONFIDENCE, Keypoints
from .swaps import track_figures


def to_tracks(keypoints: Keypoints, threshold: float = VISIBLE_CONFIDENCE) -> dict[str, np.ndarray]:
    """`track_path` float32 [T, F * K, 2] in pixels and `track_visibility` bool [T, F * K], for T images of F figures.

    Where an image shows several figures each is followed from image to image (`track_figures`); the K points of a
    figure stand together, figures in the order in which they first appear. Where an image does not show a figure its
    points keep their last position (before the first, the first one) and are not visible; points of confidence
    `threshold` or more are visible.
    """
    single = len(np.unique(keypoints.image_index)) == len(keypoints)
    figures = [keypoints.image_index.argsort()] if single and len(keypoints) else track_figures(keypoints)
    path = np.zeros((keypoints.num_images, len(figures), keypoints.num_keypoints, 2), np.float32)
    visible = np.zeros(path.shape[:3], bool)
    for f, rows in enumerate(figures):
        times = keypoints.image_index[rows]
        last = np.searchsorted(times, np.arange(keypoints.num_images), side="right") - 1
        path[:, f] = keypoints.xy[rows[np.maximum(last, 0)]]
        visible[times, f] = keypoints.confidence[rows] >= threshold
    shape = (keypoints.num_images, len(figures) * keypoints.num_keypoints)
    return {"track_path": path.reshape(*shape, 2), "track_visibility": visible.reshape(shape)}


def to_track_json(keypoints: Keypoints) -> str:
    """The paths of `to_tracks` as JSON text: a list of F * K tracks, each a list of T `{"x": …, "y": …}` in pixels."""
    path = to_tracks(keypoints)["track_path"]
    return json.dumps([[{"x": short_float(x), "y": short_float(y)} for x, y in track] for track in path.swapaxes(0, 1)])
