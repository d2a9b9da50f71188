"""Keypoints to JSON."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.keypoints.keypoints import VISIBLE_CONFIDENCE

from .comfy import sockets
from .comfy.messages import show_text

_JSON_FORMATS = ("COCO", "points of the first image", "tracks over all images")


class KeypointsToJSON(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToJSON",
            display_name="Keypoints to JSON",
            description="Keypoints as text: COCO keypoint annotations, or the plain point lists that other packs use.",
            search_aliases=["coco", "keypoints json", "stable keypoints"],
            is_output_node=True,
            inputs=[
                sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
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
                    default=VISIBLE_CONFIDENCE,
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
    def execute(cls, keypoints, format, threshold=VISIBLE_CONFIDENCE) -> io.NodeOutput:
        if format == _JSON_FORMATS[0]:
            text = keypoints.to_json(threshold)
        elif format == _JSON_FORMATS[1]:
            text = keypoints.to_point_json()
        else:
            text = keypoints.to_track_json()
        show_text(text)
        return io.NodeOutput(text)
