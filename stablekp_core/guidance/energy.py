"""How far noisy latents are from a pose, and in which direction they get nearer: the energy and its gradient.

For a reader's map M_k of keypoint k (a softmax over the positions of the image), a target mu_k and a weight w_k:

    E = - sum_k w_k log sum_p exp(-|p - mu_k|^2 / (2 sigma^2)) M_k(p)

that is, minus the logarithm of the share of the map that lies under a Gaussian at the target. Knows no schedule, no
sampler and no files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..backbone.backbone import Backbone
from .readers import KeypointGuidance

SCALE = 256.0  # of the energy before the backward pass in half precision, so that small gradients do not vanish


def log_maps(backbone: Backbone, noisy: torch.Tensor, timestep: float, guidance: KeypointGuidance) -> torch.Tensor:
    """Logarithms of the readers' maps, float32 [B, K, h', w'], at the finest captured layer's size; each map sums to 1.

    noisy: latents [B, 4, h, w] as the UNet takes them at `timestep` of 1000 (variance preserving); h and w may differ.
    Differentiable in `noisy`.
    """
    found = backbone.queries(noisy, round(timestep), guidance.prompt)
    logits = backbone.logits(found, guidance.at(timestep))  # [B, heads, P, K] per layer
    layers = []
    for one in logits:
        size = layer_size(one.shape[2], *noisy.shape[-2:])
        layers.append(one.sum(1).transpose(1, 2).unflatten(-1, size))  # [B, K, h', w']
    size = max((layer.shape[-2:] for layer in layers), key=math.prod)
    total = sum(
        layer
        if layer.shape[-2:] == size
        else F.interpolate(layer, size=tuple(size), mode="bicubic", align_corners=False)
        for layer in layers
    )
    return total.flatten(2).log_softmax(-1).unflatten(-1, size)


def layer_size(positions: int, height: int, width: int) -> tuple[int, int]:
    """(h', w') of a layer with so many positions, of latents height x width that were halved some times, rounded up."""
    while height * width > positions:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != positions:
        raise ValueError(f"{positions} positions are not those of a halved {height} x {width}")
    return height, width


def target_log_maps(targets: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Logarithms [B, K, h', w'] of Gaussians of peak 1 at targets [B, K, 2] (x, y) in the unit square of the image;
    sigma in units of its longer side."""
    height, width = size
    longest = max(size)
    y, x = (
        ((torch.arange(n, device=targets.device) + 0.5) / n - targets[..., i, None]) * n / longest
        for i, n in ((1, height), (0, width))
    )  # [B, K, h'], [B, K, w']: away from the target, in longer sides
    return -(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * sigma**2)


def energy(maps: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, sigma: float) -> torch.Tensor:
    """E [B] of log maps [B, K, h', w'] for targets [B, K, 2] and weights [B, K]; 0 where all of each weighted
    keypoint's map lies on its target, more the farther away it lies."""
    under = (maps + target_log_maps(targets, tuple(maps.shape[-2:]), sigma)).flatten(2).logsumexp(-1)  # [B, K]
    return -(weights * under).sum(1)


def energy_gradient(
    backbone: Backbone,
    guidance: KeypointGuidance,
    noisy: torch.Tensor,
    timestep: float,
    targets: torch.Tensor,
    weights: torch.Tensor,
    sigma: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies [B] and their gradients [B, 4, h, w], float32, in latents `noisy` as in `log_maps`.

    A function of its arguments alone: nothing is drawn and nothing is changed. Works inside `no_grad`.
    """
    scale = SCALE if next(backbone.unet.parameters()).dtype == torch.float16 else 1.0
    with torch.enable_grad():
        x = noisy.detach().float().requires_grad_(True)
        found = energy(log_maps(backbone, x, timestep, guidance), targets, weights, sigma)
        (gradient,) = torch.autograd.grad(found.sum() * scale, x)
    return found.detach(), gradient / scale
