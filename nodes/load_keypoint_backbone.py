"""Load Keypoint Backbone."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.backbone.devices import choose_dtype
from stablekp_core.config import DTYPE_CHOICES
from stablekp_core.errors import KeypointError

from .comfy import folders, sockets
from .comfy.backbones import FileBackbone
from .comfy.runtime import plain_tensors

DEMO = "demo model (built in)"
_DIFFUSERS = "diffusers/"


def backbone_choices() -> list[str]:
    """What Load Keypoint Backbone offers: checkpoints, then diffusers folders, and always the demo
    model, first.
    """
    return [DEMO, *folders.checkpoints(), *(_DIFFUSERS + name for name in folders.diffusers_folders())]


def backbone_path(choice: str) -> str:
    """What the core's loader takes for a choice: a path, or `demo`."""
    if choice == DEMO:
        return "demo"
    if choice.startswith(_DIFFUSERS) and choice not in folders.checkpoints():
        return str(folders.diffusers_path(choice[len(_DIFFUSERS) :]))
    if choice not in folders.checkpoints():
        raise KeypointError(
            f"there is no checkpoint {choice!r} in models/checkpoints (only .safetensors files are "
            "read); choose one from the list, or press R to refresh it."
        )
    import folder_paths

    return folder_paths.get_full_path_or_raise("checkpoints", choice)


class LoadKeypointBackbone(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLoadBackbone",
            display_name="Load Keypoint Backbone",
            category="train",
            description="The frozen diffusion model whose attention finds the keypoints: a Stable "
            "Diffusion 1.4/1.5 "
            "checkpoint, a diffusers folder, or the small demo model that comes with the pack.",
            search_aliases=["load keypoint model", "stable diffusion keypoints", "stable keypoints"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=backbone_choices(),
                    default=DEMO,
                    tooltip="A checkpoint from models/checkpoints, a folder from models/diffusers, or the "
                    "built-in demo model, which only knows cartoon faces and paper dolls.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPE_CHOICES),
                    default="auto",
                    optional=True,
                    extra_dict=sockets.ADVANCED,
                    tooltip="Number format of the model. auto: half precision on a graphics card, fp32 "
                    "on the CPU. Tokens are always learned in float32.",
                ),
            ],
            outputs=[
                sockets.Backbone.Output(
                    display_name="backbone",
                    tooltip="Connect it to Train Keypoint Tokens and Detect Keypoints.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model) -> bool | str:
        return sockets.verdict(backbone_path, model)

    @classmethod
    def fingerprint_inputs(cls, model, dtype="auto") -> str:
        from pathlib import Path

        path = backbone_path(model)
        return "demo" if path == "demo" else folders.file_fingerprint(Path(path))

    @classmethod
    def execute(cls, model, dtype="auto") -> io.NodeOutput:
        import comfy.model_management as model_management

        from stablekp_core.backbone.checkpoint import load_model

        # Loaded into main memory: it goes to the card when a node opens it, and leaves again afterwards.
        wanted = choose_dtype(dtype, model_management.get_torch_device())
        with plain_tensors():
            return io.NodeOutput(FileBackbone(load_model(backbone_path(model), wanted)))
