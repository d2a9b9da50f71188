"""One way to open a model: a file, folder or name becomes a frozen `Backbone` on a device, laid out to run fast."""

from __future__ import annotations

import warnings

import torch

from .backbone import Backbone
from .checkpoint import load_model
from .devices import choose_device, choose_dtype
from .memory_layout import arrange


def compile_blocks(backbone: Backbone) -> bool:
    """Compile the residual blocks, the feed-forward parts and the encoder of the VAE with torch.compile, in place, and
    run them once. Where that fails, the backbone is left as it was, a warning says why, and False is returned."""
    parts = [m for m in backbone.unet.modules() if type(m).__name__ in ("ResnetBlock2D", "FeedForward")]
    parts.append(backbone.vae.encoder)
    for part in parts:
        part.compile()
    side = backbone.input_side()
    try:
        latents = backbone.encode(torch.zeros(1, 3, side, side))
        tokens = torch.zeros(2, backbone.width, device=backbone.device, requires_grad=True)
        sum(q.sum() for q in backbone.queries(latents, 0, tokens)).backward()
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways; the notice says which
        for part in parts:
            part._compiled_call_impl = None
        reason = str(error).splitlines()[0] if str(error) else ""
        warnings.warn(
            f"torch.compile does not work here ({type(error).__name__}: {reason}); going on without.", stacklevel=2
        )
        return False
    return True


def make_backbone(
    unet,
    vae,
    name: str,
    hash: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    shared: bool = False,
    recompute: bool = False,
) -> Backbone:
    """A Backbone of a diffusers UNet and VAE that lie on `device`, arranged to run fast (see `memory_layout.arrange`).

    name, hash: for messages and for tokens (see checkpoint.LoadedModel). dtype: what UNet and VAE compute in. shared:
    another program uses the weights too, so they keep their storage and their layout. recompute: see `Backbone`. Raises
    KeypointError when the UNet has fewer than 4 cross-attentions on the way up.
    """
    arrange(unet, vae, device, dtype, shared=shared)
    return Backbone(unet, vae, name, hash, device, dtype, recompute)


def load_backbone(
    model: str = "demo", dtype: str = "auto", device: str = "auto", compile: bool = False, recompute: bool = False
) -> Backbone:
    """Open a model and put it on a device.

    model: "demo", a .safetensors checkpoint, a diffusers folder or a hub id (see checkpoint.load_model). dtype: "auto",
    "fp32", "bf16" or "fp16", in which the weights are held and used. device: "auto" or a PyTorch device. compile: see
    `compile_blocks`; pays off over hundreds of steps. recompute: see `Backbone`. Raises KeypointError for a model that
    is not Stable Diffusion 1.x, and for a dtype or device that cannot be used.
    """
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    loaded = load_model(model, kind)
    unet, vae = loaded.unet.to(place), loaded.vae.to(place)
    backbone = make_backbone(unet, vae, loaded.name, loaded.hash, place, kind, recompute=recompute)
    backbone.prediction = loaded.prediction
    if compile:
        compile_blocks(backbone)
    return backbone
