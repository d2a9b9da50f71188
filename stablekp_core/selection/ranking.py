"""The paper's choice of tokens: ranking by KL divergence (Eq. 9), farthest points and votes (Eq. 10).

Everything is batched tensor work that never waits for the device. Knows nothing of models or files.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..attention.readout import peaks

_EPSILON = 1e-5  # added to the Gaussian before it is normalised, as in the reference


@lru_cache(maxsize=16)
def _negative_entropy_table(size: int, sigma: float) -> torch.Tensor:
    """The sum of G log G of the normalised Gaussian with a peak (i, j) pixels from the nearest borders: float32 [D, D];
    at D - 1 pixels and more the border cuts nothing off."""
    reach = min(math.ceil(7 * sigma) + 1, (size + 1) // 2)
    along = torch.arange(size, dtype=torch.float64)
    g = torch.exp(-((along - along[:reach, None]) ** 2) / (2 * sigma**2))  # [D, R]
    table = torch.empty(reach, reach, dtype=torch.float64)
    for i in range(reach):
        full = g[i][None, :, None] * g[:, None, :] + _EPSILON  # [D, R, R]
        full = full / full.sum((1, 2), keepdim=True)
        table[i] = (full * full.log()).sum((1, 2))
    return table.float()


def _negative_entropy(peak: torch.Tensor, size: int, sigma: float, border: str) -> torch.Tensor:
    table = _negative_entropy_table(size, sigma).to(peak.device)
    if border == "neutral":
        return table[-1, -1]
    near = torch.minimum(peak, size - 1 - peak).clamp(max=len(table) - 1)  # [B, N, 2]
    return table[near[..., 0], near[..., 1]]


def gaussian_divergence(
    maps: torch.Tensor, peak: torch.Tensor, sigma: float, closeness: str = "softmax", border: str = "penalized"
) -> torch.Tensor:
    """KL(G || M), by which Eq. 9 ranks tokens: small when a map is close to a Gaussian at its peak. In nats, [B, N].

    maps: [B, N, R, R] in [0, 1]. peak: int [B, N, 2] (row, column) in pixels. sigma: of G, pixels. closeness: M is the
    spatial softmax of the map ("softmax", the authors' code) or the map divided by its sum ("normalized", the paper's
    text). border: "penalized" uses the true entropy of a Gaussian that the border cuts off, which is smaller, so that
    tokens near the border rank last; "neutral" uses that of a complete one.
    """
    size = maps.shape[-1]
    along = torch.arange(size, device=maps.device, dtype=torch.float32)
    g = torch.exp(-((along - peak[..., None]) ** 2) / (2 * sigma**2))  # [B, N, 2, R]
    flat = maps.flatten(2)
    if closeness == "softmax":
        values, norm = maps, flat.logsumexp(-1)  # maps lie in [0, 1]
    else:
        values = maps.clamp(min=1e-12).log()
        norm = flat.sum(-1).clamp(min=1e-12).log()
    mass = g[:, :, 0].sum(-1) * g[:, :, 1].sum(-1) + _EPSILON * size * size  # [B, N]
    weighted = (torch.matmul(g[:, :, :1], values).squeeze(2) * g[:, :, 1]).sum(-1)  # [B, N]
    cross = (weighted + _EPSILON * values.flatten(2).sum(-1)) / mass
    return _negative_entropy(peak, size, sigma, border) - cross + norm


def farthest_points(position: torch.Tensor, count: int) -> torch.Tensor:
    """Farthest-point sampling (FPS of Eq. 10) among integer positions [B, M, 2], in pixels: the farthest pair first,
    then always the point that is farthest from those taken. Ties go to the lower index.

    Returns indices into M, int64 [B, count].
    """
    p = position.long()
    b, m = p.shape[:2]
    d = (p[:, :, None] - p[:, None]).square().sum(-1)  # [B, M, M]
    upper = torch.ones(m, m, dtype=torch.bool, device=p.device).triu(1)
    order = torch.arange(m * m, device=p.device).view(m, m)
    first = torch.where(upper, d * (m * m) + (m * m - 1 - order), -1).flatten(1).argmax(1)  # [B]
    taken = [first // m, first % m]
    row = torch.arange(b, device=p.device)
    nearest = torch.minimum(d[row, taken[0]], d[row, taken[1]])  # [B, M]
    index = torch.arange(m, device=p.device)
    free = (index != taken[0][:, None]) & (index != taken[1][:, None])
    while len(taken) < count:
        best = torch.where(free, nearest * m + (m - 1 - index), -1).argmax(1)
        taken.append(best)
        free &= index != best[:, None]
        nearest = torch.minimum(nearest, d[row, best])
    return torch.stack(taken[:count], 1)


def most_gaussian(
    maps: torch.Tensor, peak: torch.Tensor, count: int, sigma: float, closeness: str, border: str
) -> torch.Tensor:
    """N(kappa) of Eq. 9, kappa = count: the tokens with the smallest divergence, best first, int64 [B, count]. Ties go
    to the lower index. Arguments as for `gaussian_divergence`."""
    divergence = gaussian_divergence(maps, peak, sigma, closeness, border)
    return divergence.argsort(dim=1, stable=True)[:, :count]


def spread_choice(
    maps: torch.Tensor,
    view_peak: torch.Tensor,
    keypoints: int,
    candidates: int,
    sigma: float,
    closeness: str,
    border: str,
) -> torch.Tensor:
    """The set K of Eq. 10 for each image: the `candidates` most Gaussian-like tokens (Eq. 9) of maps [B, N, R, R], then
    `keypoints` of them by farthest points. Returns int64 [B, keypoints].

    view_peak: the peaks [B, N, 2] (row, column) between which distances are measured; the authors' code takes those of
    the view. sigma, closeness, border: see `gaussian_divergence`.
    """
    top = most_gaussian(maps, peaks(maps), candidates, sigma, closeness, border)  # [B, kappa]
    position = torch.gather(view_peak, 1, top[..., None].expand(-1, -1, 2))
    return torch.gather(top, 1, farthest_points(position, keypoints))


def most_voted(choices: torch.Tensor, tokens: int, keypoints: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The vote over images after Eq. 10: the tokens that were chosen on most images.

    choices: the choice for each image, int64 [images, K]. tokens: N. Returns the `keypoints` most chosen tokens, int64
    [keypoints], most votes first (ties go to the lower index), and the votes of all tokens, int64 [N].
    """
    votes = torch.bincount(choices.flatten(), minlength=tokens)
    return votes.argsort(descending=True, stable=True)[:keypoints], votes
