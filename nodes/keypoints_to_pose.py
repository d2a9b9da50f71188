"""Keypoints to Pose: the POSE_KEYPOINT that pose nodes of other packs read."""

from __future__ import annotations

import json

from comfy_api.latest import io

from stablekp_core.pose.writing import POSE_THRESHOLD

from .comfy import sockets
from .comfy.messages import EXCERPT, show_text

_FORMATS = ("openpose (people)", "AP-10K (animals)")


class KeypointsToPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToPose",
            display_name="Keypoints to Pose",
            category="pose",
            description="Named joints as POSE_KEYPOINT, for the pose nodes of ComfyUI and of other packs.",
            search_aliases=["POSE_KEYPOINT", "openpose json", "openpose", "pose", "stable keypoints"],
            inputs=[
                sockets.Points.Input(
                    "landmarks",
                    tooltip="Keypoints whose names are joints: from Apply Landmark Map or Map Keypoints by Hand.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(_FORMATS),
                    default=_FORMATS[0],
                    tooltip="openpose: people of 18 points. AP-10K: animals of 17 points. Missing joints are zero.",
                ),
                io.Float.Input(
                    "threshold",
                    default=POSE_THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Joints with a lower confidence are missing. Poses know only yes and no.",
                ),
            ],
            outputs=[
                sockets.Pose.Output(display_name="pose", tooltip="One entry for each image, in pixels of the image."),
                io.String.Output(display_name="json", tooltip="The same as text."),
            ],
        )

    @classmethod
    def execute(cls, landmarks, format, threshold) -> io.NodeOutput:
        from stablekp_core.pose.writing import to_ap10k, to_pose_keypoint

        pose = (to_pose_keypoint if format == _FORMATS[0] else to_ap10k)(landmarks, threshold)
        text = json.dumps(pose)
        show_text(text, EXCERPT)
        return io.NodeOutput(pose, text)
