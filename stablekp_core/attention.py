"""From low-resolution attention logits to token maps: upsample, softmax over tokens, mean over heads and layers.

Upsampling is linear over space, so upsampling the queries (the paper) and upsampling the logits give the same numbers;
the second costs a fraction. The softmax at full resolution of all heads and layers is never held: it is computed tile
by tile, added up, thrown away, and computed again in the backward pass, which saves only the low-resolution logits.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

TILE_BYTES = 64 << 20      # of one full-resolution tile; `halve_tiles` lowers it after an out-of-memory error


def halve_tiles() -> bool:
    """Halve the tile budget; False when it is already too small to matter."""
    global TILE_BYTES
    if TILE_BYTES <= 4 << 20:
        return False
    TILE_BYTES //= 2
    return True


@lru_cache(maxsize=64)
def _resize_matrix(source: int, target: int, mode: str) -> torch.Tensor:
    """float32 [target, source]: one-dimensional resizing as F.interpolate(align_corners=False) does it."""
    eye = torch.eye(source, dtype=torch.float64)[None, :, None, :].expand(1, -1, 4, -1)   # [1, s, 4, s]
    out = F.interpolate(eye, size=(4, target), mode=mode, align_corners=False)            # [1, s, 4, t]
    return out[0, :, 0].T.contiguous().float()


def resize_matrix(source: int, target: int, like: torch.Tensor, mode: str = "bicubic") -> torch.Tensor:
    """The matrix A [target, source] on the device of `like`, such that A L A^T resizes a picture L."""
    return _resize_matrix(source, target, mode).to(like.device)


class _Tiles:
    """One layer's logits [h, s*s, N] of one image, cut into (heads, rows) tiles that fit the budget."""

    def __init__(self, logits: torch.Tensor, size: int):
        self.logits, self.size = logits, size
        self.side = math.isqrt(logits.shape[1])
        self.matrix = resize_matrix(self.side, size, logits)                              # [R, s]
        tokens = logits.shape[2]
        row = size * tokens * 4
        self.heads = max(1, min(logits.shape[0], TILE_BYTES // max(1, row * size)))
        self.rows = max(1, min(size, TILE_BYTES // row))

    def __iter__(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yields (heads, rows, upsampled logits [g, r, R, N])."""
        s, n = self.side, self.logits.shape[2]
        for h in range(0, self.logits.shape[0], self.heads):
            part = self.logits[h:h + self.heads].view(-1, s, s, n)                        # [g, s, s, N]
            wide = torch.matmul(self.matrix, part).view(len(part), s, -1)                 # [g, s, R*N]
            for r in range(0, self.size, self.rows):
                tile = torch.matmul(self.matrix[r:r + self.rows], wide)                   # [g, r, R*N]
                yield (slice(h, h + len(part)), slice(r, r + self.rows),
                       tile.view(len(part), -1, self.size, n))

    def pull_back(self, rows: slice, grad: torch.Tensor, wide: torch.Tensor) -> None:
        """Add the gradient of one tile [g, r, R, N] to `wide` [g, s, R*N], the first half of the adjoint."""
        wide.baddbmm_(self.matrix[rows].T.expand(len(grad), -1, -1), grad.flatten(2))

    def finish(self, wide: torch.Tensor) -> torch.Tensor:
        """[g, s, R*N] -> gradient of the low-resolution logits [g, s*s, N]."""
        g, n = len(wide), self.logits.shape[2]
        return torch.matmul(self.matrix.T, wide.view(g, self.side, self.size, n)).view(g, -1, n)


@torch.no_grad()
def token_maps(logits: Sequence[torch.Tensor], size: int, only: torch.Tensor | None = None) -> torch.Tensor:
    """Token maps M (Eq. 3), without gradient.

    logits: one [B, heads, s*s, N] fp32 tensor per layer, scaled. Returns [B, N, R, R] in [0, 1], R = size, summing to 1
    over N at each pixel; with `only` (int64 [K] token indices) the maps [B, K, R, R] of those tokens, for which memory
    does not grow with N.
    """
    b, n = logits[0].shape[0], logits[0].shape[-1]
    k = n if only is None else len(only)
    out = logits[0].new_zeros(b, size, size, k)
    for layer in logits:
        weight = 1.0 / (len(logits) * layer.shape[1])
        for i in range(b):
            for _, rows, tile in _Tiles(layer[i], size):
                if only is None:
                    part = torch.softmax(tile, -1).sum(0)                                 # [r, R, N]
                else:
                    part = (tile[..., only] - tile.logsumexp(-1, keepdim=True)).exp_().sum(0)
                out[i, rows].add_(part, alpha=weight)
    return out.permute(0, 3, 1, 2)


class _ChosenMaps(torch.autograd.Function):
    """Maps of a few tokens per image, taken from maps already computed; the softmax is recomputed in backward."""

    @staticmethod
    def forward(ctx, maps, chosen, size, *logits):
        ctx.save_for_backward(chosen, *logits)
        ctx.size = size
        return torch.gather(maps, 1, chosen[:, :, None, None].expand(-1, -1, size, size))

    @staticmethod
    def backward(ctx, grad_out):
        chosen, *logits = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in logits]
        for layer, grad in zip(logits, grads):
            weight = 1.0 / (len(logits) * layer.shape[1])
            for i in range(len(layer)):
                wanted = (grad_out[i] * weight).permute(1, 2, 0)                          # [R, R, K]
                _backward_layer(_Tiles(layer[i], ctx.size), chosen[i], wanted, grad[i])
        return None, None, None, *grads


def _backward_layer(tiles: _Tiles, chosen: torch.Tensor, wanted: torch.Tensor, out: torch.Tensor) -> None:
    """Softmax and upsampling backwards for one layer of one image: d logits = A^T (S * (dM - <S, dM>)) A."""
    wide, heads = None, None
    for group, rows, tile in tiles:
        if group != heads:
            if wide is not None:
                out[heads] = tiles.finish(wide)
            heads, wide = group, tile.new_zeros(len(tile), tiles.side, tiles.size * tile.shape[-1])
        soft = torch.softmax(tile, -1)                                                    # [g, r, R, N]
        picked = soft[..., chosen] * wanted[rows]                                         # [g, r, R, K]
        grad = soft.mul_(-picked.sum(-1, keepdim=True))
        grad.index_add_(-1, chosen, picked)
        tiles.pull_back(rows, grad, wide)
    out[heads] = tiles.finish(wide)


def chosen_maps(logits: Sequence[torch.Tensor], maps: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Differentiable maps [B, K, R, R] of the tokens `chosen` (int64 [B, K]).

    `maps` [B, N, R, R] are `token_maps(logits, R)`, computed before the choice was known.
    """
    return _ChosenMaps.apply(maps, chosen, maps.shape[-1], *logits)


def coarse_maps(logits: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Token maps [B, N, R, R] without query upsampling (Table 4): softmax at each layer's own resolution, then
    bilinear. Differentiable."""
    total = 0.0
    for layer in logits:
        side = math.isqrt(layer.shape[2])
        low = layer.softmax(-1).mean(1).transpose(1, 2).unflatten(-1, (side, side))       # [B, N, s, s]
        a = resize_matrix(side, size, low, "bilinear")
        total = total + a @ low @ a.T
    return total / len(logits)
