"""The least time a training step could take: its floating-point operations over what the device is seen to reach."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode


def reached_flops(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """FLOP/s of the best of five square matrix products."""
    a = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def step_floor(backbone, side: int) -> dict:
    """For one image and its view at `side` pixels: FLOPs of encoding the view, of the truncated UNet, of its backward
    pass, and the seconds they would take at the measured peak; with the full UNet's FLOPs for comparison."""
    device, cells = backbone.device, side // backbone.factor
    tokens = torch.randn(100, backbone.width, device=device, requires_grad=True)
    latents = torch.randn(2, 4, cells, cells, device=device)
    dtype = next(backbone.unet.parameters()).dtype

    def count(function) -> int:
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    vae = count(lambda: backbone.encode(torch.rand(1, 3, side, side)))
    with torch.no_grad():
        fixed = tokens.detach()
        forward = count(lambda: backbone.queries(latents, 0, fixed))
        whole = count(lambda: backbone.unet(latents.to(dtype), 0, fixed[None].expand(2, -1, -1).to(dtype)))
    both = count(lambda: sum(q.float().sum() for q in backbone.queries(latents, 0, tokens)).backward())
    peak = reached_flops(device, dtype)
    return {
        "side": side,
        "vae_tflop": vae / 1e12,
        "unet_forward_tflop": forward / 1e12,
        "full_unet_forward_tflop": whole / 1e12,
        "unet_backward_tflop": (both - forward) / 1e12,
        "peak_tflops": peak / 1e12,
        "floor_s": (vae + both) / peak,
    }
