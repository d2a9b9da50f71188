"""Fit Landmark Map."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.errors import KeypointError
from stablekp_core.pose.landmark_map import MODES

from .comfy import folders, sockets
from .comfy.messages import show_text

#: What a widget says for a choice that is left to the leave-one-out error.
_CHOOSE = -1


class FitLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPFitLandmarks",
            display_name="Fit Landmark Map",
            category="pose",
            description="Learns from a few labelled images where named joints are, given the unnamed keypoints.",
            search_aliases=["name keypoints", "pose regression", "landmarks", "openpose", "pose", "stable keypoints"],
            inputs=_fit_inputs(),
            outputs=[
                sockets.Landmarks.Output(
                    display_name="landmark_map", tooltip="For Apply Landmark Map and Save Landmark Map."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The leave-one-out error of each joint: how far off it is on images the map has not seen.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, labels_file="") -> bool | str:
        if not labels_file or not labels_file.strip():  # a wire, or the labels come over the pose socket
            return True
        return sockets.verdict(folders.input_file, labels_file)

    @classmethod
    def fingerprint_inputs(cls, labels_file="", **rest) -> str:
        named = bool(labels_file and labels_file.strip())
        return folders.file_fingerprint(folders.input_file(labels_file)) if named else ""

    @classmethod
    def execute(
        cls, keypoints, labels_file, mode, ridge, components, labels=None, use_confidence=True, category=""
    ) -> io.NodeOutput:
        from stablekp_core.pose.fitting import fit_landmark_map

        landmarks = fit_landmark_map(
            keypoints,
            read_labels(keypoints, labels, labels_file, category),
            mode=mode,
            ridge=None if ridge < 0 else ridge,
            rank=None if components < 0 else components,
            use_confidence=use_confidence,
        )
        report = landmarks.report()
        show_text(report)
        return io.NodeOutput(landmarks, report)


def _fit_inputs() -> list:
    more = {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        sockets.Points.Input(
            "keypoints",
            tooltip="From Detect Keypoints, of the labelled images and, if there are any, of more: those "
            "tell how the keypoints move.",
        ),
        io.String.Input(
            "labels_file",
            default="",
            tooltip="A JSON file below ComfyUI's input folder: COCO keypoints (CVAT, Label Studio), "
            "POSE_KEYPOINT or AP-10K. Empty: the labels come from the labels input.",
        ),
        io.Combo.Input(
            "mode",
            options=["auto", *MODES],
            default="auto",
            tooltip="auto: whichever errs least. figure: each joint is a weighted mean of keypoints, best "
            "for few labels. affine, linear: free sums of all coordinates, with and without a constant.",
        ),
        io.Float.Input(
            "ridge",
            default=float(_CHOOSE),
            min=float(_CHOOSE),
            max=100.0,
            step=0.01,
            tooltip="How strongly large weights are avoided. -1: chosen by the leave-one-out error.",
        ),
        io.Int.Input(
            "components",
            default=_CHOOSE,
            min=_CHOOSE,
            max=1000,
            tooltip="How many ways in which the keypoints move together are used. 0: all. -1: chosen.",
        ),
        sockets.PointsOrPose.Input(
            "labels",
            optional=True,
            tooltip="Labels from Label Joints, or poses of the first images, in the same order, from any pose detector "
            "or editor.",
        ),
        io.Boolean.Input(
            "use_confidence",
            default=True,
            **more,
            tooltip="Keypoints of low confidence count less, and are replaced by where the others say they are.",
        ),
        io.String.Input(
            "category",
            default="",
            **more,
            tooltip="Which category of a labels_file to read, where it has several with different points.",
        ),
    ]


def read_labels(keypoints, labels, labels_file: str, category: str = ""):
    """The labels as core Keypoints, from the socket or from a file below input/.

    Poses carry no image names: those of the keypoints are given to them in order, so that both pair.
    """
    from stablekp_core.keypoints.keypoints import Keypoints
    from stablekp_core.pose.reading import read_pose

    if labels_file.strip():
        if labels is not None:
            raise KeypointError(
                "labels are connected to Fit Landmark Map and a labels_file is named too; use one of them."
            )
        return read_pose(folders.input_file(labels_file), category=category.strip() or None)
    if labels is None:
        raise KeypointError(
            "Fit Landmark Map has no labels; connect Label Joints or a POSE_KEYPOINT, or name a JSON file in ComfyUI's "
            "input folder."
        )
    if isinstance(labels, Keypoints):
        return labels
    frames = len(labels) if isinstance(labels, list) else 1
    names = dict(zip(keypoints.image_index.tolist(), keypoints.images, strict=True))
    known = [names.get(image, "") for image in range(frames)]
    return read_pose(labels, tuple(known) if all(known) else None)
