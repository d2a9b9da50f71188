"""Keypoints to Masks, to TRACKS and to JSON."""

from __future__ import annotations

import comfy.model_management as model_management
import numpy as np
import torch
from comfy_api.latest import io, ui

from . import types
from .batches import mask_batches

_MASK_KINDS = ("one per keypoint", "one per image")
_JSON_FORMATS = ("COCO", "points of the first image", "tracks over all images")


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
        return types.make_schema(
            node_id="StableKPToMasks",
            display_name="Keypoints to Masks",
            description="A filled disc around each keypoint, as masks of the images' own size.",
            search_aliases=["keypoint mask", "stable keypoints"],
            inputs=[
                types.Points.Input("keypoints", tooltip="From Detect Keypoints."),
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
        for row in range(len(keypoints)):
            width, height = (int(side) for side in keypoints.sizes[row])
            discs = disc_masks(keypoints.xy[row], keypoints.confidence[row] >= threshold, width, height, radius)
            groups.append(discs if masks == _MASK_KINDS[0] else discs.max(axis=0, keepdims=True))
        return io.NodeOutput(mask_batches(groups))


class KeypointsToTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPToTracks",
            display_name="Keypoints to TRACKS",
            description="Keypoints of video frames as ComfyUI's TRACKS: one track for each keypoint, "
            "one entry for "
            "each frame.",
            search_aliases=["tracks", "stable keypoints"],
            inputs=[
                types.Points.Input("keypoints", tooltip="Detected on the frames of one video, in order."),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From this confidence on a point counts as visible.",
                ),
            ],
            outputs=[
                types.Tracks.Output(
                    display_name="tracks",
                    tooltip="track_path [frames, keypoints, 2] in pixels and track_visibility [frames, keypoints].",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, threshold) -> io.NodeOutput:
        device = model_management.intermediate_device()
        tracks = {
            key: torch.from_numpy(np.ascontiguousarray(value)).to(device)
            for key, value in keypoints.to_tracks(threshold).items()
        }
        return io.NodeOutput(tracks)


class KeypointsToJSON(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPToJSON",
            display_name="Keypoints to JSON",
            description="Keypoints as text: COCO keypoint annotations, or the plain point lists that other packs use.",
            search_aliases=["coco", "keypoints json", "stable keypoints"],
            is_output_node=True,
            inputs=[
                types.Points.Input("keypoints", tooltip="From Detect Keypoints."),
                io.Combo.Input(
                    "format",
                    options=list(_JSON_FORMATS),
                    default=_JSON_FORMATS[0],
                    tooltip="COCO: images, annotations and the skeleton, readable by labelling tools. Points "
                    'of the first image: [{"x": …, "y": …}]. Tracks: one such list per keypoint, '
                    "over the images.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="COCO only: from this confidence on a point counts as visible (v = 2).",
                ),
            ],
            outputs=[io.String.Output(display_name="json", tooltip="The text.")],
        )

    @classmethod
    def execute(cls, keypoints, format, threshold=0.5) -> io.NodeOutput:
        if format == _JSON_FORMATS[0]:
            text = keypoints.to_json(threshold)
        elif format == _JSON_FORMATS[1]:
            text = keypoints.to_point_json()
        else:
            text = keypoints.to_track_json()
        return io.NodeOutput(text, ui=ui.PreviewText(text))
