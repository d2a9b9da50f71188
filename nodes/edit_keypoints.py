"""Edit Keypoints: corrections made in the page, applied on top of what was detected."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from .comfy import point_editor, sockets
from .comfy.batches import image_batches, images_of
from .comfy.messages import show_text
from .comfy.runtime import Progress

_BETWEEN = ("as detected", "follow the edits")


class EditKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPEditKeypoints",
            display_name="Edit Keypoints",
            category="pose",
            description="Drag, delete and restore keypoints by hand, with the image behind them. The edits are kept in "
            "the workflow and applied on top of new detections.",
            search_aliases=[
                "pose editor",
                "openpose editor",
                "correct keypoints",
                "move keypoints",
                "stable keypoints",
            ],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                sockets.Points.Input(
                    "keypoints", tooltip="From Detect Keypoints, Apply Landmark Map or any other node."
                ),
                io.String.Input(
                    "edits",
                    default="",
                    socketless=True,
                    tooltip="The edits as JSON. The button Edit points writes them; empty it to take all edits back.",
                ),
                io.Combo.Input(
                    "between_edits",
                    options=list(_BETWEEN),
                    default=_BETWEEN[0],
                    tooltip="For video: points in frames between two edited frames stay as detected, or move smoothly "
                    "along with the edits.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Points with a lower confidence stand out in the editor; between edited frames they follow "
                    "the edits' own path.",
                ),
                io.Image.Input("images", optional=True, tooltip="The images the keypoints were detected on."),
            ],
            outputs=[
                sockets.Points.Output(
                    display_name="keypoints", tooltip="With the edits. Edited points have confidence 1."
                ),
                io.Image.Output(
                    display_name="preview",
                    is_output_list=True,
                    tooltip="The edited keypoints drawn on the images.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How many points were edited, and which edits fit nothing."
                ),
            ],
        )

    @classmethod
    def execute(cls, keypoints, edits, between_edits, threshold, images=None) -> io.NodeOutput:
        from stablekp_core.keypoints.keypoints import Keypoints
        from stablekp_core.keypoints.point_edits import KeypointEdits, apply_edits

        points = Keypoints.concat(keypoints)
        spread = between_edits[0] == _BETWEEN[1]
        done = apply_edits(points, KeypointEdits.from_json(edits[0]), spread=spread, threshold=threshold[0])
        arrays = images_of(points, images, "Edit Keypoints") if images else None
        numbers = sorted(set(points.image_index.tolist()))
        progress = Progress(2 * len(numbers))

        def image(number: int) -> np.ndarray | None:
            return None if arrays is None else arrays[number]

        offered = point_editor.offer(
            points, image, mode="edit", threshold=threshold[0], remarks=done.unused, on_image=progress.step
        )
        previews = []
        for number in numbers:
            previews.append(_preview(done.keypoints.instances(number), image(number)))
            progress.step(len(numbers) + len(previews))
        report = done.report()
        show_text(report)
        return io.NodeOutput(done.keypoints, image_batches(previews), report, ui={"stablekp_editor": [offered]})


def _preview(rows, image: np.ndarray | None) -> np.ndarray:
    """uint8 RGB: all figures of one image drawn on it, or on black."""
    from stablekp_core.drawing import overlay

    size = image.shape[1::-1] if image is not None else tuple(int(side) for side in rows.sizes[0])
    return overlay.draw_keypoints(
        image,
        rows.xy * (np.array(size) / rows.sizes[0]),
        rows.confidence,
        canvas="image" if image is not None else "black",
        occluded=rows.is_occluded,
        skeleton=rows.skeleton,
        colors=rows.colors,
        size=size,
    )
