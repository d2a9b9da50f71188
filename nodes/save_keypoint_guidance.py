"""Save Keypoint Guidance."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets
from .comfy.saving import name_inputs, path_output, save


class SaveKeypointGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPSaveGuidance",
            display_name="Save Keypoint Guidance",
            description="Writes guidance to models/keypoint_guidance as one small .safetensors file.",
            search_aliases=["stable keypoints", "save guidance"],
            is_output_node=True,
            inputs=[
                sockets.Guidance.Input("guidance", tooltip="From Fit Keypoint Guidance."),
                *name_inputs("my_guidance"),
            ],
            outputs=[path_output()],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        return sockets.verdict(folders.relative_save_path, name)

    @classmethod
    def execute(cls, guidance, name, overwrite=False) -> io.NodeOutput:
        return save(guidance, folders.guidance_folder(), name, overwrite)
