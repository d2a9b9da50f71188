"""The same layers, arranged to run fast: memory layouts, convolutions as matrix products, in-place blocks of the VAE.

Results are the same up to rounding. Works on modules of diffusers in place; it knows nothing of tokens, latents or
files.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F


def arrange(unet, vae, device: torch.device, dtype: torch.dtype, *, shared: bool = False) -> None:
    """Prepare a UNet and a VAE that lie on `device` in `dtype` for use without training of their weights, in place.

    shared: another program uses the weights too; another layout would copy each of them, so they keep theirs
    (on one CPU core, a bf16 convolution of 1280 channels at 8 x 8 pixels then takes 13.8 ms, not 10.9).
    """
    if not shared:
        layout = convolution_layout(device, dtype)
        unet.to(memory_format=layout)
        vae.to(memory_format=layout)
    for block in vae.encoder.modules():
        if type(block).__name__ == "ResnetBlock2D" and block.output_scale_factor == 1:
            block.forward = partial(_residual, block)
    if device.type == "cpu" and dtype == torch.bfloat16 and not shared:
        for module in unet.modules():
            if type(module) is torch.nn.Conv2d and _is_plain(module):
                module.forward = partial(_convolution, module)


def convolution_layout(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """The memory layout of weights in which convolutions are fast: channels_last on CUDA and in bf16 on a CPU; the
    default one in fp32 on a CPU, where rounding would otherwise depend on the batch size."""
    fast = device.type == "cuda" or (device.type == "cpu" and dtype == torch.bfloat16)
    return torch.channels_last if fast else torch.contiguous_format


def _residual(block, x: torch.Tensor, temb: None = None) -> torch.Tensor:
    """A residual block of the VAE, in place where nothing else holds the values; only for use without gradients."""
    y = block.conv1(F.silu(block.norm1(x), inplace=True))
    y = block.conv2(F.silu(block.norm2(y), inplace=True))
    return y.add_(x if block.conv_shortcut is None else block.conv_shortcut(x))


def _is_plain(conv: torch.nn.Conv2d) -> bool:
    """A 3 x 3 convolution that keeps the size."""
    same = conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1) and conv.dilation == (1, 1)
    return same and conv.groups == 1 and conv.padding_mode == "zeros"


def _convolution(conv: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution x [B, C, H, W] -> [B, O, H, W]. With fewer pixels than channels, a bf16 convolution on a CPU spends
    most of its time rewriting the weights into the layout of its library; a matrix product reads them as they are."""
    b, c, h, w = x.shape
    if b * h * w > min(c, conv.out_channels) or conv.weight.dtype != x.dtype:
        return F.conv2d(x, conv.weight, conv.bias, padding=1)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # [O, 9C]; a view, as the weights are channels_last
    return F.linear(_Neighbours.apply(x.permute(0, 2, 3, 1)), weight, conv.bias).permute(0, 3, 1, 2)


class _Neighbours(torch.autograd.Function):
    """[B, H, W, C] -> [B, H, W, 9C]: each pixel's 3 x 3 neighbourhood, row by row, zeros outside."""

    @staticmethod
    def forward(ctx, x):
        padded, (_, h, w, _) = F.pad(x, (0, 0, 1, 1, 1, 1)), x.shape
        return torch.cat([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)

    @staticmethod
    def backward(ctx, grad):
        b, h, w, _ = grad.shape
        parts = grad.chunk(9, -1)
        out = grad.new_zeros((b, h + 2, w + 2, parts[0].shape[-1]), dtype=torch.float32)
        for n, part in enumerate(parts):
            i, j = divmod(n, 3)
            out[:, i : i + h, j : j + w] += part
        return out[:, 1:-1, 1:-1].to(grad.dtype)
