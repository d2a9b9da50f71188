"""Keypoints to Boxes."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.images.crops import boxes_from_keypoints, crop_instances
from stablekp_core.keypoints.keypoints import VISIBLE_CONFIDENCE

from .comfy import sockets


class KeypointsToBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToBoxes",
            display_name="Keypoints to Boxes",
            category="detect",
            description="A box around each figure's keypoints, for nodes that cut out or segment what lies in a box.",
            search_aliases=["bounding box", "bbox", "sam3", "crop to subject", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
                io.Float.Input(
                    "margin",
                    default=sockets.defaults_of(crop_instances).margin,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Room around the points, as a share of the box's longer side.",
                ),
                io.Float.Input(
                    "threshold",
                    default=VISIBLE_CONFIDENCE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Points with a lower confidence are left out; a figure without others has no box.",
                ),
            ],
            outputs=[
                sockets.Boxes.Output(
                    display_name="boxes",
                    tooltip="For each image the list of its boxes: for SAM3 Detect, or Detect Keypoints again.",
                ),
                sockets.Boxes.Output(
                    display_name="each",
                    is_output_list=True,
                    tooltip="The boxes one by one, for nodes that take a single box, such as Image Crop.",
                ),
            ],
        )

    @classmethod
    def execute(cls, keypoints, margin, threshold) -> io.NodeOutput:
        boxes = [
            [dict(zip(("x", "y", "width", "height"), map(int, box), strict=True)) for box in image]
            for image in boxes_from_keypoints(keypoints, threshold, margin)
        ]
        return io.NodeOutput(boxes, [box for image in boxes for box in image])
