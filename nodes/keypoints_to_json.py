"""Keypoints to JSON."""

from __future__ import annotations

import json

from comfy_api.latest import io

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import VISIBLE_CONFIDENCE

from .comfy import sockets
from .comfy.messages import EXCERPT, show_text

_JSON_FORMATS = ("COCO", "points of the first image", "tracks over all images", "points of a chosen image")


class KeypointsToJSON(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPToJSON",
            display_name="Keypoints to JSON",
            category="files",
            description="Keypoints as text: COCO keypoint annotations, or the plain point lists that other packs use.",
            search_aliases=["coco", "keypoints json", "sam3", "points", "landmarks json", "stable keypoints"],
            is_output_node=True,
            inputs=[
                sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
                io.Combo.Input(
                    "format",
                    options=list(_JSON_FORMATS),
                    default=_JSON_FORMATS[0],
                    tooltip="COCO: images, annotations and the skeleton, readable by labelling tools. Points "
                    'of the first image: [{"x": …, "y": …}]. Tracks: one such list per keypoint, over the images. '
                    "Points of a chosen image: the visible ones of all its figures, as coordinates for SAM3 Detect.",
                ),
                io.Float.Input(
                    "threshold",
                    default=VISIBLE_CONFIDENCE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="COCO and points of a chosen image: from this confidence on a point counts as visible.",
                ),
                io.Int.Input(
                    "image",
                    default=0,
                    min=0,
                    max=1_000_000,
                    optional=True,
                    tooltip="Points of a chosen image: its number, counted from 0.",
                ),
            ],
            outputs=[io.String.Output(display_name="json", tooltip="The text.")],
        )

    @classmethod
    def execute(cls, keypoints, format, threshold=VISIBLE_CONFIDENCE, image=0) -> io.NodeOutput:
        from stablekp_core.video.tracks import to_track_json

        if format == _JSON_FORMATS[0]:
            text = keypoints.to_json(threshold)
        elif format == _JSON_FORMATS[1]:
            text = keypoints.to_point_json()
        elif format == _JSON_FORMATS[3]:
            text = visible_points(keypoints, image, threshold)
        else:
            text = to_track_json(keypoints)
        show_text(text, EXCERPT)
        return io.NodeOutput(text)


def visible_points(keypoints, image: int, threshold: float) -> str:
    """JSON text `[{"x": …, "y": …}, …]`: the points of all figures of an image whose confidence reaches `threshold`."""
    rows = keypoints.instances(image)
    if not len(rows):
        raise KeypointError(
            f"Keypoints to JSON was asked for image {image}, which has no keypoints; images are counted from 0."
        )
    shown = rows.xy[(rows.confidence >= threshold) & (rows.confidence > 0)]  # [n, 2]
    return json.dumps([{"x": round(float(x), 2), "y": round(float(y), 2)} for x, y in shown])
