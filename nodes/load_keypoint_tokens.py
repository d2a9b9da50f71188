"""Load Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets


class LoadKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
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
            outputs=[sockets.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints, or to train on.")],
        )

    @classmethod
    def validate_inputs(cls, tokens_file) -> bool | str:
        return sockets.verdict(folders.token_path, tokens_file)

    @classmethod
    def fingerprint_inputs(cls, tokens_file) -> str:
        return folders.file_fingerprint(folders.token_path(tokens_file))

    @classmethod
    def execute(cls, tokens_file) -> io.NodeOutput:
        from stablekp_core.keypoints.tokens import KeypointTokens

        return io.NodeOutput(KeypointTokens.load(folders.token_path(tokens_file)))
