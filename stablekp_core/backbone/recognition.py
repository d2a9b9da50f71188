"""What kind of model a file or folder holds, recognised by the names and shapes of its tensors alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
WANTED = "a Stable Diffusion 1.4 or 1.5 model is needed"

EPSILON, VELOCITY = "epsilon", "v_prediction"  # what a UNet was trained to tell, in diffusers' words

Shapes = Mapping[str, tuple[int, ...]]


def outer_prefix(keys: Iterable[str]) -> str:
    """What stands before the usual name of every tensor in a checkpoint that a trainer wrapped once more, such as
    "state_dict." or "module."; "" for most."""
    found = (re.match(rf"(.*?){re.escape(UNET_PREFIX)}", key) for key in keys)
    return min((match[1] for match in found if match), key=len, default="")


def told_prediction(keys: Iterable[str], metadata: Mapping[str, str] | None = None) -> str:
    """`VELOCITY` where a single file says that its UNet predicts v: by a tensor named "v_pred", as ComfyUI takes it, or
    by the metadata of the ModelSpec; else `EPSILON`, which is what Stable Diffusion 1.x was trained for."""
    metadata = metadata or {}
    told = str(metadata.get("modelspec.prediction_type") or metadata.get("modelspec.predict_key") or "").lower()
    return VELOCITY if "v_pred" in set(keys) or told.startswith("v") else EPSILON


def without_prefix(state: Mapping, prefix: str) -> dict:
    """The entries under `prefix`, with it removed; all entries when none has it (already bare names)."""
    inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return inner or dict(state)


def unsupported_unet(shapes: Shapes) -> str | None:
    """What model a UNet's bare LDM tensor shapes belong to, if not Stable Diffusion 1.x; else None."""
    if any(key.startswith("joint_blocks.") for key in shapes):
        return "a Stable Diffusion 3 model"
    if any(key.startswith("double_blocks.") for key in shapes):
        return "a Flux-like model"
    if any(key.startswith(("transformer_blocks.", "blocks.", "layers.")) for key in shapes):
        return "a diffusion transformer, which has no UNet"
    if "input_blocks.0.0.weight" not in shapes:
        return "not a Stable Diffusion UNet"
    return unsupported_sizes(
        shapes["input_blocks.0.0.weight"][1],
        context_width(shapes),
        any(key.startswith("label_emb.") for key in shapes),
    )


def unsupported_sizes(in_channels: int, context: int, extra_condition: bool) -> str | None:
    """What model the sizes of a UNet belong to, if not Stable Diffusion 1.x; else None.

    in_channels: of the first convolution. context: width of the text embedding (0: no cross-attention).
    extra_condition: whether size or class embeddings are added to the time step.
    """
    if context == 1280 and extra_condition:
        return "an SDXL refiner model"
    if extra_condition or context == 2048:
        return "an SDXL model"
    if context == 1024:
        return "a Stable Diffusion 2 model"
    if in_channels == 9:
        return "an inpainting model (9 input channels)"
    if in_channels == 8:
        return "an InstructPix2Pix model (8 input channels)"
    if in_channels != 4:
        return f"a UNet with {in_channels} input channels"
    if context == 0:
        return "a UNet without text cross-attention"
    return None


def context_width(shapes: Shapes) -> int:
    """Width of the text embedding that the cross-attentions take; 0 without any."""
    widths = [shape[1] for key, shape in shapes.items() if key.endswith(".attn2.to_k.weight")]
    return widths[0] if widths else 0


def unsupported_file(shapes: Shapes) -> str | None:
    """What a safetensors file holds, by its names and shapes, if not an SD 1.x checkpoint; else None."""

    def has(*starts: str) -> bool:
        return any(key.startswith(starts) for key in shapes)

    parts = sum(bool(re.search(r"lora_|\.lora\.|\.(hada|lokr)_", key)) for key in shapes)
    if 2 * parts > len(shapes):  # a few stray ones in a whole checkpoint do no harm
        return "a LoRA, which only changes a model"
    if has("control_model.", "input_hint_block.", "controlnet_", "zero_convs."):
        return "a ControlNet"
    if has(UNET_PREFIX):
        problem = unsupported_unet(without_prefix(shapes, UNET_PREFIX))
        missing = "" if has(VAE_PREFIX + "encoder.") else "a checkpoint without a VAE"
        return problem or missing or None
    if has("model_ema."):
        return "the averaged (EMA) weights alone, under names of their own"
    if has("unet.down_blocks.", "unet.up_blocks."):
        return "a diffusers pipeline in one file, without its configs"
    if has("down_blocks.", "up_blocks."):
        return (
            "the UNet of a diffusers folder, without its config and VAE (put it as "
            "unet/diffusion_pytorch_model.safetensors into a copy of such a folder of Stable Diffusion 1.5)"
        )
    if has("double_blocks.", "joint_blocks.", "transformer_blocks.", "input_blocks."):
        return f"{unsupported_unet(shapes) or 'a UNet alone'}, without a VAE"
    if has("encoder.conv_in.", "decoder.conv_in.", VAE_PREFIX):
        return "a VAE alone"
    return "not a Stable Diffusion checkpoint (none of its tensors belongs to a UNet)"


def unsupported_config(config: dict) -> str | None:
    """What model a diffusers UNet config describes, when it is not Stable Diffusion 1.x; else None."""
    widths = config.get("cross_attention_dim") or 1280  # diffusers' default
    context = max(widths) if isinstance(widths, list) else widths
    extra_condition = bool(config.get("addition_embed_type"))
    return unsupported_sizes(config.get("in_channels", 4), context, extra_condition)
