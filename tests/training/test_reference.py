"""The whole step against the method written down once more, naively and in float64: queries upsampled before
they are projected, the softmax of every head held whole, token choice in Python loops, Gaussians and warps
pixel by pixel."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import WIDTH, make_unet, make_vae

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector
from stablekp_core.images.affine import random_affine
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.training.step import training_step

SIZE, TOKENS, CANDIDATES, KEYPOINTS = 24, 30, 10, 4
SCALED = {"keypoints": KEYPOINTS, "tokens": TOKENS, "candidates": CANDIDATES, "map_size": SIZE}
LAYERS = [f"up_blocks.0.attentions.{i}" for i in range(3)] + ["up_blocks.1.attentions.0"]


def naive_maps(unet, noisy, tokens, size=SIZE):
    """Token maps [N, R, R] of one noisy latent [4, h, w], differentiable in tokens."""
    inputs, hooks = {}, []
    attentions = [unet.get_submodule(f"{name}.transformer_blocks.0.attn2") for name in LAYERS]
    for attention in attentions:
        hooks.append(attention.to_q.register_forward_pre_hook(lambda m, i: inputs.__setitem__(m, i[0])))
    unet(noisy[None], 0, tokens[None])
    for hook in hooks:
        hook.remove()
    layers = []
    for attention in attentions:
        x = inputs[attention.to_q][0]  # [s*s, C]
        side = math.isqrt(len(x))
        image = x.T.reshape(1, -1, side, side)
        wide = F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False)
        q = attention.to_q(wide[0].flatten(1).T)  # [R*R, C]
        k = attention.to_k(tokens)  # [N, C]
        heads = []
        for i in range(attention.heads):
            d = q.shape[1] // attention.heads
            own = slice(i * d, (i + 1) * d)
            heads.append((q[:, own] @ k[:, own].T / math.sqrt(d)).softmax(1))  # [R*R, N]
        layers.append(torch.stack(heads).mean(0))
    return torch.stack(layers).mean(0).T.reshape(-1, size, size)


def peak(map_):
    index = int(map_.flatten().argmax())
    return index // map_.shape[1], index % map_.shape[1]


def gaussian(row, column, size, sigma):
    out = torch.zeros(size, size, dtype=torch.float64)
    for r in range(size):
        for c in range(size):
            out[r, c] = math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
    return out


def naive_choice(maps, view_maps, sigma):
    """The most Gaussian-like tokens of the image, spread over the view; indices in the order they are
    taken.
    """
    divergences = []
    for map_ in maps:
        target = gaussian(*peak(map_), SIZE, sigma) + 1e-5
        target = target / target.sum()
        share = (map_ + 1e-5).flatten().softmax(0).view(SIZE, SIZE)
        divergences.append(float((target * (target.log() - share.log())).sum()))
    candidates = sorted(range(TOKENS), key=lambda n: divergences[n])[:CANDIDATES]
    at = {n: peak(view_maps[n]) for n in candidates}
    best, taken = -1.0, []
    for i, a in enumerate(candidates):
        for b in candidates[i + 1 :]:
            if math.dist(at[a], at[b]) > best:
                best, taken = math.dist(at[a], at[b]), [a, b]
    while len(taken) < KEYPOINTS:
        rest = [n for n in candidates if n not in taken]
        taken.append(max(rest, key=lambda n: min(math.dist(at[n], at[t]) for t in taken)))
    return taken


def naive_unwarp(map_, theta):
    """Look an image's pixels up in the view: bilinear, zero outside. Differentiable in map_."""
    a, b, x0, c, d, y0 = theta.double().flatten().tolist()
    det, size = a * d - b * c, map_.shape[0]
    out = []
    for row in range(size):
        for column in range(size):
            u, v = (2 * column + 1) / size - 1 - x0, (2 * row + 1) / size - 1 - y0
            x, y = (((d * u - b * v) / det + 1) * size - 1) / 2, (((a * v - c * u) / det + 1) * size - 1) / 2
            total = map_.new_zeros(())
            for r in (math.floor(y), math.floor(y) + 1):
                for s in (math.floor(x), math.floor(x) + 1):
                    if 0 <= r < size and 0 <= s < size:
                        total = total + (1 - abs(y - r)) * (1 - abs(x - s)) * map_[r, s]
            out.append(total)
    return torch.stack(out).view(size, size)


def naive_step(unet, tokens, latents, view_latents, theta, noise, sigma=2.0):
    """Chosen tokens and both losses per image."""
    alpha = 1 - 0.00085
    noisy = math.sqrt(alpha) * torch.cat([latents, view_latents]) + math.sqrt(1 - alpha) * noise
    chosen, localization, equivariance = [], [], []
    for i in range(len(latents)):
        maps = naive_maps(unet, noisy[i], tokens)
        view_maps = naive_maps(unet, noisy[len(latents) + i], tokens)
        taken = naive_choice(maps.detach(), view_maps.detach(), sigma)
        sharp = [(maps[n] - gaussian(*peak(maps[n]), SIZE, sigma)).square().mean() for n in taken]
        same = [(naive_unwarp(view_maps[n], theta[i]) - maps[n]).square().mean() for n in taken]
        chosen.append(taken)
        localization.append(sum(sharp) / len(sharp))
        equivariance.append(sum(same) / len(same))
    return chosen, torch.stack(localization), torch.stack(equivariance)


@pytest.fixture(scope="module")
def unet():
    return make_unet()


def inputs(seed):
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(TOKENS, WIDTH, generator=g)
    latents, view = torch.randn(2, 2, 4, 8, 8, generator=g)
    return tokens, latents, view, random_affine(2, 15, (0.8, 1.0), 0.25, g), torch.randn(4, 4, 8, 8, generator=g)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_step(unet, seed):
    tokens, *data = inputs(seed)
    mine = tokens.clone().requires_grad_()
    config = TrainConfig.preset("reference", **SCALED)
    found = training_step(Backbone(unet, make_vae()), config, mine, *data)
    found.total.mean().backward()

    theirs = tokens.double().requires_grad_()
    chosen, localization, equivariance = naive_step(copy.deepcopy(unet).double(), theirs, *(x.double() for x in data))
    (100 * localization.mean() + 1000 * equivariance.mean()).backward()
    assert found.chosen.tolist() == chosen
    np.testing.assert_allclose(found.localization.detach(), localization.detach(), rtol=1e-4)
    np.testing.assert_allclose(found.equivariance.detach(), equivariance.detach(), rtol=1e-4)
    assert (mine.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_the_reference_preset_is_the_references_settings():
    c = TrainConfig.preset("reference")
    assert (c.tokens, c.candidates, c.keypoints, c.batch_size, c.steps, c.learning_rate) == (500, 25, 10, 4, 500, 5e-3)
    assert (c.map_size, c.sigma, c.equivariance_weight, c.localization_weight) == (128, 2.0, 1000, 100)
    assert (c.rotation, c.scale, c.translation, c.timestep) == (15, (0.8, 1.0), 0.25, 0)
    assert (c.loss_tokens, c.closeness, c.border, c.coverage_mask) == ("spread", "softmax", "penalized", False)
    assert (c.upsample, c.selection, c.selection_images, c.gradient) == ("logits", "votes", 100, "exact")
    assert (c.view_pool, c.resize) == (0, "squash")
    d = DetectConfig.preset("reference")
    assert (d.views, d.identity, d.readout, d.map_size) == (10, False, "argmax", 512)


def test_reference_detection(unet):
    """Views' maps raised bilinearly to the read-out size, warped back, summed, divided by how often a pixel
    was seen.
    """
    backbone, (tokens, *_) = Backbone(unet, make_vae()), inputs(3)
    config = TrainConfig.preset("reference", **SCALED)
    file = KeypointTokens(tokens, (4, 0, 17, 9), config=config.to_dict())
    detector = Detector(backbone, file, DetectConfig.preset("reference", views=3, map_size=30))
    square = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    noisy, add_noise = [], backbone.add_noise
    backbone.add_noise = lambda *a: noisy.append(add_noise(*a)) or noisy[-1]
    maps, *_ = detector.maps(square)

    total, count = torch.zeros(4, 30, 30, dtype=torch.float64), torch.zeros(30, 30, dtype=torch.float64)
    views = torch.cat(noisy).double()
    assert len(views) == 3 and len(detector.theta) == 3
    double = copy.deepcopy(unet).double()
    for theta, view in zip(detector.theta, views, strict=True):
        with torch.no_grad():
            own = naive_maps(double, view, tokens.double())[[4, 0, 17, 9]]
        own = F.interpolate(own[None], size=(30, 30), mode="bilinear", align_corners=False)[0]
        total += torch.stack([naive_unwarp(m, theta) for m in own])
        count += naive_unwarp(torch.ones(30, 30, dtype=torch.float64), theta)
    expected = torch.where(count > 1e-6, total / count.clamp(min=1e-6), 0)
    np.testing.assert_allclose(maps[0], expected, atol=1e-5)
    xy, _, _ = detector.unit_points(maps, torch.zeros(1, 3, 4, 2))
    np.testing.assert_allclose(xy[0], [[(c + 0.5) / 30, (r + 0.5) / 30] for r, c in map(peak, expected)], atol=1e-6)
