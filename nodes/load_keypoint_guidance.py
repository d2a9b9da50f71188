"""Load Keypoint Guidance."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import folders, sockets


class LoadKeypointGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLoadGuidance",
            display_name="Load Keypoint Guidance",
            description="Guidance saved earlier in models/keypoint_guidance.",
            search_aliases=["stable keypoints", "load guidance"],
            inputs=[
                io.Combo.Input(
                    "guidance_file",
                    options=folders.guidance_files(),
                    tooltip="A .safetensors file written by Save Keypoint Guidance or the command line. Press R to "
                    "refresh the list.",
                ),
            ],
            outputs=[sockets.Guidance.Output(display_name="guidance", tooltip="For Guide by Keypoints.")],
        )

    @classmethod
    def validate_inputs(cls, guidance_file) -> bool | str:
        return sockets.verdict(folders.guidance_path, guidance_file)

    @classmethod
    def fingerprint_inputs(cls, guidance_file) -> str:
        return folders.file_fingerprint(folders.guidance_path(guidance_file))

    @classmethod
    def execute(cls, guidance_file) -> io.NodeOutput:
        from stablekp_core.guidance.readers import KeypointGuidance

        return io.NodeOutput(KeypointGuidance.load(folders.guidance_path(guidance_file)))
