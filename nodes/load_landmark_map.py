"""Load Landmark Map."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets


class LoadLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLoadLandmarks",
            display_name="Load Landmark Map",
            category="files",
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
            outputs=[sockets.Landmarks.Output(display_name="landmark_map", tooltip="For Apply Landmark Map.")],
        )

    @classmethod
    def validate_inputs(cls, landmarks_file) -> bool | str:
        return sockets.verdict(folders.landmark_path, landmarks_file)

    @classmethod
    def fingerprint_inputs(cls, landmarks_file) -> str:
        return folders.file_fingerprint(folders.landmark_path(landmarks_file))

    @classmethod
    def execute(cls, landmarks_file) -> io.NodeOutput:
        from stablekp_core.pose.fitting import LandmarkMap

        return io.NodeOutput(LandmarkMap.load(folders.landmark_path(landmarks_file)))
