"""The gradient through a UNet of Stable Diffusion 1.5's full size, of random weights, in half precision."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_vae

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.guidance.energy import energy_gradient
from stablekp_core.guidance.readers import KeypointGuidance

KEYPOINTS = 10


def full_size(dtype: torch.dtype) -> Backbone:
    """860 M parameters without the usual initialisation, which takes longer than the test."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8, sample_size=64
        )
    unet = unet.to_empty(device="cpu").to(dtype)
    g = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        if parameter.ndim > 1:
            fan = parameter[0].numel()
            block = torch.randn(1 << 16, generator=g).to(dtype) * fan**-0.5
            parameter.data.view(-1).copy_(block.repeat(-(-parameter.numel() // len(block)))[: parameter.numel()])
        else:
            parameter.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return Backbone(unet, make_vae(), "random", "0", dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "side"), [(torch.float16, 16), (torch.bfloat16, 16)])
def test_gradients_of_the_full_size_are_finite(dtype, side):
    backbone = full_size(dtype)
    g = torch.Generator().manual_seed(1)
    readers = torch.randn(1, KEYPOINTS, 4, 768, generator=g)
    guidance = KeypointGuidance((500,), readers, torch.randn(1, 768, generator=g), (0.1,), 0.2, "t", "0")
    noisy, targets = torch.randn(1, 4, side, side, generator=g), torch.rand(1, KEYPOINTS, 2, generator=g)
    energy, gradient = energy_gradient(backbone, guidance, noisy, 500, targets, torch.ones(1, KEYPOINTS), 0.1)
    assert energy.isfinite().all() and gradient.isfinite().all() and gradient.abs().amax() > 0
