"""Guide by Keypoints."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.config import GuideConfig

from .comfy import sockets
from .comfy.backbones import check_model
from .comfy.guiding import guided
from .comfy.runtime import plain_tensors


class GuideByKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPGuide",
            display_name="Guide by Keypoints",
            description="Steers sampling so that the generated object takes the pose of given keypoints. Works with "
            "every KSampler, and beside LoRAs, ControlNets and regional prompts; the MODEL given stays as it is.",
            search_aliases=["stable keypoints", "pose guidance", "pose control", "animate"],
            inputs=_inputs(),
            outputs=[
                io.Model.Output(display_name="model", tooltip="For KSampler."),
                io.Int.Output(
                    display_name="poses", tooltip="How many poses there are: batch_size of Empty Latent Image."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, backbone, guidance, pose, tokens=None, points="", **settings) -> io.NodeOutput:
        from stablekp_core.guidance.targets import pose_targets

        check_model(model)
        if tokens is not None:
            guidance.check_tokens(tokens.digest)
        values = {name: value for name, value in settings.items() if name not in ("start_percent", "end_percent")}
        defaults = GuideConfig()
        config = GuideConfig(
            start=settings.get("start_percent", defaults.start), end=settings.get("end_percent", defaults.end), **values
        )
        pose_targets(pose, guidance, 1, 1, points)  # what is wrong with the pose is said before anything is sampled
        with plain_tensors(), backbone.open(1) as opened:
            guidance.check_model(opened.hash, opened.name)
        return io.NodeOutput(guided(model, backbone, guidance, pose, points, config), len(pose))


def _inputs() -> list:
    d, more = GuideConfig(), {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        io.Model.Input("model", tooltip="The MODEL that samples, of Stable Diffusion 1.4 or 1.5; LoRAs may be on it."),
        sockets.Backbone.Input(
            "backbone",
            tooltip="The one that the guidance was fitted with. From Keypoint Backbone from MODEL it costs no memory.",
        ),
        sockets.Guidance.Input("guidance", tooltip="From Fit Keypoint Guidance or Load Keypoint Guidance."),
        sockets.Points.Input(
            "pose",
            tooltip="Keypoints from Detect Keypoints with the same tokens. Several make a batch: set the latent's "
            "batch_size to as many. Of another aspect ratio than the latent, a pose is fitted inside.",
        ),
        io.Float.Input(
            "strength", default=d.strength, min=0.0, max=100.0, step=0.1, tooltip="Length of the steps; 0 = none."
        ),
        io.Float.Input(
            "start_percent", default=d.start, min=0.0, max=1.0, step=0.01, tooltip="Where in the sampling to begin."
        ),
        io.Float.Input(
            "end_percent", default=d.end, min=0.0, max=1.0, step=0.01, tooltip="Where to end; the rest only sharpens."
        ),
        io.String.Input(
            "points",
            default="",
            optional=True,
            tooltip="Which keypoints guide, as numbers from 0 or names, such as 0, 3, nose; the others stay free. "
            "Empty: all, each as much as its confidence.",
        ),
        sockets.Tokens.Input(
            "tokens", optional=True, tooltip="If connected, guidance that was fitted for other tokens is refused."
        ),
        io.Int.Input(
            "gradient_steps",
            default=d.gradient_steps,
            min=1,
            max=20,
            **more,
            tooltip="Steps towards the pose in each sampling step; each takes about as long as the sampling step.",
        ),
        io.Int.Input(
            "batch_size",
            default=d.batch_size,
            min=1,
            max=256,
            **more,
            tooltip="Images whose steps are found at once. Lowered by itself when memory runs out.",
        ),
    ]
