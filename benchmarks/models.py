"""Models and inputs of the benchmarks: the full Stable Diffusion 1.5 shape with random weights, and the demo model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from stablekp_core.backbone.backbone import Backbone
from stablekp_core.backbone.devices import DTYPES
from stablekp_core.backbone.loading import load_backbone

LAYERS = ((1280, 16), (1280, 16), (1280, 16), (640, 32))  # (channels, side) of the captured layers at 512 px
HEADS, WIDTH = 8, 768


def random_sd15(dtype: str = "fp32", device: str = "cpu", seed: int = 0) -> Backbone:
    """Stable Diffusion 1.5's UNet (860 M parameters) and VAE with random weights, made in `dtype`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(seed)
    torch.set_default_dtype(DTYPES[dtype])
    try:
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=WIDTH, attention_head_dim=HEADS)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    finally:
        torch.set_default_dtype(torch.float32)
    vae.decoder = torch.nn.Identity()  # never used here, 50 M parameters
    place = torch.device(device)
    return Backbone(unet.to(place), vae.to(place), "random SD 1.5", "", place, DTYPES[dtype])


def demo(dtype: str = "fp32", device: str = "cpu") -> Backbone:
    """The small model that ships with the package."""
    return load_backbone("demo", dtype=dtype, device=device)


@dataclass
class MapInputs:
    """Random inputs of the map stage for one image at Stable Diffusion 1.5's shapes."""

    features: list[torch.Tensor]  # [1, s*s, C] per layer
    to_q: list[torch.Tensor]  # [C, C]
    queries: list[torch.Tensor]  # [1, s*s, C]
    keys: list[torch.Tensor]  # [h, N, d]
    chosen: torch.Tensor  # int64 [K]

    def leaves(self) -> list[torch.Tensor]:
        return [*self.features, *self.queries, *self.keys]

    def reset(self) -> None:
        for x in self.leaves():
            x.grad = None


def map_inputs(
    tokens: int, keypoints: int = 10, seed: int = 0, device: str = "cpu", layers=LAYERS, heads: int = HEADS
) -> MapInputs:
    """Logits come out with a standard deviation of about 2."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=g)).to(device)

    features = [draw(1, s * s, c).requires_grad_() for c, s in layers]
    to_q = [draw(c, c, scale=c**-0.5) for c, _ in layers]
    queries = [torch.nn.functional.linear(x.detach(), w).requires_grad_() for x, w in zip(features, to_q, strict=True)]
    keys = [draw(heads, tokens, c // heads, scale=2.0).requires_grad_() for c, _ in layers]
    return MapInputs(features, to_q, queries, keys, torch.randperm(tokens, generator=g)[:keypoints].to(device))
