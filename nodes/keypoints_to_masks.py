"""Keypoints to Masks."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from .comfy import sockets
from .comfy.batches import mask_batches
from .keypoints_to_tracks import known_sizes

_MASK_KINDS = ("one per keypoint", "one per image")


def disc_masks(xy: np.ndarray, seen: np.ndarray, width: int, height: int, radius: float) -> np.ndarray:
    """Float [K, height, width], 1 where a pixel's centre lies within `radius` of point k (xy [K, 2] pixels).

    Points that are not `seen` [K] give an empty mask.
    """
    x = np.arange(width) + 0.5  # [W] pixel centres
    y = np.arange(height) + 0.5  # [H]
    # Squared distance as a sum of one term per axis, so no [K, H, W, 2] is ever made.
    squared = ((x[None, :] - xy[:, :1]) ** 2)[:, None, :] + ((y[None, :] - xy[:, 1:]) ** 2)[:, :, None]
    return ((squared <= radius * radius) & seen[:, None, None]).astype(np.float32)


class KeypointsToMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToMasks",
            display_name="Keypoints to Masks",
            category="detect",
            description="A filled disc around each keypoint, as masks of the images' own size.",
            search_aliases=["keypoint mask", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
                io.Combo.Input(
                    "masks",
                    options=list(_MASK_KINDS),
                    default=_MASK_KINDS[0],
                    tooltip="One mask for each keypoint of each image (in that order), or one for each "
                    "image with all its discs.",
                ),
                io.Float.Input(
                    "radius",
                    default=16.0,
                    min=0.5,
                    max=2048.0,
                    step=0.5,
                    tooltip="Radius of a disc, in pixels of the image.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Points with a lower confidence give an empty mask.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks",
                    is_output_list=True,
                    tooltip="One batch; images of different sizes give one batch each.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, masks, radius, threshold=0.0) -> io.NodeOutput:
        groups = []
        for image, (width, height) in enumerate(known_sizes(keypoints)):
            rows = keypoints.instances(image)
            discs = np.zeros((keypoints.num_keypoints, height, width), np.float32)
            for xy, confidence in zip(rows.xy, rows.confidence, strict=True):  # a figure each
                np.maximum(discs, disc_masks(xy, confidence >= threshold, width, height, radius), out=discs)
            groups.append(discs if masks == _MASK_KINDS[0] else discs.max(axis=0, keepdims=True))
        return io.NodeOutput(mask_batches(groups))
