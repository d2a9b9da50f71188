"""Edit Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import sockets
from .comfy.messages import show_text


class EditKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPEditTokens",
            display_name="Edit Keypoint Tokens",
            category="train",
            description="Drops, reorders, renames and recolours the keypoints of tokens. Save them to keep it.",
            search_aliases=["rename keypoints", "drop keypoints", "stable keypoints"],
            inputs=[
                sockets.Tokens.Input("tokens", tooltip="From Train or Load Keypoint Tokens."),
                io.String.Input(
                    "edits",
                    default="",
                    multiline=True,
                    tooltip="One edit per line: drop 3 7, rename 0 nose, reorder 2 0 1, recolour 0 #ff8000, "
                    "skeleton 0-1, 1-2. Points are numbers or names as they were before the first line.",
                ),
            ],
            outputs=[
                sockets.Tokens.Output(display_name="tokens", tooltip="The edited tokens."),
                io.String.Output(display_name="keypoints", tooltip="Number and name of each keypoint now."),
            ],
        )

    @classmethod
    def execute(cls, tokens, edits) -> io.NodeOutput:
        from stablekp_core.keypoints.edit_script import edit_tokens

        edited = edit_tokens(tokens, edits)
        text = "\n".join(f"{number} {name}" for number, name in enumerate(edited.names))
        show_text(text)
        return io.NodeOutput(edited, text)
