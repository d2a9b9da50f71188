"""Keypoints to TRACKS."""

from __future__ import annotations

import comfy.model_management as model_management
import numpy as np
import torch
from comfy_api.latest import io

from stablekp_core.keypoints.keypoints import VISIBLE_CONFIDENCE

from .comfy import sockets


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
    def execute(cls, keypoints, threshold) -> io.NodeOutput:
        from stablekp_core.video.tracks import to_tracks

        device = model_management.intermediate_device()
        tracks = {
            key: torch.from_numpy(np.ascontiguousarray(value)).to(device)
            for key, value in to_tracks(keypoints, threshold).items()
        }
        return io.NodeOutput(tracks)
