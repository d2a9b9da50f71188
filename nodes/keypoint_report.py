"""Keypoint Report."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.diagnostics import keypoint_report

from .comfy import sockets
from .comfy.batches import image_batches, single_images
from .comfy.messages import show_text


class KeypointReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPReport",
            display_name="Keypoint Report",
            category="train",
            description="What each keypoint is worth over a batch of images, and which ones to drop.",
            search_aliases=["inspect keypoints", "consistency", "stable keypoints"],
            is_input_list=True,
            inputs=[
                sockets.Points.Input("keypoints", tooltip="Detected on 10 or more images."),
                io.Int.Input(
                    "max_pictures",
                    default=9,
                    min=1,
                    max=64,
                    tooltip="At most this many images are shown in the result.",
                ),
                io.Float.Input(
                    "threshold",
                    default=sockets.defaults_of(keypoint_report).threshold,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From this confidence on a keypoint counts as seen.",
                ),
                sockets.Tokens.Input("tokens", optional=True, tooltip="The tokens, for their votes in training."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The images the keypoints were detected on. Without them the background is black.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="picture",
                    tooltip="Images with each keypoint's number and consistency; ! marks a dead or double one.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="A table: consistency, confidence, how often seen, votes, remarks, and a "
                    "suggested edit for Edit Keypoint Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, keypoints, max_pictures, threshold, tokens=None, images=None) -> io.NodeOutput:
        from stablekp_core.keypoints.diagnostics import report_labels, report_text
        from stablekp_core.keypoints.keypoints import Keypoints

        points = Keypoints.concat(keypoints)
        report = keypoint_report(points, tokens[0] if tokens else None, threshold=threshold[0])
        text = report_text(report)
        arrays = single_images(images, "Keypoint Report (images)") if images else None
        sheet = _sheet(points, arrays, report_labels(report), max_pictures[0])
        show_text(text)
        return io.NodeOutput(image_batches([sheet])[0], text)


def _sheet(points, arrays, labels: list[str], most: int) -> np.ndarray:
    """uint8 RGB contact sheet of the first images, each keypoint with its label."""
    from stablekp_core.images.image_set import ImageSet

    numbers = sorted(set(points.image_index.tolist()))[:most]
    if arrays is not None and len(arrays) <= numbers[-1]:
        raise KeypointError(
            f"{len(arrays)} images are connected to Keypoint Report, but the keypoints are those of more; "
            "connect the images they were detected on."
        )
    if arrays is None:
        shown = {n: np.zeros((*points.instances(n).sizes[0, ::-1], 3), np.uint8) for n in numbers}
    else:
        shown = dict(
            zip(numbers, (image for _, image in ImageSet.from_arrays([arrays[n] for n in numbers])), strict=True)
        )
    return points.contact_sheet(shown, labels=labels, cell=512)
