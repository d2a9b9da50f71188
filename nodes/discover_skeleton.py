"""Discover Skeleton."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from stablekp_core.errors import KeypointError
from stablekp_core.pose.skeleton import discover_skeleton

from .comfy import sockets
from .comfy.messages import show_text


class DiscoverSkeleton(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPSkeleton",
            display_name="Discover Skeleton",
            category="pose",
            description="Joins keypoints that move together, over many images, with lines, and writes them into "
            "the tokens.",
            search_aliases=["bones", "edges", "skeleton", "scribble", "stable keypoints"],
            inputs=[
                sockets.Points.Input("keypoints", tooltip="Of 30 or more images in different poses; 5 are the least."),
                sockets.Tokens.Input("tokens", tooltip="The tokens the keypoints were detected with."),
                io.Float.Input(
                    "extra_lines",
                    default=sockets.defaults_of(discover_skeleton).extra,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Every keypoint is joined once. Further pairs that agree at least this much are "
                    "joined too; 1 for none.",
                ),
                io.String.Input(
                    "edges",
                    default="",
                    multiline=True,
                    tooltip="Empty: discovered. Else these lines are used instead, such as 0-1, 1-2, with "
                    "numbers or names: copy the text output here and edit it.",
                ),
            ],
            outputs=[
                sockets.Tokens.Output(display_name="tokens", tooltip="With the skeleton, for Save Keypoint Tokens."),
                sockets.Points.Output(
                    display_name="keypoints",
                    tooltip="The same keypoints with the skeleton, for Draw Keypoints in the style scribble.",
                ),
                io.String.Output(display_name="edges", tooltip="The skeleton as text."),
            ],
        )

    @classmethod
    def execute(cls, keypoints, tokens, extra_lines, edges) -> io.NodeOutput:
        from stablekp_core.keypoints.schema import format_skeleton, parse_skeleton

        if tokens.num_keypoints != keypoints.num_keypoints:
            raise KeypointError(
                f"the tokens have {tokens.num_keypoints} keypoints but {keypoints.num_keypoints} are connected "
                "to Discover Skeleton; connect the tokens these keypoints were detected with."
            )
        if edges.strip():
            found = parse_skeleton(edges, keypoints.num_keypoints, keypoints.names)
        else:
            found = discover_skeleton(keypoints, extra=extra_lines).edges
        text = format_skeleton(found)
        show_text(text)
        return io.NodeOutput(tokens.with_skeleton(found), replace(keypoints, skeleton=found), text)
