"""Keypoints to TRACKS."""

from __future__ import annotations

import comfy.model_management as model_management
import numpy as np
import torch
from comfy_api.latest import io

from stablekp_core.drawing.canvas_fit import CanvasFit
from stablekp_core.keypoints.keypoints import VISIBLE_CONFIDENCE

from .canvas_inputs import canvas_inputs
from .comfy import sockets
from .comfy.batches import size_like


class KeypointsToTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToTracks",
            display_name="Keypoints to TRACKS",
            category="video",
            description="Keypoints of video frames as ComfyUI's TRACKS: one track for each keypoint, "
            "one entry for "
            "each frame.",
            search_aliases=["tracks", "point tracks", "wanmove", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="Detected on the frames of one video, in order."),
                io.Float.Input(
                    "threshold",
                    default=VISIBLE_CONFIDENCE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From this confidence on a point counts as visible.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    optional=True,
                    tooltip="Width of the video that is generated. 0: follows the height, or as the images.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    optional=True,
                    tooltip="Height of the video that is generated. 0: follows the width, or as the images.",
                ),
                *canvas_inputs("crop"),
            ],
            outputs=[
                sockets.Tracks.Output(
                    display_name="tracks",
                    tooltip="track_path [images, figures x keypoints, 2] in pixels and track_visibility, the same "
                    "without the last axis.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, threshold, width=0, height=0, fit="crop", size_from=None) -> io.NodeOutput:
        from stablekp_core.video.tracks import to_tracks

        size = size_like(size_from) if size_from is not None else (width, height)
        tracks, device = to_tracks(keypoints, threshold), model_management.intermediate_device()
        if any(size):
            tracks = on_canvas(tracks, known_sizes(keypoints), size, fit)
        return io.NodeOutput({k: torch.from_numpy(np.ascontiguousarray(v)).to(device) for k, v in tracks.items()})


def known_sizes(keypoints) -> list[tuple[int, int]]:
    """(width, height) of every image; those of which nothing is known have the size of the first one that is."""
    sizes = [size for _, size in keypoints.image_list()]
    usual = next((size for size in sizes if all(size)), (1, 1))
    return [size if all(size) else usual for size in sizes]


def on_canvas(tracks: dict, sizes: list[tuple[int, int]], size: tuple[int, int], fit: str) -> dict:
    """Tracks of images of `sizes`, one for each moment, in pixels of a canvas of `size`; what lies outside is not
    visible.
    """
    lays = [CanvasFit.of(own, size, fit) for own in sizes]
    path = np.stack([lay.points(points) for lay, points in zip(lays, tracks["track_path"], strict=True)])
    inside = ((path >= 0) & (path < np.array([lay.size for lay in lays])[:, None])).all(-1)
    return {"track_path": path, "track_visibility": tracks["track_visibility"] & inside}
