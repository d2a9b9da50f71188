"""Compare Keypoints."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .comfy import sockets
from .comfy.messages import show_text


class CompareKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPCompare",
            display_name="Compare Keypoints",
            description="Says how far keypoints found on generated images are from the pose that was asked for.",
            search_aliases=["stable keypoints", "pose error", "pck"],
            is_output_node=True,
            inputs=[
                sockets.Points.Input("found", tooltip="From Detect Keypoints on the generated images."),
                sockets.Points.Input(
                    "pose",
                    tooltip="The pose given to Guide by Keypoints: one for each image, or one for all. Of another "
                    "aspect ratio, it is fitted into the image as Guide by Keypoints does.",
                ),
                io.String.Input(
                    "points", default="", optional=True, tooltip="The points of Guide by Keypoints; empty for all."
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The mean distance of all images, and of each."),
                io.Float.Output(display_name="error", tooltip="Mean distance, in longer sides of the image."),
            ],
        )

    @classmethod
    def execute(cls, found, pose, points="") -> io.NodeOutput:
        from stablekp_core.guidance.targets import pose_error

        error = pose_error(found, pose, points)
        show_text(error.report())
        return io.NodeOutput(error.report(), error.mean, ui=ui.PreviewText(error.report()))
