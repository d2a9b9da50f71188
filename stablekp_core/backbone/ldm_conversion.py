"""Stable Diffusion 1.x weights in the original (LDM) layout, as diffusers modules.

The architecture is read off the tensor shapes, so reduced models load by the same code as the real one.
What shapes do not show is fixed to Stable Diffusion 1.x: 8 attention heads, 32 normalisation groups,
latents scaled by 0.18215. Modules are built on the meta device and given the tensors themselves, so nothing
is copied: a view on weights that another program holds in memory costs a few megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from ..errors import KeypointError
from .recognition import (
    UNET_PREFIX,
    VAE_PREFIX,
    WANTED,
    Shapes,
    context_width,
    unsupported_unet,
    without_prefix,
)

# Names inside a residual block (and the downsampler's convolution), LDM to diffusers.
_UNET_LEAVES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op": "conv",
}
_UNET_FIXED = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}
# The VAE's one attention layer was renamed twice: LDM, early diffusers, today's diffusers.
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def unet_layout(shapes: Shapes) -> tuple[dict, dict[str, str]]:
    """The diffusers config of a UNet and the new name of each of its tensors.

    `shapes`: bare LDM names (no `model.diffusion_model.`) to shapes. Returns keyword arguments for
    `UNet2DConditionModel` and {LDM name: diffusers name}. Raises KeypointError for any other kind of model.
    """
    problem = unsupported_unet(shapes)
    if problem:
        raise KeypointError(f"This is {problem}; {WANTED}.")
    down, channels, depths, attention = _down_path(shapes)
    up, up_attention = _up_path(shapes)
    if len(up_attention) != len(channels):
        raise KeypointError(
            f"This is not a Stable Diffusion UNet: {len(channels)} levels go down and "
            f"{len(up_attention)} go up; {WANTED}."
        )
    modules = {**_UNET_FIXED, **down, **up}
    projection = shapes.get("middle_block.1.proj_in.weight", (0, 0, 1, 1))
    config = {
        "sample_size": 64,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes.get("out.2.weight", (4,))[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": depths[0] if len(set(depths)) == 1 else tuple(depths),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in up_attention),
        "cross_attention_dim": context_width(shapes),
        "attention_head_dim": 8,  # diffusers' name; for Stable Diffusion 1.x it is the number of heads
        "use_linear_projection": len(projection) == 2,
    }
    return config, {key: _rename_unet(key, modules) for key in shapes}


def vae_layout(shapes: Shapes) -> tuple[dict, dict[str, str]]:
    """The diffusers config of a VAE and the new name of each of its tensors.

    `shapes`: bare LDM names (no `first_stage_model.`) to shapes. Leftovers of the VAE's own training (loss,
    EMA) get no new name. Returns keyword arguments for `AutoencoderKL` and {LDM name: diffusers name}. Raises
    KeypointError for anything but a VAE with encoder and decoder.
    """
    needed = ("encoder.conv_out.weight", "encoder.down.0.block.0.conv2.weight", "decoder.conv_in.weight")
    if any(key not in shapes for key in needed):
        raise KeypointError("This is not a Stable Diffusion VAE; one with encoder and decoder is needed.")
    levels = _count(shapes, "encoder.down")
    config = {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": shapes["encoder.conv_out.weight"][0] // 2,
        "block_out_channels": tuple(
            shapes.get(f"encoder.down.{i}.block.0.conv2.weight", (0,))[0] for i in range(levels)
        ),
        "layers_per_block": _count(shapes, "encoder.down.0.block"),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    }
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    return config, {key: _rename_vae(key, levels) for key in shapes if key.startswith(parts)}


def unet_from_ldm(state: Mapping[str, torch.Tensor], share: bool = True):
    """A frozen `UNet2DConditionModel` of LDM tensors, with or without the `model.diffusion_model.` prefix.

    With `share` the module's parameters use the given tensors' storage (same dtype, same device, no copy);
    without it they are copies. Tensors made in inference mode are wrapped so that autograd accepts them,
    still without a copy. The tensors given are never changed. Raises KeypointError when the tensors are not
    those of a Stable Diffusion 1.x UNet.
    """
    from diffusers import UNet2DConditionModel

    state = without_prefix(state, UNET_PREFIX)
    config, names = unet_layout({key: tuple(value.shape) for key, value in state.items()})
    return build(UNet2DConditionModel, config, {names[key]: value for key, value in state.items()}, share)


def vae_from_ldm(state: Mapping[str, torch.Tensor], share: bool = True):
    """A frozen `AutoencoderKL` made of LDM tensors, with or without the `first_stage_model.` prefix.

    Sharing and errors as for `unet_from_ldm`; the attention's 1×1 convolutions become matrices by viewing.
    """
    from diffusers import AutoencoderKL

    state = without_prefix(state, VAE_PREFIX)
    config, names = vae_layout({key: tuple(value.shape) for key, value in state.items()})
    return build(AutoencoderKL, config, {new: state[old] for old, new in names.items()}, share)


def build(model_class, config: dict, state: Mapping[str, torch.Tensor], share: bool = True):
    """A frozen module of `model_class` whose parameters are the tensors of `state` (diffusers names).

    Every tensor must be there, with its shape, and none besides; KeypointError names the first that are not.
    """
    # Outside inference mode even when called within it: gradients must be able to flow through these weights.
    with torch.inference_mode(False):
        with torch.device("meta"):
            module = model_class.from_config(config)
        state = modern_vae_names(state)
        if not share:
            state = {key: value.detach().clone() for key, value in state.items()}
        state = {key: _own_view(value) for key, value in state.items()}
        _check_fit({key: value.shape for key, value in module.state_dict().items()}, state)
        module.requires_grad_(False).load_state_dict(state, assign=True, strict=True)
    return module.eval()


def modern_vae_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VAE attention under today's names and as matrices [C, C], by views; other tensors as they are."""
    out = {}
    for key, value in state.items():
        match = re.fullmatch(r"((?:en|de)coder\.mid_block\.attentions\.0\.)(.+)\.(weight|bias)", key)
        if match:
            key = f"{match[1]}{_VAE_ATTENTION.get(match[2], match[2])}.{match[3]}"
            value = value.flatten(1) if value.ndim == 4 else value  # [C, C, 1, 1] -> [C, C]
        out[key] = value
    return out


def without_inference_tensors(module: torch.nn.Module) -> None:
    """Let gradients flow through a module whose weights were made or moved in inference mode, in place, without a
    copy."""
    for parameter in module.parameters():
        if parameter.is_inference() or parameter.data.is_inference():
            parameter.data = _own_view(parameter.data)


def _own_view(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor object of our own on the same storage, usable in autograd."""
    if not tensor.is_inference():
        return tensor.detach()
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def _check_fit(wanted: Mapping[str, torch.Size], state: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    wrong = sorted(key for key in wanted.keys() & state.keys() if wanted[key] != state[key].shape)
    for problem, keys in (
        ("is missing", missing),
        ("is not part of such a model", extra),
        ("has the wrong shape", wrong),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise KeypointError(
                f"The weights do not fit a Stable Diffusion 1.x model: {keys[0]}{more} {problem}; {WANTED}."
            )


def _count(shapes: Shapes, stem: str) -> int:
    """How many numbered children `stem.0`, `stem.1`, … there are."""
    found = [int(m[1]) for m in (re.match(re.escape(stem) + r"\.(\d+)\.", key) for key in shapes) if m]
    return max(found) + 1 if found else 0


def _down_path(shapes: Shapes) -> tuple[dict[str, str], list[int], list[int], list[bool]]:
    """Module names of the down path; per level its channels, number of residual blocks, and attention."""
    modules, channels, depths, attention = {}, [0], [0], [False]
    for i in range(1, _count(shapes, "input_blocks")):
        block, level = f"input_blocks.{i}", len(channels) - 1
        if f"{block}.0.op.weight" in shapes:
            modules[f"{block}.0"] = f"down_blocks.{level}.downsamplers.0"
            for numbers in (channels, depths):
                numbers.append(0)
            attention.append(False)
            continue
        modules[f"{block}.0"] = f"down_blocks.{level}.resnets.{depths[-1]}"
        modules[f"{block}.1"] = f"down_blocks.{level}.attentions.{depths[-1]}"
        channels[-1] = shapes.get(f"{block}.0.out_layers.3.weight", (0,))[0]
        attention[-1] |= f"{block}.1.proj_in.weight" in shapes
        depths[-1] += 1
    if 0 in channels:
        raise KeypointError(f"This is not a Stable Diffusion UNet (a level has no residual block); {WANTED}.")
    return modules, channels, depths, attention


def _up_path(shapes: Shapes) -> tuple[dict[str, str], list[bool]]:
    """Module names of the up path, and per level (deepest first) whether it has attention."""
    modules, attention, j = {}, [False], 0
    for i in range(_count(shapes, "output_blocks")):
        block, level = f"output_blocks.{i}", len(attention) - 1
        modules[f"{block}.0"] = f"up_blocks.{level}.resnets.{j}"
        has_attention = f"{block}.1.proj_in.weight" in shapes
        attention[-1] |= has_attention
        if has_attention:
            modules[f"{block}.1"] = f"up_blocks.{level}.attentions.{j}"
        upsampler = f"{block}.{2 if has_attention else 1}"
        j += 1
        if f"{upsampler}.conv.weight" in shapes:
            modules[upsampler] = f"up_blocks.{level}.upsamplers.0"
            attention.append(False)
            j = 0
    return modules, attention


def _rename_unet(key: str, modules: Mapping[str, str]) -> str:
    """`input_blocks.1.0.in_layers.0.weight` -> `down_blocks.0.resnets.0.norm1.weight`."""
    parts = key.split(".")
    depth = 3 if parts[0] in ("input_blocks", "output_blocks") else 2
    module = modules.get(".".join(parts[:depth]))
    if module is None:
        return key  # left as it is, so that the strict fit names it
    inner = ".".join(parts[depth:-1])
    return ".".join(part for part in (module, _UNET_LEAVES.get(inner, inner), parts[-1]) if part)


def _rename_vae(key: str, levels: int) -> str:
    """`decoder.up.3.block.0.nin_shortcut.weight` -> `decoder.up_blocks.0.resnets.0.conv_shortcut.weight`."""
    key = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.", key)
    # LDM numbers the decoder's levels from the finest, diffusers from the coarsest.
    key = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.", key)
    key = re.sub(r"_blocks\.(\d+)\.block\.", r"_blocks.\1.resnets.", key)
    key = re.sub(r"\.(down|up)sample\.", r".\1samplers.0.", key)
    key = re.sub(r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", key)
    key = key.replace(".mid.attn_1.", ".mid_block.attentions.0.")
    return key.replace(".nin_shortcut.", ".conv_shortcut.").replace("coder.norm_out.", "coder.conv_norm_out.")
