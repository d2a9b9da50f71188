"""Draw Keypoints."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from comfy_api.latest import io

from stablekp_core.drawing.overlay import CANVASES
from stablekp_core.errors import KeypointError

from .canvas_inputs import canvas_inputs
from .comfy import sockets
from .comfy.batches import image_batches, images_of, size_like

_FREE, _SCRIBBLE, _OPENPOSE, _ANIMAL = "points", "scribble", "openpose", "animal openpose"
#: What each style has of its own, and the default.
_OWN = {
    _FREE: {"canvas": "image", "dots": True, "numbers": True, "lines": True, "line_width": 0.0},
    _SCRIBBLE: {"line_width": 0.0},
    _OPENPOSE: {},
    _ANIMAL: {},
}


def chosen_points(text: str, names: Sequence[str]) -> list[int] | None:
    """Keypoint numbers of a text such as `0, 2, 5-8, nose`; None, for all of them, when it is empty."""
    chosen: list[int] = []
    for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        span = re.fullmatch(r"(\d+)\s*-\s*(\d+)", part)
        if part in names:
            found = [names.index(part)]
        elif span:
            found = list(range(int(span[1]), int(span[2]) + 1))
        elif part.isdecimal():
            found = [int(part)]
        else:
            raise KeypointError(
                f"{part!r} is no keypoint; list numbers from 0 to {len(names) - 1} or names, separated "
                "by commas, or leave the field empty for all."
            )
        if not found or max(found) >= len(names):
            raise KeypointError(f"keypoint {part} was asked for, but there are {len(names)}, counted from 0.")
        chosen.extend(found)
    return list(dict.fromkeys(chosen)) or None


class DrawKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPDraw",
            display_name="Draw Keypoints",
            category="detect",
            description="Draws keypoints over the images, or on an empty canvas as a hint image for ControlNet.",
            search_aliases=["keypoint overlay", "openpose", "pose image", "scribble", "hint", "stable keypoints"],
            is_input_list=True,
            accept_all_inputs=True,
            inputs=_inputs(),
            outputs=[
                io.Image.Output(
                    display_name="image",
                    is_output_list=True,
                    tooltip="One batch; images of different sizes come as a list.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, images=None, size_from=None, fit=None, **settings) -> io.NodeOutput:
        from stablekp_core.keypoints.keypoints import Keypoints

        points = Keypoints.concat(keypoints)
        options = {name: value[0] for name, value in sockets.flat(settings).items()}
        options = sockets.own_values("style", _OWN, options)
        arrays = _arrays(images, points) if images else None
        size = options.pop("out_width"), options.pop("out_height")
        options["size"] = size_like(size_from[0]) if size_from else size
        options["fit"] = fit[0] if fit else "contain"
        return io.NodeOutput(image_batches(_draw_all(points, arrays, options)))


def _own_inputs() -> list:
    """The inputs that only some styles have."""
    d = _OWN[_FREE]
    return [
        io.Combo.Input(
            "canvas",
            options=list(CANVASES),
            default=d["canvas"],
            optional=True,
            tooltip="What is drawn on; image needs the images connected.",
        ),
        io.Boolean.Input(
            "dots",
            default=d["dots"],
            optional=True,
            tooltip="A dot at each keypoint; on an image, one with a dark middle where the keypoint is occluded.",
        ),
        io.Boolean.Input("numbers", default=d["numbers"], optional=True, tooltip="Its number beside it."),
        io.Boolean.Input(
            "lines", default=d["lines"], optional=True, tooltip="The skeleton, where the keypoints have one."
        ),
        io.Float.Input(
            "line_width",
            default=d["line_width"],
            min=0.0,
            max=256.0,
            step=0.5,
            optional=True,
            extra_dict=sockets.ADVANCED,
            tooltip="In pixels of the result; dots grow with it. 0: follows the size of the image, or for scribble 3.",
        ),
    ]


def _inputs() -> list:
    return [
        sockets.Points.Input("keypoints", tooltip="From Detect Keypoints."),
        sockets.choice_input(
            "style",
            _OWN,
            _own_inputs(),
            tooltip="points: dots, numbers and lines as chosen below. scribble: white lines on black, for "
            "scribble, soft edge and line art ControlNets. openpose and animal openpose: the exact "
            "images those ControlNets know, for keypoints mapped to their 18 or 17 points.",
        ),
        io.Float.Input(
            "threshold",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            extra_dict=sockets.ADVANCED,
            tooltip="Points with a lower confidence are left out.",
        ),
        io.String.Input(
            "which",
            default="",
            extra_dict=sockets.ADVANCED,
            tooltip="Only these keypoints: numbers, ranges or names, such as 0, 2, 5-8. Empty: all.",
        ),
        io.Int.Input(
            "out_width",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Width of the result in pixels; set it to the size that is generated, because line widths are "
            "fixed pixels. 0: follows the height, or as the image.",
        ),
        io.Int.Input(
            "out_height",
            default=0,
            min=0,
            max=16384,
            step=8,
            tooltip="Height of the result in pixels. 0: follows the width, or as the image.",
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="The images the keypoints were detected on (or copies of another size).",
        ),
        *canvas_inputs("contain"),
    ]


def _arrays(images: Sequence, points) -> list[np.ndarray]:
    found = images_of(points, images, "Draw Keypoints")
    return [found[i] for i in range(len(found))]


def _draw_all(points, arrays: list[np.ndarray] | None, options: dict) -> list[np.ndarray]:
    """One drawing for each image, in order: for each that is connected, or else for each that has
    keypoints.
    """
    if options["style"] == _FREE and options["canvas"] == "image" and arrays is None:
        raise KeypointError("there is no image to draw on; connect the images, or choose a black or white canvas.")
    numbers = range(len(arrays)) if arrays is not None else sorted(set(points.image_index.tolist()))
    which = chosen_points(options["which"], points.names)
    return [
        _draw_one(points.instances(number), arrays[number] if arrays is not None else None, which, options)
        for number in numbers
    ]


def _draw_one(rows, array: np.ndarray | None, which: list[int] | None, options: dict) -> np.ndarray:
    """One drawing with all instances in it; `rows` are the Keypoints of that image."""
    from stablekp_core.drawing import hints, overlay
    from stablekp_core.drawing.canvas_fit import CanvasFit

    if options["style"] in (_OPENPOSE, _ANIMAL):
        rows, which = _as_pose(rows, which, "openpose" if options["style"] == _OPENPOSE else "ap10k")
    own = rows.sizes[0] if len(rows) else np.array(array.shape[1::-1])
    base = np.array(array.shape[1::-1]) if array is not None else own
    lay, confidence = CanvasFit.of(base, options["size"], options["fit"]), rows.confidence  # [P, K]
    # The image may be a resized copy of the one the points were found on.
    xy = lay.points(rows.xy * (base / own))
    if options["style"] == _FREE:
        return overlay.draw_keypoints(
            None if array is None else lay.image(array),
            xy,
            confidence,
            canvas=options["canvas"],
            occluded=rows.is_occluded if options["canvas"] == "image" else None,
            dots=options["dots"],
            numbers=options["numbers"],
            lines=options["lines"],
            skeleton=rows.skeleton,
            width=options["line_width"] or None,
            threshold=options["threshold"],
            which=which,
            colors=rows.colors,
            size=lay.size,
        )
    shown = (confidence >= options["threshold"]) & (confidence > 0)  # [P, K]
    if which is not None:
        shown &= np.isin(np.arange(shown.shape[1]), which)
    if options["style"] == _SCRIBBLE:
        return hints.draw_scribble(
            xy,
            rows.skeleton,
            *lay.size,
            max(1, round(options["line_width"] or 3)),
            confidence=shown.astype(np.float32),
        )
    pose = np.concatenate([xy, shown[..., None]], axis=-1)  # [P, K, 3]
    return (hints.draw_openpose if options["style"] == _OPENPOSE else hints.draw_ap10k)(pose, *lay.size)


def _as_pose(rows, which: list[int] | None, target: str):
    """Keypoints named after joints in the pose's order, with those not in `which` missing; others as they
    are, which the drawing refuses unless their number is the pose's.
    """
    from stablekp_core.pose.formats import joint_name, pose_format
    from stablekp_core.pose.writing import to_pose

    joints = {joint_name(name) for name in rows.names} & set(pose_format(target).joints)
    if len(joints) < 3:
        return rows, which
    if which is not None:
        rows = rows.select(which)
    return to_pose(rows, target), None
