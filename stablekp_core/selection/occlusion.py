"""What lies in front: shapes pasted over pictures, and a small network that learns from them to see such places.

Bars from one edge to another, as poles and fences are, rectangles and ellipses, of any colour and with a little noise:
what lies in front of things is not known beforehand. The network reads features (places.py), wherever they come from.

Knows nothing of keypoints, models or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SHAPES = (2, 4)  # pasted on a picture, at least and at most
BARS, ELLIPSES = 0.5, 0.15  # shares of the shapes; the others are rectangles
WIDTH = (0.04, 0.16)  # of a bar, in sides of the picture
AREA = (0.01, 0.08)  # of the picture, each rectangle or ellipse
STRETCH = 8.0  # the longest one's length in its widths
NOISE = 8 / 255  # the most

SIDE = 32  # places along a side that the network sees, at most
CHANNELS = 32
DILATIONS = (1, 1, 2, 4, 1)  # of the convolutions; the first and the last see one place, the others 3 x 3
BATCH, EPOCHS, RATE, DECAY = 8, 10, 3e-3, 0.05


def occlude(pictures: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste shapes over each of pictures [B, 3, S, S] in [0, 1]: the pictures, and how much of each pixel they cover
    [B, 1, S, S] in [0, 1]."""
    pictures, covered = pictures.clone(), torch.zeros_like(pictures[:, :1])
    low, high = SHAPES
    for i in range(len(pictures)):
        for _ in range(int(torch.randint(low, high + 1, (), generator=generator))):
            shape = _shape(pictures.shape[-1], generator).to(pictures)
            colour = torch.rand(3, 1, 1, generator=generator)
            noise = NOISE * torch.rand((), generator=generator) * torch.randn(pictures.shape[1:], generator=generator)
            paint = (colour + noise).clamp(0, 1).to(pictures)
            pictures[i] = pictures[i] + (paint - pictures[i]) * shape
            covered[i, 0] = torch.maximum(covered[i, 0], shape)
    return pictures, covered


def _shape(side: int, generator: torch.Generator) -> torch.Tensor:
    """[S, S] in [0, 1]: one random shape, its middle anywhere on the picture, its edges a pixel wide."""
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


@dataclass(frozen=True)
class OccluderNet:
    """A convolutional network that tells from features [B, D, G, G] how likely something lies in front at each place.

    weights: for each layer its kernel [out, in, k, k] and its bias [out], float32.
    """

    weights: tuple[torch.Tensor, ...]

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """[B, 1, g, g] in [0, 1], g being G or, where that is more, `SIDE`."""
        return self._logits(_pooled(features)).sigmoid()

    @property
    def width(self) -> int:
        """D, how many features it reads at a place."""
        return self.weights[0].shape[1]

    def fits(self) -> bool:
        """Whether its layers are finite and fit together."""
        if len(self.weights) != 2 * len(DILATIONS) or any(not bool(w.isfinite().all()) for w in self.weights):
            return False
        kernels, biases = self.weights[::2], self.weights[1::2]
        shapes = [tuple(kernel.shape) for kernel in kernels]
        return shapes == _shapes(shapes[0][1]) and all(
            b.shape == k.shape[:1] for k, b in zip(kernels, biases, strict=True)
        )

    def to(self, device: torch.device) -> OccluderNet:
        """The same on another device."""
        return OccluderNet(tuple(w.to(device) for w in self.weights))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        for i, dilation in enumerate(DILATIONS):
            kernel, bias = self.weights[2 * i : 2 * i + 2]
            edge = dilation * (kernel.shape[-1] // 2)
            x = F.conv2d(F.pad(x, (edge,) * 4, mode="replicate"), kernel, bias, dilation=dilation)
            x = F.gelu(x) if i < len(DILATIONS) - 1 else x
        return x

    @classmethod
    def learn(
        cls,
        views: Sequence[torch.Tensor],
        covered: Sequence[torch.Tensor],
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> OccluderNet:
        """From features [V, D, G, G] of pictures and how much of each place is known to be covered [V, 1, G, G]."""
        mean, spread = (value.to(device) for value in _moments(views))
        kernels = [
            torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5 for shape in _shapes(len(mean))
        ]
        parts = [w.to(device) for kernel in kernels for w in (kernel, torch.zeros(len(kernel)))]
        net = cls(tuple(w.requires_grad_(True) for w in parts))
        order = torch.cat([torch.randperm(len(views), generator=generator) for _ in range(EPOCHS)])
        at_once = max(1, BATCH // len(views[0]))  # pictures
        steps = math.ceil(len(order) / at_once)
        optimizer = torch.optim.AdamW(net.weights, RATE, weight_decay=DECAY)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(2, steps))
        with torch.enable_grad():
            for some in order.split(at_once):
                x = _pooled(torch.cat([views[i] for i in some]).to(device).float())
                aim = _pooled(torch.cat([covered[i] for i in some]).to(device).float())
                x = (x - mean[:, None, None]) / spread[:, None, None]
                loss = F.binary_cross_entropy_with_logits(net._logits(x), aim)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                pace.step()
        first, bias, *rest = (w.detach().cpu() for w in net.weights)
        first = first / spread.cpu()[:, None, None]  # so that it reads features as they are
        return cls((first, bias - (first[..., 0, 0] @ mean.cpu()), *rest))


def _shapes(width: int) -> list[tuple[int, int, int, int]]:
    """The layers' kernels for features of so many numbers."""
    c = CHANNELS
    return [(c, width, 1, 1), *[(c, c, 3, 3)] * (len(DILATIONS) - 2), (1, c, 1, 1)]


def _pooled(values: torch.Tensor) -> torch.Tensor:
    """Values [B, C, G, G] at no more than `SIDE` places along a side."""
    return values if values.shape[-1] <= SIDE else F.adaptive_avg_pool2d(values, SIDE)


def _moments(views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] of features [V, D, G, G] over views and places."""
    x = torch.cat([view[:1] for view in views[:: max(1, len(views) // 64)]]).float()
    return x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1e-6)
