"""Random-weight models that a real ComfyUI takes for Stable Diffusion 1.5, as small as it accepts."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sd15_writer import FULL_VAE, Shapes, random_tensors, unet_shapes, vae_shapes  # noqa: E402

#: ComfyUI tells SD 1.5 by 320 base channels and a context of 768; two levels give the four
#: cross-attentions needed.
UNET = {"channels": 320, "mult": (1, 1), "res_blocks": 1, "attention": (True, True), "context": 768}
_CLIP_LAYERS, _CLIP_WIDTH = 12, 768


def clip_shapes() -> Shapes:
    """Names and shapes of the CLIP-L text encoder; ComfyUI builds it in this size whatever the file holds."""
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (49408, _CLIP_WIDTH),
        "embeddings.position_embedding.weight": (77, _CLIP_WIDTH),
    }
    for layer in range(_CLIP_LAYERS):
        for name, size in (
            *((f"self_attn.{part}_proj", (_CLIP_WIDTH, _CLIP_WIDTH)) for part in ("q", "k", "v", "out")),
            ("mlp.fc1", (4 * _CLIP_WIDTH, _CLIP_WIDTH)),
            ("mlp.fc2", (_CLIP_WIDTH, 4 * _CLIP_WIDTH)),
            ("layer_norm1", (_CLIP_WIDTH,)),
            ("layer_norm2", (_CLIP_WIDTH,)),
        ):
            shapes[f"encoder.layers.{layer}.{name}.weight"] = size
            shapes[f"encoder.layers.{layer}.{name}.bias"] = size[:1]
    shapes["final_layer_norm.weight"] = shapes["final_layer_norm.bias"] = (_CLIP_WIDTH,)
    return shapes


def control_shapes() -> Shapes:
    """Names and shapes of a ControlNet for `UNET`: its way down, a zero convolution per block, and the
    hint's.
    """
    shapes = {
        key: shape
        for key, shape in unet_shapes(**UNET).items()
        if key.startswith(("time_embed.", "input_blocks.", "middle_block."))
    }
    width = UNET["channels"]
    blocks = {key.split(".")[1] for key in shapes if key.startswith("input_blocks.")}
    for name in (*(f"zero_convs.{i}.0" for i in range(len(blocks))), "middle_block_out.0"):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width, width, 1, 1), (width,)
    widths = (3, 16, 16, 32, 32, 96, 96, 256, width)
    for i, (inner, outer) in enumerate(zip(widths, widths[1:], strict=False)):
        shapes[f"input_hint_block.{2 * i}.weight"] = (outer, inner, 3, 3)
        shapes[f"input_hint_block.{2 * i}.bias"] = (outer,)
    return shapes


def write_models(models: Path) -> None:
    """Fill a ComfyUI `models` folder: SD 1.5, the same for inpainting, and a ControlNet, all of random
    weights.
    """
    half = torch.float16
    for folder in ("checkpoints", "controlnet", "diffusers"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    parts = {
        "model.diffusion_model.": unet_shapes(**UNET),
        "first_stage_model.": vae_shapes(**FULL_VAE),
        "cond_stage_model.transformer.text_model.": clip_shapes(),
    }
    tensors = {
        prefix + key: value
        for seed, (prefix, shapes) in enumerate(parts.items())
        for key, value in random_tensors(shapes, seed, half).items()
    }
    save_file(tensors, str(models / "checkpoints" / "random_sd15.safetensors"))
    # The smallest checkpoint that is not SD 1.5 but has all its parts: the 9 input channels of an
    # inpainting model.
    inpainting = random_tensors(unet_shapes(**UNET, in_channels=9), 3, half)
    tensors |= {f"model.diffusion_model.{key}": value for key, value in inpainting.items()}
    save_file(tensors, str(models / "checkpoints" / "random_inpainting.safetensors"))
    control = {f"control_model.{key}": value for key, value in random_tensors(control_shapes(), 7, half).items()}
    save_file(control, str(models / "controlnet" / "random_control.safetensors"))
