"""Fit, Apply, Save and Load Landmark Map, and Map Keypoints by Hand."""

from __future__ import annotations

from comfy_api.latest import io, ui

from stablekp_core.errors import KeypointError

from . import folders, types
from .saving import name_inputs, path_output, save

_MODES = ("auto", "figure", "affine", "linear")
#: What a widget says for a choice that is left to the leave-one-out error.
_CHOOSE = -1
POSES = {"openpose (people)": "openpose", "AP-10K (animals)": "ap10k", "COCO 17 (people)": "coco17"}
_TABLE = "nose = 0\nright shoulder = 1\nleft shoulder = 2\nneck = 1 + 2"


class FitLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPFitLandmarks",
            display_name="Fit Landmark Map",
            description="Learns from a few labelled images where named joints are, given the unnamed keypoints.",
            search_aliases=["name keypoints", "pose regression", "stable keypoints"],
            inputs=_fit_inputs(),
            outputs=[
                types.Landmarks.Output(
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
        return types.verdict(folders.input_file, labels_file)

    @classmethod
    def fingerprint_inputs(cls, labels_file="", **rest) -> str:
        named = bool(labels_file and labels_file.strip())
        return folders.file_fingerprint(folders.input_file(labels_file)) if named else ""

    @classmethod
    def execute(
        cls, keypoints, labels_file, mode, ridge, components, labels=None, use_confidence=True
    ) -> io.NodeOutput:
        from stablekp_core.pose.fitting import fit_landmark_map

        landmarks = fit_landmark_map(
            keypoints,
            read_labels(keypoints, labels, labels_file),
            mode=mode,
            ridge=None if ridge < 0 else ridge,
            rank=None if components < 0 else components,
            use_confidence=use_confidence,
        )
        report = landmarks.report()
        return io.NodeOutput(landmarks, report, ui=ui.PreviewText(report))


def _fit_inputs() -> list:
    more = {"optional": True, "extra_dict": types.ADVANCED}
    return [
        types.Points.Input(
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
            options=list(_MODES),
            default=_MODES[0],
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
        types.Pose.Input(
            "labels",
            optional=True,
            tooltip="Poses of the first images, in the same order, from any pose detector or editor.",
        ),
        io.Boolean.Input(
            "use_confidence",
            default=True,
            **more,
            tooltip="Keypoints of low confidence count less, and are replaced by where the others say they are.",
        ),
    ]


def read_labels(keypoints, pose, labels_file: str):
    """The labels as core Keypoints, from the socket or from a file below input/.

    Poses carry no image names: those of the keypoints are given to them in order, so that both pair.
    """
    from stablekp_core.pose.writing import read_pose

    if labels_file.strip():
        if pose is not None:
            raise KeypointError(
                "labels are connected to Fit Landmark Map and a labels_file is named too; use one of them."
            )
        return read_pose(folders.input_file(labels_file))
    if pose is None:
        raise KeypointError(
            "Fit Landmark Map has no labels; connect a POSE_KEYPOINT, or name a JSON file in ComfyUI's input folder."
        )
    frames = len(pose) if isinstance(pose, list) else 1
    names = dict(zip(keypoints.image_index.tolist(), keypoints.images, strict=True))
    known = [names.get(image, "") for image in range(frames)]
    return read_pose(pose, tuple(known) if all(known) else None)


class ApplyLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPApplyLandmarks",
            display_name="Apply Landmark Map",
            description="Turns unnamed keypoints into the named joints that a landmark map was fitted to.",
            search_aliases=["name keypoints", "pose", "stable keypoints"],
            inputs=[
                types.Points.Input("keypoints", tooltip="Detected with the tokens that the map was fitted with."),
                types.Landmarks.Input("landmark_map", tooltip="From Fit Landmark Map or Load Landmark Map."),
            ],
            outputs=[
                types.Points.Output(
                    display_name="landmarks",
                    tooltip="Keypoints with the joints' names and bones, for Draw Keypoints, Keypoints to "
                    "Pose or, as named COCO, Keypoints to JSON.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, landmark_map) -> io.NodeOutput:
        return io.NodeOutput(landmark_map.apply(keypoints))


class SaveLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPSaveLandmarks",
            display_name="Save Landmark Map",
            description="Writes a landmark map to models/keypoint_landmarks as one small .safetensors file.",
            search_aliases=["stable keypoints", "save pose map"],
            is_output_node=True,
            inputs=[
                types.Landmarks.Input("landmark_map", tooltip="From Fit Landmark Map."),
                *name_inputs("my_landmarks"),
            ],
            outputs=[path_output()],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        return types.verdict(folders.relative_save_path, name)

    @classmethod
    def execute(cls, landmark_map, name, overwrite=False) -> io.NodeOutput:
        return save(landmark_map, folders.landmarks_folder(), name, overwrite)


class LoadLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPLoadLandmarks",
            display_name="Load Landmark Map",
            description="A landmark map saved earlier in models/keypoint_landmarks.",
            search_aliases=["stable keypoints", "load pose map"],
            inputs=[
                io.Combo.Input(
                    "landmarks_file",
                    options=folders.landmark_files(),
                    tooltip="A .safetensors file written by Save Landmark Map or the command line. Press R "
                    "to refresh the list.",
                ),
            ],
            outputs=[types.Landmarks.Output(display_name="landmark_map", tooltip="For Apply Landmark Map.")],
        )

    @classmethod
    def validate_inputs(cls, landmarks_file) -> bool | str:
        return types.verdict(folders.landmark_path, landmarks_file)

    @classmethod
    def fingerprint_inputs(cls, landmarks_file) -> str:
        return folders.file_fingerprint(folders.landmark_path(landmarks_file))

    @classmethod
    def execute(cls, landmarks_file) -> io.NodeOutput:
        from stablekp_core.pose.fitting import LandmarkMap

        return io.NodeOutput(LandmarkMap.load(folders.landmark_path(landmarks_file)))


class MapKeypointsByHand(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPMapByHand",
            display_name="Map Keypoints by Hand",
            description="Says which keypoint is which joint, for keypoints that already sit on joints.",
            search_aliases=["name keypoints", "pose mapping", "stable keypoints"],
            inputs=[
                types.Points.Input("keypoints", tooltip="From Detect Keypoints."),
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
                types.Points.Output(
                    display_name="landmarks",
                    tooltip="All joints of the pose in its order, for Draw Keypoints and Keypoints to Pose.",
                )
            ],
        )

    @classmethod
    def execute(cls, keypoints, pose, table) -> io.NodeOutput:
        from stablekp_core.pose.writing import map_by_hand

        return io.NodeOutput(map_by_hand(keypoints, table, POSES[pose]))
