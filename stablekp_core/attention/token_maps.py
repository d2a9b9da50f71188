"""From low-resolution attention logits to token maps (Eq. 2 and 3): upsample, softmax over tokens, mean over heads and
layers.

Upsampling is linear over space, so upsampling the queries (the paper, Sec. 3.3) and upsampling the logits give the same
numbers; the second costs a fraction. The backward pass saves only the low-resolution logits. The work on one image is
done by tiled.py, or on CUDA by triton_kernels.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch

from . import tiled
from .tiled import resize_matrix


@torch.no_grad()
def token_maps(logits: Sequence[torch.Tensor], size: int, only: torch.Tensor | None = None) -> torch.Tensor:
    """Token maps M: softmax over tokens, mean over heads (Eq. 2) and layers (Eq. 3); without gradient.

    logits: Q K^T / sqrt(d) per layer, fp32 [B, heads, s*s, N]. Returns fp32 [B, N, R, R] in [0, 1] with R = size, which
    sum to 1 over N at each pixel; with `only` (int64 [K], token indices) the maps [B, K, R, R] of those tokens, for
    which memory does not grow with N.
    """
    k = logits[0].shape[-1] if only is None else len(only)
    out = logits[0].new_empty(len(logits[0]), k, size, size)
    fused = _fused(out.device)
    for i in range(len(out)):
        (fused.image_maps if fused else tiled.tiled_maps)([x[i] for x in logits], size, only, out[i])
    return out


@lru_cache(maxsize=8)
def _fused(device: torch.device):
    """The module of Triton kernels where they work on `device`, else None; a warning says once why CUDA has to do
    without them."""
    if device.type != "cuda":
        return None
    try:
        from . import triton_kernels

        reason = triton_kernels.usable(device)
    except ImportError as error:
        reason = f"{error}"
    if reason:
        warnings.warn(
            f"Token maps are computed by plain PyTorch, the fused kernels do not work here ({reason}).", stacklevel=3
        )
    return None if reason else triton_kernels


class _ChosenMaps(torch.autograd.Function):
    """Maps of a few tokens per image, taken from maps already computed; the softmax is recomputed in backward."""

    @staticmethod
    def forward(ctx, maps, chosen, size, *logits):
        ctx.save_for_backward(chosen, *logits)
        ctx.size = size
        return torch.gather(maps, 1, chosen[:, :, None, None].expand(-1, -1, size, size))

    @staticmethod
    def backward(ctx, grad_out):
        chosen, *logits = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in logits]
        fused = _fused(grad_out.device)
        backward = fused.backward_layer if fused else tiled.tiled_backward
        for i, first in enumerate(chosen):
            wanted = grad_out[i].permute(1, 2, 0)  # [R, R, K]
            for layer, grad in zip(logits, grads, strict=True):
                weight = 1.0 / (len(logits) * layer.shape[1])
                backward(layer[i], wanted * weight, first, grad[i])
        return None, None, None, *grads


def chosen_maps(logits: Sequence[torch.Tensor], maps: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Token maps [B, K, R, R] of the tokens `chosen` (int64 [B, K]), with a gradient to the logits.

    maps: [B, N, R, R], the result of `token_maps(logits, R)`, computed before the choice was known.
    """
    return _ChosenMaps.apply(maps, chosen, maps.shape[-1], *logits)


def coarse_maps(logits: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Token maps [B, N, R, R] in [0, 1] without upsampled queries (an ablation of the paper, Table 4): softmax at the
    resolution of each layer, then bilinear resizing to R = size. Differentiable.

    logits: as for `token_maps`.
    """
    total = sum(_resized(layer.softmax(-1).mean(1), size, "bilinear") for layer in logits)
    return total / len(logits)


def summed_logits(logits: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """The logits of all layers and heads, resized and added up: [B, heads, s*s, N] per layer -> [B, N, size, size].
    Linear in the logits, and so in the embeddings of the tokens."""
    return sum(_resized(layer.sum(1), size, "bicubic") for layer in logits)


def _resized(values: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Values [B, s*s, N] of a layer's pixels as images [B, N, size, size]."""
    side = math.isqrt(values.shape[1])
    low = values.transpose(1, 2).unflatten(-1, (side, side))  # [B, N, s, s]
    a = resize_matrix(side, size, low, mode)
    return a @ low @ a.T


def spatial_softmax_maps(logits: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """The probability of each spatial position for a token: softmax of `summed_logits` over positions instead of over
    tokens. Returns [B, N, size, size] in [0, 1]; each map sums to 1."""
    return summed_logits(logits, size).flatten(2).softmax(-1).unflatten(-1, (size, size))


def stacked_features(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate the features [B, 1, s*s, D] of L layers (Backbone.features), resized to the side G of the finest
    layer: [B, L*D, G, G]."""
    side = math.isqrt(max(layer.shape[2] for layer in layers))
    return torch.cat([summed_logits([layer], side) for layer in layers], 1)
