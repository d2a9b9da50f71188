"""Fit Keypoint Guidance."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import sockets
from .comfy.batches import single_images
from .comfy.messages import show_text
from .comfy.runtime import Progress, plain_tensors


class FitKeypointGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPFitGuidance",
            display_name="Fit Keypoint Guidance",
            description="Learns to read keypoints in the noise of unfinished images, so that they can guide sampling "
            "into a pose. Needs no labels; once for each kind of thing.",
            search_aliases=["stable keypoints", "pose guidance", "readout guidance"],
            is_input_list=True,
            inputs=[
                sockets.Backbone.Input(
                    "backbone", tooltip="The model the tokens were trained with: also the one that shall generate."
                ),
                sockets.Tokens.Input("tokens", tooltip="From Train Keypoint Tokens or Load Keypoint Tokens."),
                io.Image.Input(
                    "images", tooltip="30 to 200 images of the kind the tokens were trained on, such as those."
                ),
                sockets.seed_input("Of the noise.", optional=True),
            ],
            outputs=[
                sockets.Guidance.Output(display_name="guidance", tooltip="For Guide by Keypoints; save it."),
                io.String.Output(
                    display_name="report",
                    tooltip="How far keypoints read at each timestep are from those found on the clean image, on "
                    "images left out of the fit.",
                ),
            ],
        )

    @classmethod
    def execute(cls, backbone, tokens, images, seed=(0,)) -> io.NodeOutput:
        from stablekp_core.guidance.fitting import fit_guidance
        from stablekp_core.images.image_set import ImageSet

        arrays = ImageSet.from_arrays(single_images(images, "Fit Keypoint Guidance (images)"))
        progress, phases = Progress(1000), []

        def show(phase: str, done: int, total: int) -> None:
            if phase not in phases:
                phases.append(phase)
            begun = 100 if len(phases) > 1 else 0  # detecting is about a tenth of the work
            progress.step(begun + (900 if begun else 100) * done / max(total, 1))

        with plain_tensors(), backbone[0].open(8) as model:
            guidance = fit_guidance(model, tokens[0], arrays, seed=seed[0], on_progress=show)
        show_text(guidance.report())
        return io.NodeOutput(guidance, guidance.report())
