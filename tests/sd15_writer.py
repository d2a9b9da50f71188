"""Writes random-weight checkpoints in Stable Diffusion 1.5's original (LDM) layout, real or reduced in size.

The tensor list follows the original network's construction, block by block, and knows nothing of diffusers'
names, so it checks the loader instead of repeating it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]

FULL_UNET = {
    "channels": 320,
    "mult": (1, 2, 4, 4),
    "res_blocks": 2,
    "attention": (True, True, True, False),
    "context": 768,
}
FULL_VAE = {"channels": 128, "mult": (1, 2, 4, 4), "res_blocks": 2}
# The same structure, with all of its up-path cross-attentions, in 3 M parameters.
SMALL_UNET = {**FULL_UNET, "channels": 32, "mult": (1, 2, 2, 2), "context": 48}
SMALL_VAE = {"channels": 32, "mult": (1, 1, 1, 2), "res_blocks": 1}


def _affine(shapes: Shapes, name: str, *size: int, bias: bool = True) -> None:
    shapes[f"{name}.weight"] = size
    if bias:
        shapes[f"{name}.bias"] = size[:1]


def _unet_res_block(shapes: Shapes, name: str, inner: int, outer: int, time: int) -> None:
    _affine(shapes, f"{name}.in_layers.0", inner)
    _affine(shapes, f"{name}.in_layers.2", outer, inner, 3, 3)
    _affine(shapes, f"{name}.emb_layers.1", outer, time)
    _affine(shapes, f"{name}.out_layers.0", outer)
    _affine(shapes, f"{name}.out_layers.3", outer, outer, 3, 3)
    if inner != outer:
        _affine(shapes, f"{name}.skip_connection", outer, inner, 1, 1)


def _transformer(shapes: Shapes, name: str, width: int, context: int, linear: bool) -> None:
    kernel = () if linear else (1, 1)
    _affine(shapes, f"{name}.norm", width)
    _affine(shapes, f"{name}.proj_in", width, width, *kernel)
    block = f"{name}.transformer_blocks.0"
    for attention, keys in (("attn1", width), ("attn2", context)):
        for part, size in (("to_q", width), ("to_k", keys), ("to_v", keys)):
            _affine(shapes, f"{block}.{attention}.{part}", width, size, bias=False)
        _affine(shapes, f"{block}.{attention}.to_out.0", width, width)
    _affine(shapes, f"{block}.ff.net.0.proj", 8 * width, width)
    _affine(shapes, f"{block}.ff.net.2", width, 4 * width)
    for i in (1, 2, 3):
        _affine(shapes, f"{block}.norm{i}", width)
    _affine(shapes, f"{name}.proj_out", width, width, *kernel)


def unet_shapes(
    channels=320,
    mult=(1, 2, 4, 4),
    res_blocks=2,
    attention=(True, True, True, False),
    context=768,
    in_channels=4,
    linear=False,
    label_width=0,
) -> Shapes:
    """Bare LDM names and shapes of a UNet; `label_width` > 0 adds SDXL's label embedding."""
    shapes: Shapes = {}
    time, width = 4 * channels, channels
    _affine(shapes, "time_embed.0", time, channels)
    _affine(shapes, "time_embed.2", time, time)
    if label_width:
        _affine(shapes, "label_emb.0.0", time, label_width)
    _affine(shapes, "input_blocks.0.0", channels, in_channels, 3, 3)
    skips, i = [channels], 1
    for level, factor in enumerate(mult):
        for _ in range(res_blocks):
            _unet_res_block(shapes, f"input_blocks.{i}.0", width, factor * channels, time)
            width = factor * channels
            if attention[level]:
                _transformer(shapes, f"input_blocks.{i}.1", width, context, linear)
            skips.append(width)
            i += 1
        if level < len(mult) - 1:
            _affine(shapes, f"input_blocks.{i}.0.op", width, width, 3, 3)
            skips.append(width)
            i += 1
    _unet_res_block(shapes, "middle_block.0", width, width, time)
    _transformer(shapes, "middle_block.1", width, context, linear)
    _unet_res_block(shapes, "middle_block.2", width, width, time)
    i = 0
    for level in reversed(range(len(mult))):
        for j in range(res_blocks + 1):
            _unet_res_block(shapes, f"output_blocks.{i}.0", width + skips.pop(), mult[level] * channels, time)
            width, slot = mult[level] * channels, 1
            if attention[level]:
                _transformer(shapes, f"output_blocks.{i}.1", width, context, linear)
                slot = 2
            if level and j == res_blocks:
                _affine(shapes, f"output_blocks.{i}.{slot}.conv", width, width, 3, 3)
            i += 1
    _affine(shapes, "out.0", channels)
    _affine(shapes, "out.2", 4, channels, 3, 3)
    return shapes


def _vae_res_block(shapes: Shapes, name: str, inner: int, outer: int) -> None:
    _affine(shapes, f"{name}.norm1", inner)
    _affine(shapes, f"{name}.conv1", outer, inner, 3, 3)
    _affine(shapes, f"{name}.norm2", outer)
    _affine(shapes, f"{name}.conv2", outer, outer, 3, 3)
    if inner != outer:
        _affine(shapes, f"{name}.nin_shortcut", outer, inner, 1, 1)


def _vae_middle(shapes: Shapes, name: str, width: int) -> None:
    _vae_res_block(shapes, f"{name}.block_1", width, width)
    _affine(shapes, f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        _affine(shapes, f"{name}.attn_1.{part}", width, width, 1, 1)
    _vae_res_block(shapes, f"{name}.block_2", width, width)


def vae_shapes(channels=128, mult=(1, 2, 4, 4), res_blocks=2, latents=4) -> Shapes:
    """Bare LDM names and shapes of a VAE."""
    shapes: Shapes = {}
    _affine(shapes, "encoder.conv_in", channels, 3, 3, 3)
    width = channels
    for level, factor in enumerate(mult):
        for j in range(res_blocks):
            _vae_res_block(shapes, f"encoder.down.{level}.block.{j}", width, factor * channels)
            width = factor * channels
        if level < len(mult) - 1:
            _affine(shapes, f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    _vae_middle(shapes, "encoder.mid", width)
    _affine(shapes, "encoder.norm_out", width)
    _affine(shapes, "encoder.conv_out", 2 * latents, width, 3, 3)
    _affine(shapes, "quant_conv", 2 * latents, 2 * latents, 1, 1)
    _affine(shapes, "post_quant_conv", latents, latents, 1, 1)
    _affine(shapes, "decoder.conv_in", width, latents, 3, 3)
    _vae_middle(shapes, "decoder.mid", width)
    for level in reversed(range(len(mult))):
        for j in range(res_blocks + 1):
            _vae_res_block(shapes, f"decoder.up.{level}.block.{j}", width, mult[level] * channels)
            width = mult[level] * channels
        if level:
            _affine(shapes, f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    _affine(shapes, "decoder.norm_out", width)
    _affine(shapes, "decoder.conv_out", 3, width, 3, 3)
    return shapes


def random_tensors(shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Weights that keep activations of order one: scaled by fan-in, norms near one, small biases."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values /= math.sqrt(math.prod(shape[1:]))
        else:
            values = values * 0.05 + (1.0 if key.endswith("weight") else 0.0)
        tensors[key] = values.to(dtype)
    return tensors


def sd15_tensors(
    unet: dict = SMALL_UNET, vae: dict | None = SMALL_VAE, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """A whole checkpoint in memory, with some of the tensors that a loader has to leave alone."""
    tensors = {
        f"model.diffusion_model.{key}": value for key, value in random_tensors(unet_shapes(**unet), seed, dtype).items()
    }
    if vae is not None:
        tensors |= {
            f"first_stage_model.{key}": value
            for key, value in random_tensors(vae_shapes(**vae), seed + 1, dtype).items()
        }
    tensors["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = torch.ones(8, dtype=dtype)
    tensors["model_ema.decay"] = torch.tensor(0.5)
    tensors["betas"] = torch.linspace(0, 1, 1000)
    return tensors


def write_checkpoint(
    path: Path, unet: dict = SMALL_UNET, vae: dict | None = SMALL_VAE, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Save such a checkpoint; `FULL_UNET` and `FULL_VAE` give the real sizes. Returns `path`."""
    save_file(sd15_tensors(unet, vae, seed, dtype), str(path))
    return path
