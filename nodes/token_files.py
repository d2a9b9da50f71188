"""Save and Load Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io

from . import folders, types
from .saving import name_inputs, path_output, save


class SaveKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPSaveTokens",
            display_name="Save Keypoint Tokens",
            description="Writes learned tokens to models/keypoint_tokens as one small .safetensors file.",
            search_aliases=["stable keypoints", "save keypoints"],
            is_output_node=True,
            inputs=[
                types.Tokens.Input("tokens", tooltip="From Train Keypoint Tokens."),
                *name_inputs("my_keypoints"),
            ],
            outputs=[path_output()],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        return types.verdict(folders.relative_save_path, name)

    @classmethod
    def execute(cls, tokens, name, overwrite=False) -> io.NodeOutput:
        return save(tokens, folders.tokens_folder(), name, overwrite)


class LoadKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPLoadTokens",
            display_name="Load Keypoint Tokens",
            description="Tokens saved earlier, in models/keypoint_tokens or rescued from a cancelled "
            "training in "
            "output/keypoint_tokens.",
            search_aliases=["stable keypoints", "load keypoints"],
            inputs=[
                io.Combo.Input(
                    "tokens_file",
                    options=folders.token_files(),
                    tooltip="A .safetensors file written by Save Keypoint Tokens or the command line. "
                    "Press R to refresh the list.",
                ),
            ],
            outputs=[types.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints, or to train on.")],
        )

    @classmethod
    def validate_inputs(cls, tokens_file) -> bool | str:
        return types.verdict(folders.token_path, tokens_file)

    @classmethod
    def fingerprint_inputs(cls, tokens_file) -> str:
        return folders.file_fingerprint(folders.token_path(tokens_file))

    @classmethod
    def execute(cls, tokens_file) -> io.NodeOutput:
        from stablekp_core.keypoints.tokens import KeypointTokens

        return io.NodeOutput(KeypointTokens.load(folders.token_path(tokens_file)))
