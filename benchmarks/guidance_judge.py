"""Judges for benchmarks/guidance.py that take no part in guiding: a joint regressor, and a distance of statistics.

The regressor is a small convolutional network that sees rendered images with true joints, half of them as the small
model's autoencoder repeats them, and says where the joints are. It knows nothing of keypoints, tokens or attention.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from stablekp_core.synthetic import figures, generator

SIDE, GRID = 64, 32
FIRST = 40_000_000  # seeds of the rendered images, away from those of any other set


class JointRegressor(torch.nn.Sequential):
    """Images [B, 3, 64, 64] in [0, 1] -> joints [B, J, 2] in the unit square, the mean positions under J maps."""

    def __init__(self, joints: int):
        def block(inner: int, outer: int, stride: int = 1, dilation: int = 1):
            conv = torch.nn.Conv2d(inner, outer, 3, stride, dilation, dilation)
            return conv, torch.nn.GroupNorm(8, outer), torch.nn.SiLU()

        super().__init__(
            *block(3, 24, 2), *block(24, 32), *block(32, 32, 1, 2), *block(32, 32, 1, 4), *block(32, 32, 1, 8),
            *block(32, 32, 1, 2), *block(32, 32), torch.nn.Conv2d(32, joints, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = super().forward(images * 2 - 1).flatten(2).softmax(-1)  # [B, J, 32 * 32]
        centre = (torch.arange(GRID) + 0.5) / GRID
        places = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), -1).flatten(0, 1)  # [32 * 32, 2]
        return maps @ places


def shrunk(images: list[np.ndarray]) -> torch.Tensor:
    """uint8 [H, W, 3] images as float32 [B, 3, 64, 64] in [0, 1]."""
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(x, (SIDE, SIDE), mode="area")


@torch.no_grad()
def repeated(backbone, images: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, S, S] in [0, 1] as the autoencoder repeats them."""
    parts = []
    for some in images.split(16):
        latents = backbone.encode(some, 16) / backbone.vae.config.scaling_factor
        parts.append((backbone.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1))
    return torch.cat(parts)


def train_judge(backbone, kind: str, images: int = 800, epochs: int = 15) -> tuple[JointRegressor, float]:
    """A regressor for one kind of figure, and its mean error on 200 other rendered images, in sides."""
    samples = [generator.render(kind, FIRST + i) for i in range(images + 200)]
    joints = torch.from_numpy(np.stack([s.joints for s in samples])) / samples[0].image.shape[0]  # [I, J, 2]
    pictures = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float() / 255
    pictures[:images:2] = repeated(backbone, pictures[:images:2])
    pictures = F.interpolate(pictures, (SIDE, SIDE), mode="area")
    torch.manual_seed(0)
    net = JointRegressor(len(figures.landmark_names(kind)))
    steps = epochs * images // 32
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        some = torch.randint(images, (32,))
        x = pictures[some] + 0.05 * torch.rand(32, 1, 1, 1) * torch.randn(32, 3, SIDE, SIDE)
        loss = (net(x) - joints[some]).norm(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return net.eval(), float((net(pictures[images:]) - joints[images:]).norm(dim=-1).mean())


@torch.no_grad()
def mid_features(backbone, images: list[np.ndarray]) -> torch.Tensor:
    """[B, C]: the autoencoder's features between encoder and decoder's end of the way down, meaned over positions."""
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    kept: list[torch.Tensor] = []
    hook = backbone.vae.encoder.mid_block.register_forward_hook(lambda _m, _i, out: kept.append(out.mean((2, 3))))
    try:
        for some in x.split(16):
            backbone.vae.encode(some)
    finally:
        hook.remove()
    return torch.cat(kept)


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance of the Gaussians of features [n, C] and [m, C] (Frechet), covariances shrunk a little."""
    a, b = a.double(), b.double()
    ca, cb = (torch.cov(x.T) + 1e-6 * torch.eye(x.shape[1], dtype=torch.float64) for x in (a, b))
    values = torch.linalg.eigvals(ca @ cb).real.clamp(min=0)
    away = (a.mean(0) - b.mean(0)).square().sum()
    return float(away + ca.trace() + cb.trace() - 2 * values.sqrt().sum())
