"""Save Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets
from .comfy.saving import name_inputs, path_output, save


class SaveKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPSaveTokens",
            display_name="Save Keypoint Tokens",
            category="files",
            description="Writes learned tokens to models/keypoint_tokens as one small .safetensors file.",
            search_aliases=["stable keypoints", "save keypoints"],
            is_output_node=True,
            inputs=[
                sockets.Tokens.Input("tokens", tooltip="From Train Keypoint Tokens."),
                *name_inputs("my_keypoints"),
            ],
            outputs=[path_output()],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        return sockets.verdict(folders.relative_save_path, name)

    @classmethod
    def execute(cls, tokens, name, overwrite=False) -> io.NodeOutput:
        return save(tokens, folders.tokens_folder(), name, overwrite)
