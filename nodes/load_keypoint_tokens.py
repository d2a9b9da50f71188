"""Load Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets
from .comfy.messages import show_text


class LoadKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLoadTokens",
            display_name="Load Keypoint Tokens",
            category="files",
            description="Tokens saved earlier, in models/keypoint_tokens or rescued from a cancelled training in "
            "output/keypoint_tokens.",
            search_aliases=["stable keypoints", "load keypoints"],
            inputs=[
                io.Combo.Input(
                    "tokens_file",
                    options=folders.token_files(),
                    tooltip="A .safetensors file written by Save Keypoint Tokens or the command line, or the authors' "
                    "embedding.pt with its indices.pt beside it. Press R to refresh the list.",
                ),
                io.Boolean.Input(
                    "newest",
                    default=False,
                    optional=True,
                    tooltip="Of a file and those that Save Keypoint Tokens numbered after it (cat, cat_00002, …), load "
                    "the newest. Off: the chosen file; the node says when there is a newer one.",
                ),
            ],
            outputs=[sockets.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints, or to train on.")],
        )

    @classmethod
    def validate_inputs(cls, tokens_file) -> bool | str:
        return sockets.verdict(folders.token_path, tokens_file)

    @classmethod
    def fingerprint_inputs(cls, tokens_file, newest=False) -> str:
        name = folders.newest_tokens(tokens_file) if newest else tokens_file
        return folders.file_fingerprint(folders.token_path(name))

    @classmethod
    def execute(cls, tokens_file, newest=False) -> io.NodeOutput:
        from stablekp_core.keypoints.published_tokens import open_tokens

        latest = folders.newest_tokens(tokens_file)
        name = latest if newest else tokens_file
        tokens = open_tokens(folders.token_path(name))
        hint = "" if name == latest else f"\n{latest} is newer; turn newest on to load it"
        show_text(f"{name}: {tokens.num_keypoints} keypoints{hint}")
        return io.NodeOutput(tokens)
