"""The method as it is usually written down: the yardstick of speed.py and memory.py, in plain PyTorch.

Features of the captured layers are upsampled before the query projection, logits and softmax of all heads are
materialised at full resolution and kept for backward, the whole UNet runs, one image per pass with accumulated
gradients, every view is encoded by the VAE, divergences use materialised Gaussians, farthest points are found in Python
loops. Other attentions use the stock scaled-dot-product processors, so that the comparison does not profit from them.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stablekp_core.images import affine
from stablekp_core.training import losses


def maps_from_features(features, to_q, keys, heads: int, size: int) -> torch.Tensor:
    """[N, R, R]: features [1, s*s, C] and keys [h, N, d] per layer, to_q [C, C] per layer."""
    upsampled = [F.linear(_upsample(x, size), w) for x, w in zip(features, to_q, strict=True)]  # [1, R*R, C]
    return _mean_maps(upsampled, keys, heads, size)


def maps_from_queries(queries, keys, heads: int, size: int) -> torch.Tensor:
    """[N, R, R]: queries [1, s*s, C], already projected, and keys [h, N, d] per layer."""
    return _mean_maps([_upsample(q, size) for q in queries], keys, heads, size)


def _upsample(x: torch.Tensor, size: int) -> torch.Tensor:
    side = math.isqrt(x.shape[1])
    image = x.transpose(1, 2).unflatten(-1, (side, side))  # [1, C, s, s]
    return F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def _mean_maps(queries, keys, heads: int, size: int) -> torch.Tensor:
    collected = []
    for q, k in zip(queries, keys, strict=True):
        q = q[0].unflatten(-1, (heads, -1)).transpose(0, 1)  # [h, R*R, d]
        logits = q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5  # [h, R*R, N]
        collected.append(logits.softmax(-1).mean(0))
    return torch.stack(collected).mean(0).T.unflatten(-1, (size, size))


def token_maps(backbone, noisy: torch.Tensor, timestep: int, tokens: torch.Tensor, size: int) -> torch.Tensor:
    """Differentiable maps [N, R, R] of one noisy latent [1, 4, h, w]: a full pass of the UNet."""
    unet, inputs = backbone.unet, {}
    dtype = next(unet.parameters()).dtype

    def keep(module, args, name):
        inputs[name] = args[0]

    hooks = [
        unet.get_submodule(name).register_forward_pre_hook(lambda m, a, name=name: keep(m, a, name))
        for name in backbone.layers
    ]
    try:
        unet(noisy.to(dtype), timestep, tokens[None].to(dtype))
    finally:
        for hook in hooks:
            hook.remove()
    queries, keys = [], []
    for name in backbone.layers:
        attn = unet.get_submodule(name)
        queries.append(attn.to_q(_upsample(inputs[name], size)).float())
        keys.append(attn.to_k(tokens.to(dtype)).float().unflatten(-1, (attn.heads, -1)).transpose(0, 1))
    return _mean_maps_by_layer(queries, keys, [unet.get_submodule(n).heads for n in backbone.layers], size)


def _mean_maps_by_layer(queries, keys, heads, size):
    return torch.stack([_mean_maps([q], [k], h, size) for q, k, h in zip(queries, keys, heads, strict=True)]).mean(0)


def most_gaussian(maps: torch.Tensor, count: int, sigma: float) -> torch.Tensor:
    """Indices of the `count` smallest KL(Gaussian at the peak || spatial softmax) of maps [N, R, R]."""
    size = maps.shape[-1]
    flat = maps.flatten(1)
    peak = flat.argmax(1)
    along = torch.arange(size, dtype=torch.float32, device=maps.device)
    y, x = (peak // size).float(), (peak % size).float()
    distance = (along[None, :, None] - y[:, None, None]) ** 2 + (along[None, None] - x[:, None, None]) ** 2
    g = torch.exp(-distance / (2 * sigma**2)).flatten(1) + 1e-5  # [N, R*R]
    g = g / g.sum(1, keepdim=True)
    divergence = (g * (g.log() - flat.log_softmax(1))).sum(1)
    return divergence.argsort(stable=True)[:count]


def farthest_points(points: torch.Tensor, count: int) -> list[int]:
    """Farthest-point sampling of points [M, 2] with a host read per pair."""
    m, best, pair = len(points), -1.0, (0, 1)
    for i in range(m):
        for j in range(i + 1, m):
            d = (points[i] - points[j]).square().sum().item()
            if d > best:
                best, pair = d, (i, j)
    taken = list(pair)
    while len(taken) < count:
        gaps = [
            -1.0 if i in taken else min((points[i] - points[j]).square().sum().item() for j in taken) for i in range(m)
        ]
        taken.append(max(range(m), key=lambda i: gaps[i]))
    return taken


def training_step(backbone, config, tokens, images, theta, noise) -> float:
    """One step's gradient, accumulated over images [B, 3, S, S] in [0, 1], into tokens.grad; returns the loss.

    theta [B, 2, 3], noise [2B, 4, h, w] (images first). The losses are those of the preset "reference".
    """
    b, total = len(images), 0.0
    images, theta = images.to(backbone.device), theta.to(backbone.device)
    for i in range(b):
        image = images[i : i + 1]
        view = affine.warp(image, theta[i : i + 1])
        maps = []
        for x, eps in ((image, noise[i : i + 1]), (view, noise[b + i : b + i + 1])):
            noisy = backbone.add_noise(backbone.encode(x), eps, config.timestep)
            maps.append(token_maps(backbone, noisy, config.timestep, tokens, config.map_size))
        first, second = maps
        with torch.no_grad():
            top = most_gaussian(first, config.candidates, config.sigma)
            index = second[top].flatten(1).argmax(1)
            points = torch.stack([index // config.map_size, index % config.map_size], 1)
            chosen = top[farthest_points(points, config.keypoints)]
            index = first[chosen].flatten(1).argmax(1)
            center = torch.stack([index // config.map_size, index % config.map_size], 1) + 0.5
        picked, returned = first[chosen][None], affine.unwarp(second[chosen][None], theta[i : i + 1])
        loss = (
            config.localization_weight * losses.localization_loss(picked, center[None], config.sigma)
            + config.equivariance_weight * losses.equivariance_loss(picked, returned, None)
        ).sum() / b
        loss.backward()
        total += loss.item()
    return total


@torch.no_grad()
def detect(backbone, tokens, chosen, image, theta, noise, timestep: int, size: int) -> torch.Tensor:
    """Averaged maps [K, R, R] of one image [1, 3, S, S]: a VAE and a UNet pass of batch 1 per view of theta
    [V, 2, 3], all N tokens' maps each; noise [V, 4, h, w]."""
    total, seen = 0.0, 0.0
    image, theta = image.to(backbone.device), theta.to(backbone.device)
    for v in range(len(theta)):
        latents = backbone.encode(affine.warp(image, theta[v : v + 1]))
        noisy = backbone.add_noise(latents, noise[v : v + 1], timestep)
        maps = token_maps(backbone, noisy, timestep, tokens, size)[chosen]  # [K, R, R]
        total = total + affine.unwarp(maps[None], theta[v : v + 1])[0]
        seen = seen + affine.coverage(theta[v : v + 1], size)[0]
    return torch.where(seen > 1e-6, total / seen.clamp(min=1e-6), torch.zeros_like(total))
