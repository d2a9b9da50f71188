"""Save Landmark Map."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets
from .comfy.saving import name_inputs, path_output, save


class SaveLandmarkMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPSaveLandmarks",
            display_name="Save Landmark Map",
            category="files",
            description="Writes a landmark map to models/keypoint_landmarks as one small .safetensors file.",
            search_aliases=["stable keypoints", "save pose map"],
            is_output_node=True,
            inputs=[
                sockets.Landmarks.Input("landmark_map", tooltip="From Fit Landmark Map."),
                *name_inputs("my_landmarks"),
            ],
            outputs=[path_output()],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        return sockets.verdict(folders.relative_save_path, name)

    @classmethod
    def execute(cls, landmark_map, name, overwrite=False) -> io.NodeOutput:
        return save(landmark_map, folders.landmarks_folder(), name, overwrite)
