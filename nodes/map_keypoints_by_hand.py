"""Map Keypoints by Hand."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import sockets

POSES = {"openpose (people)": "openpose", "AP-10K (animals)": "ap10k", "COCO 17 (people)": "coco17"}
_TABLE = "nose = 0\nright shoulder = 1\nleft shoulder = 2\nneck = 1 + 2"


class MapKeypointsByHand(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPMapByHand",
            display_name="Map Keypoints by Hand",
            category="pose",
            description="Says which keypoint is which joint, for keypoints that already sit on joints.",
            search_aliases=["name keypoints", "pose mapping", "openpose", "landmarks", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
                io.Combo.Input(
                    "pose",
                    options=list(POSES),
                    default=next(iter(POSES)),
                    tooltip="The pose whose joints are named: OpenPose's 18, AP-10K's 17, or COCO's 17.",
                ),
                io.String.Input(
                    "table",
                    default=_TABLE,
                    multiline=True,
                    tooltip="One line for each joint: joint = keypoint (number or name). neck = 1 + 2 takes "
                    "the middle. Joints that are not mentioned are missing. # starts a comment.",
                ),
            ],
            outputs=[
                sockets.Points.Output(
                    display_name="landmarks",
                    tooltip="All joints of the pose in its order, for Draw Keypoints and Keypoints to Pose.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, pose, table) -> io.NodeOutput:
        from stablekp_core.pose.writing import map_by_hand

        return io.NodeOutput(map_by_hand(keypoints, table, POSES[pose]))
