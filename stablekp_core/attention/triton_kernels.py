"""Token maps (Eq. 2 and 3) on CUDA by fused Triton kernels: the upsampled logits live in registers only.

Logits are upsampled along rows by a matrix product; the kernels do the other direction, which needs at most four taps
per pixel, in plain fp32, and never write an upsampled logit to memory. Nothing uses atomics, so results do not change
from run to run. The functions mirror those of tiled.py; token_maps.py calls them when `usable` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl

from . import tiled as tiles

PIXELS, TOKENS = 16, 64  # of one tile of a kernel


@triton.jit
def _upsampled(wide, weight, first, x, inside, n, tokens, TAPS: tl.constexpr):
    """Logits [PIXELS, TOKENS] at pixels x of the row whose half-upsampled logits [s, N] start at `wide`."""
    total = tl.zeros([x.shape[0], n.shape[0]], tl.float32)
    for tap in tl.static_range(TAPS):
        w = tl.load(weight + x * TAPS + tap, mask=inside, other=0.0)
        at = wide + (first + tap)[:, None] * tokens + n[None, :]
        total += w[:, None] * tl.load(at, mask=inside[:, None] & (n < tokens)[None, :], other=0.0)
    return total


@triton.jit
def _logsumexp(wide, start, weight, out, size, side, tokens, TAPS: tl.constexpr, PX: tl.constexpr, TK: tl.constexpr):
    """out [h*r, R]: log of the sum over tokens of exp of the upsampled logits; a program per row and PX pixels."""
    row = tl.program_id(0)
    x = tl.program_id(1) * PX + tl.arange(0, PX)
    inside = x < size
    first = tl.load(start + x, mask=inside, other=0)
    top = tl.full([PX], float("-inf"), tl.float32)
    total = tl.zeros([PX], tl.float32)
    for begin in range(0, tokens, TK):
        n = begin + tl.arange(0, TK)
        t = _upsampled(wide + row * side * tokens, weight, first, x, inside, n, tokens, TAPS)
        t = tl.where((n < tokens)[None, :], t, float("-inf"))
        higher = tl.maximum(top, tl.max(t, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(t - higher[:, None]), 1)
        top = higher
    tl.store(out + row * size + x, top + tl.log(total), mask=inside)


@triton.jit
def _add_softmax(
    wide,
    start,
    weight,
    lse,
    out,
    factor,
    heads,
    rows,
    size,
    side,
    tokens,
    stride,
    TAPS: tl.constexpr,
    PX: tl.constexpr,
    TK: tl.constexpr,
):
    """out [N, r, R] (tokens `stride` apart) += factor * sum over heads of the softmax."""
    row = tl.program_id(0)
    x = tl.program_id(1) * PX + tl.arange(0, PX)
    n = tl.program_id(2) * TK + tl.arange(0, TK)
    inside = x < size
    first = tl.load(start + x, mask=inside, other=0)
    total = tl.zeros([PX, TK], tl.float32)
    for head in range(heads):
        line = head * rows + row
        t = _upsampled(wide + line * side * tokens, weight, first, x, inside, n, tokens, TAPS)
        norm = tl.load(lse + line * size + x, mask=inside, other=0.0)
        total += tl.exp(t - norm[:, None])
    at = out + n.to(tl.int64)[None, :] * stride + row * size + x[:, None]
    mask = inside[:, None] & (n < tokens)[None, :]
    tl.store(at, tl.load(at, mask=mask, other=0.0) + factor * total, mask=mask)


@triton.jit
def _pull_back(
    wide,
    start,
    weight,
    matrix,
    lse,
    common,
    low,
    high,
    out,
    size,
    side,
    tokens,
    TAPS: tl.constexpr,
    PX: tl.constexpr,
    TK: tl.constexpr,
):
    """out [h*r, s, N] = sum over pixels x of A[x, column] * common[x] * softmax[x, :]; pixels low to high of a column
    have an A that is not 0."""
    row = tl.program_id(0)
    column = tl.program_id(1)
    n = tl.program_id(2) * TK + tl.arange(0, TK)
    last = tl.load(high + column)
    total = tl.zeros([TK], tl.float32)
    for begin in range(tl.load(low + column), last, PX):
        x = begin + tl.arange(0, PX)
        inside = x < last
        first = tl.load(start + x, mask=inside, other=0)
        t = _upsampled(wide + row * side * tokens, weight, first, x, inside, n, tokens, TAPS)
        norm = tl.load(lse + row * size + x, mask=inside, other=0.0)
        factor = tl.load(matrix + x * side + column, mask=inside, other=0.0)
        factor *= tl.load(common + row * size + x, mask=inside, other=0.0)
        total += tl.sum(factor[:, None] * tl.exp(t - norm[:, None]), 0)
    tl.store(out + (row * side + column) * tokens + n, total, mask=n < tokens)


@lru_cache(maxsize=32)
def _tables(side: int, size: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Of the resize matrix A [R, s]: A, first tap int32 [R], weights of the taps [R, T], and for each column the range
    of rows that are not 0, int32 [s] and [s]."""
    matrix = tiles.resize_matrix(side, size, torch.empty(0))  # [R, s]
    taps = min(4, side)
    used = matrix != 0
    start = used.int().argmax(1).clamp(max=side - taps)  # [R]
    weight = torch.gather(matrix, 1, start[:, None] + torch.arange(taps))  # [R, T]
    low, high = used.int().argmax(0), size - used.flip(0).int().argmax(0)  # [s]
    high = torch.where(used.any(0), high, low)
    return tuple(t.to(device).contiguous() for t in (matrix, start.int(), weight, low.int(), high.int()))


class _Rows:
    """The logits [h, s*s, N] of one layer for one image, upsampled along rows for some rows of the map."""

    def __init__(self, logits: torch.Tensor, rows: slice, size: int):
        self.side, self.size, self.tokens = int(logits.shape[1] ** 0.5), size, logits.shape[2]
        self.matrix, self.start, self.weight, self.low, self.high = _tables(self.side, size, logits.device)
        low = logits.reshape(len(logits), self.side, -1)  # [h, s, s*N]
        self.wide = torch.matmul(self.matrix[rows], low).view(len(logits), -1, self.side, self.tokens)
        self.heads, self.rows = self.wide.shape[:2]  # wide [h, r, s, N]
        self.lse = self.wide.new_empty(self.heads, self.rows, size)  # [h, r, R]
        _logsumexp[self._grid(self.heads * self.rows)[:2]](
            self.wide, self.start, self.weight, self.lse, size, self.side, self.tokens, **self._sizes()
        )

    def _sizes(self) -> dict[str, int]:
        return {"TAPS": self.weight.shape[1], "PX": PIXELS, "TK": TOKENS}

    def _grid(self, rows: int) -> tuple[int, int, int]:
        return rows, triton.cdiv(self.size, PIXELS), triton.cdiv(self.tokens, TOKENS)

    def softmax_of(self, tokens: torch.Tensor) -> torch.Tensor:
        """[h, r, R, K]: the softmax's columns of a few tokens, int64 [K]."""
        return (torch.matmul(self.matrix, self.wide[..., tokens]) - self.lse[..., None]).exp_()

    def add_to(self, maps: torch.Tensor, factor: float) -> None:
        """maps [N, r, R] (a block of rows of contiguous maps) += factor * sum over heads of the softmax."""
        _add_softmax[self._grid(self.rows)](
            self.wide,
            self.start,
            self.weight,
            self.lse,
            maps,
            factor,
            self.heads,
            self.rows,
            self.size,
            self.side,
            self.tokens,
            maps.stride(0),
            **self._sizes(),
        )

    def pull_back(self, common: torch.Tensor) -> torch.Tensor:
        """[h, r, s, N]: softmax times `common` [h, r, R], summed over the pixels of a row with A^T."""
        out = torch.empty_like(self.wide)
        _pull_back[(self.heads * self.rows, self.side, triton.cdiv(self.tokens, TOKENS))](
            self.wide,
            self.start,
            self.weight,
            self.matrix,
            self.lse,
            common.contiguous(),
            self.low,
            self.high,
            out,
            self.size,
            self.side,
            self.tokens,
            **self._sizes(),
        )
        return out


def _panels(logits: torch.Tensor, size: int):
    """Blocks of rows whose half-upsampled logits fit a quarter of the tile budget."""
    row = logits.shape[0] * int(logits.shape[1] ** 0.5) * logits.shape[2] * 4
    count = max(1, min(size, tiles.TILE_BYTES // 4 // row))
    return [slice(y, min(y + count, size)) for y in range(0, size, count)]


def image_maps(logits: Sequence[torch.Tensor], size: int, only: torch.Tensor | None, out: torch.Tensor) -> None:
    """Compute the token maps of one image in place; arguments as for `tiled.tiled_maps`."""
    out.zero_()
    for layer in logits:
        factor = 1.0 / (len(logits) * len(layer))
        for panel in _panels(layer, size):
            rows = _Rows(layer, panel, size)
            if only is None:
                rows.add_to(out[:, panel], factor)
            else:
                out[:, panel] += rows.softmax_of(only).sum(0).permute(2, 0, 1) * factor


def backward_layer(logits: torch.Tensor, wanted: torch.Tensor, chosen: torch.Tensor, out: torch.Tensor) -> None:
    """The backward pass of `image_maps` for one layer; arguments as for `tiled.tiled_backward`."""
    size, (h, _, n), k = len(wanted), logits.shape, len(chosen)
    common, special = 0.0, 0.0
    for panel in _panels(logits, size):
        rows = _Rows(logits, panel, size)
        picked = rows.softmax_of(chosen) * wanted[panel]  # [h, r, R, K]
        back = rows.matrix[panel].T  # [s, r]
        common = common + torch.matmul(back, rows.pull_back(-picked.sum(-1)).flatten(2))  # [h, s, s*N]
        special = special + torch.matmul(back, torch.matmul(rows.matrix.T, picked).flatten(2))
    out.copy_(common.view(h, -1, n)).index_add_(-1, chosen, special.view(h, -1, k))


@lru_cache(maxsize=8)
def usable(device: torch.device) -> str:
    """Why the kernels cannot run on `device`; "" when they compile and agree with the tiled path on a small case."""
    g = torch.Generator().manual_seed(0)
    layer = (3 * torch.randn(1, 16, 7, generator=g)).to(device)
    chosen, size = torch.tensor([5, 1], device=device), 5
    wanted = torch.randn(size, size, 2, generator=g).to(device)
    found, tiled = torch.empty(7, size, size, device=device), torch.empty(7, size, size, device=device)
    grad, tiled_grad = torch.empty_like(layer), torch.empty_like(layer)
    try:
        image_maps([layer], size, None, found)
        backward_layer(layer, wanted, chosen, grad)
    except Exception as error:  # noqa: BLE001 - compilers and drivers fail in many ways; the caller says which
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    tiles.tiled_maps([layer], size, None, tiled)
    tiles.tiled_backward(layer, wanted, chosen, tiled_grad)
    worst = max(float((found - tiled).abs().max()), float((grad - tiled_grad).abs().max()))
    return "" if worst < 1e-4 else f"results differ by {worst:.1g}"
