"""Apply Landmark Map."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import sockets


class ApplyLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPApplyLandmarks",
            display_name="Apply Landmark Map",
            category="pose",
            description="Turns unnamed keypoints into the named joints that a landmark map was fitted to.",
            search_aliases=["name keypoints", "pose", "landmarks", "openpose", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="Detected with the tokens that the map was fitted with."),
                sockets.Landmarks.Input("landmark_map", tooltip="From Fit Landmark Map or Load Landmark Map."),
            ],
            outputs=[
                sockets.Points.Output(
                    display_name="landmarks",
                    tooltip="Keypoints with the joints' names and bones, for Draw Keypoints, Keypoints to "
                    "Pose or, as named COCO, Keypoints to JSON.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, landmark_map) -> io.NodeOutput:
        return io.NodeOutput(landmark_map.apply(keypoints))
