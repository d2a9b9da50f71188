"""Occlusion: shapes pasted over images, and a small network that learns from them to find what is occluded.

The shapes are bars from one edge to another (like poles and fences), rectangles and ellipses, of any colour and with a
little noise, since it is not known beforehand what will occlude an object. The network reads features (positions.py).

Knows nothing of keypoints, models or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import KeypointError
from ..progress import OCCLUSION, Progress, silent

SHAPES = (2, 4)  # pasted on an image, at least and at most
BARS, ELLIPSES = 0.5, 0.15  # shares of the shapes; the others are rectangles
WIDTH = (0.04, 0.16)  # of a bar, in sides of the image
AREA = (0.01, 0.08)  # of the image, each rectangle or ellipse
STRETCH = 8.0  # the longest one's length in its widths
NOISE = 8 / 255  # the most

SIDE = 32  # positions along a side that the network sees, at most
CHANNELS = 32
DILATIONS = (1, 1, 2, 4, 1)  # of the convolutions; the first and the last see one position, the others 3 x 3
BATCH, EPOCHS, RATE, DECAY = 8, 10, 3e-3, 0.05


def occlude(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste random shapes over images [B, 3, S, S] in [0, 1]: returns the images, and the share of each pixel that the
    shapes cover, [B, 1, S, S] in [0, 1]."""
    images, covered = images.clone(), torch.zeros_like(images[:, :1])
    low, high = SHAPES
    for i in range(len(images)):
        for _ in range(int(torch.randint(low, high + 1, (), generator=generator))):
            shape = _shape(images.shape[-1], generator).to(images)
            colour = torch.rand(3, 1, 1, generator=generator)
            noise = NOISE * torch.rand((), generator=generator) * torch.randn(images.shape[1:], generator=generator)
            paint = (colour + noise).clamp(0, 1).to(images)
            images[i] = images[i] + (paint - images[i]) * shape
            covered[i, 0] = torch.maximum(covered[i, 0], shape)
    return images, covered


def _shape(side: int, generator: torch.Generator) -> torch.Tensor:
    """The coverage of one random shape, [S, S] in [0, 1]: its centre anywhere on the image, its edges a pixel wide."""
    kind, size, stretch, across, down, turn = torch.rand(6, generator=generator).tolist()
    x = (torch.arange(side) + 0.5) / side - across  # [S]
    y = ((torch.arange(side) + 0.5) / side - down)[:, None]
    c, s = math.cos(math.pi * turn), math.sin(math.pi * turn)
    a, b = (c * x + s * y).abs(), (c * y - s * x).abs()  # [S, S]
    if kind < BARS:
        inside = (WIDTH[0] + size * (WIDTH[1] - WIDTH[0])) / 2 - b
    else:
        area = AREA[0] * (AREA[1] / AREA[0]) ** size
        half = math.sqrt(area * STRETCH**-stretch) / 2  # of the width
        length = half * STRETCH**stretch
        if kind < BARS + ELLIPSES:
            inside = (1 - ((a / length) ** 2 + (b / half) ** 2).sqrt()) * half
        else:
            inside = torch.minimum(length - a, half - b)
    return (inside * side + 0.5).clamp(0, 1)


def occlusion_network(width: int) -> nn.Sequential:
    """A new network from features [B, width, G, G] to the logit of occlusion at each position, [B, 1, G, G]."""
    c, last, layers = CHANNELS, len(DILATIONS) - 1, []
    for i, dilation in enumerate(DILATIONS):
        side = 1 if i in (0, last) else 3
        layers.append(
            nn.Conv2d(
                width if i == 0 else c,
                1 if i == last else c,
                side,
                dilation=dilation,
                padding=dilation * (side // 2),
                padding_mode="replicate",
            )
        )
        layers.append(nn.GELU())
    return nn.Sequential(*layers[:-1])


def load_occlusion_network(state: Mapping[str, torch.Tensor], device: torch.device | str = "cpu") -> nn.Sequential:
    """The network of a saved `state_dict`, for use without gradients; raises KeypointError when it does not fit."""
    first = next(iter(state.values()), torch.empty(0))
    try:
        net = occlusion_network(first.shape[1] if first.ndim == 4 else 0)
        net.load_state_dict(dict(state))
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise KeypointError("the occlusion network of these tokens is damaged; train again.") from error
    return net.requires_grad_(False).to(device)


def occlusion_probability(net: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """The probability that each position of features [B, D, G, G] is occluded: [B, 1, g, g] in [0, 1]; g is G, but at
    most `SIDE`."""
    return net(_pooled(features)).sigmoid()


def learn_occlusion(
    views: Sequence[torch.Tensor],
    covered: Sequence[torch.Tensor],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """Train an occlusion network; returns its `state_dict`, float32 on the CPU.

    views: features of each image, [V, D, G, G]. covered: the share of each of their positions that shapes cover,
    [V, 1, G, G] in [0, 1].
    """
    at_once = max(1, BATCH // len(views[0]))  # images
    steps, report = math.ceil(EPOCHS * len(views) / at_once), on_progress or silent
    report(OCCLUSION, 0, steps)
    mean, spread = (value.to(device) for value in _moments(views))
    net = occlusion_network(len(mean))
    with torch.no_grad():
        for conv in net[::2]:
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * conv.weight[0].numel() ** -0.5)
            conv.bias.zero_()
    net.to(device)
    order = torch.cat([torch.randperm(len(views), generator=generator) for _ in range(EPOCHS)])
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(2, steps))
    with torch.enable_grad():
        for done, some in enumerate(order.split(at_once), 1):
            x = _pooled(torch.cat([views[i] for i in some]).to(device).float())
            target = _pooled(torch.cat([covered[i] for i in some]).to(device).float())
            loss = F.binary_cross_entropy_with_logits(net((x - mean[:, None, None]) / spread[:, None, None]), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace.step()
            report(OCCLUSION, done, steps)
    return _reading_raw_features(net, mean.cpu(), spread.cpu())


def _reading_raw_features(net: nn.Sequential, mean: torch.Tensor, spread: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state of `net` with a first layer for raw features instead of those standardised by mean and spread [D]."""
    state = {key: value.detach().cpu() for key, value in net.state_dict().items()}
    weight = state["0.weight"] / spread[:, None, None]
    return state | {"0.weight": weight, "0.bias": state["0.bias"] - (weight[..., 0, 0] @ mean)}


def _pooled(values: torch.Tensor) -> torch.Tensor:
    """Values [B, C, G, G] at no more than `SIDE` positions along a side."""
    return values if values.shape[-1] <= SIDE else F.adaptive_avg_pool2d(values, SIDE)


def _moments(views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] of features [V, D, G, G] over views and positions."""
    x = torch.cat([view[:1] for view in views[:: max(1, len(views) // 64)]]).float()
    return x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1e-6)
