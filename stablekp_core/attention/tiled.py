"""Token maps of one image (Eq. 2 and 3) in plain PyTorch: upsample, softmax over tokens, mean over heads and layers,
tile by tile.

The softmax at full resolution of all heads and layers is never held: a tile of it is computed, added up, thrown away,
and computed again in the backward pass. Knows logits, not where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F

TILE_BYTES = 64 << 20  # of full-resolution work at a time; `halve_tiles` lowers it after an out-of-memory error
CACHE_BYTES = 1 << 20  # of one tile on a CPU, so that it stays in the second-level cache between its passes


def halve_tiles() -> bool:
    """Halve the tile budget; False when it is already too small to matter."""
    global TILE_BYTES
    if TILE_BYTES <= 4 << 20:
        return False
    TILE_BYTES //= 2
    return True


@contextmanager
def restored_tiles() -> Iterator[None]:
    """A context at whose end the tile budget is what it was before, whatever `halve_tiles` did inside."""
    global TILE_BYTES
    before = TILE_BYTES
    try:
        yield
    finally:
        TILE_BYTES = before


@lru_cache(maxsize=64)
def _resize_matrix(source: int, target: int, mode: str) -> torch.Tensor:
    """float32 [target, source]: one-dimensional resizing as F.interpolate(align_corners=False) does it."""
    eye = torch.eye(source, dtype=torch.float64)[None, :, None, :].expand(1, -1, 4, -1)  # [1, s, 4, s]
    out = F.interpolate(eye, size=(4, target), mode=mode, align_corners=False)  # [1, s, 4, t]
    return out[0, :, 0].T.contiguous().float()


def resize_matrix(source: int, target: int, like: torch.Tensor, mode: str = "bicubic") -> torch.Tensor:
    """The matrix A fp32 [target, source] on the device of `like`, such that A L A^T resizes an image L [source, source]
    as F.interpolate does. mode: "bicubic" or "bilinear"."""
    return _resize_matrix(source, target, mode).to(like.device)


class _Layer:
    """The logits of one layer for one image, ready to be exponentiated at full resolution.

    A softmax ignores what is added to all tokens of a pixel, and resizing keeps such a term equal over the tokens
    (the rows of A sum to 1), so each low-resolution pixel is shifted to a highest logit of 0. While logits span less
    than SPAN, what they are upsampled to can then be exponentiated as it is; otherwise, and where finding that out
    would stall the device, each upsampled pixel's highest logit is subtracted too.
    """

    SPAN = 60.0  # bicubic resizing in 2-D overshoots by at most a third: exp() stays between e^-80 and e^20

    def __init__(self, logits: torch.Tensor, first: torch.Tensor | None, size: int):
        """logits [h, s*s, N]; columns `first` (int64 [K]) are put in front once more, to be picked without a search."""
        shifted = logits - logits.amax(-1, keepdim=True)
        self.safe = logits.device.type == "cpu" and float(shifted.amin()) > -self.SPAN
        if first is not None:
            shifted = torch.cat([shifted[..., first], shifted], -1)
        self.heads, self.width = len(logits), shifted.shape[-1]  # h, C = K + N
        self.side, self.size = math.isqrt(logits.shape[1]), size
        self.low = shifted.view(self.heads, self.side, -1)  # [h, s, s*C]
        self.matrix = resize_matrix(self.side, size, logits)  # [R, s]

    def widen(self, rows: slice) -> torch.Tensor:
        """The first half of upsampling: [h, r, s, C]."""
        return torch.matmul(self.matrix[rows], self.low).view(self.heads, -1, self.side, self.width)

    def exponentials(self, wide: torch.Tensor, tile: int) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield (heads, rows of `wide`, exp of the upsampled logits [g, r, R, C]). The tensor is reused: the next step
        overwrites it."""
        row = max(1, tile // (self.size * self.width * 4))  # rows of R pixels per tile
        g, rows = min(self.heads, row), wide.shape[1]
        r = max(1, min(rows, row // g))
        space = wide.new_empty(g * r, self.size, self.width)
        for y in range(0, rows, r):
            for h in range(0, self.heads, g):
                part = wide[h : h + g, y : y + r]  # [g, r, s, C]
                count = part.shape[0] * part.shape[1]
                out = torch.bmm(
                    self.matrix.expand(count, -1, -1), part.reshape(count, self.side, -1), out=space[:count]
                )
                if not self.safe:
                    out -= out.amax(-1, keepdim=True)
                yield slice(h, h + g), slice(y, y + r), out.exp_().view(*part.shape[:2], self.size, -1)


def _panels(layers: Sequence[_Layer]) -> Iterator[slice]:
    """Rows of the map whose first upsampling halves, of all layers, fit the budget together."""
    row = sum(x.heads * x.side * x.width * 4 for x in layers)
    count = max(1, min(layers[0].size, TILE_BYTES // 4 // row))
    for y in range(0, layers[0].size, count):
        yield slice(y, min(y + count, layers[0].size))


def _tile_bytes(device: torch.device) -> int:
    return min(TILE_BYTES, CACHE_BYTES) if device.type == "cpu" else TILE_BYTES // 2


def tiled_maps(logits: Sequence[torch.Tensor], size: int, only: torch.Tensor | None, out: torch.Tensor) -> None:
    """Compute the token maps of one image (Eq. 2 and 3) in place.

    logits: scaled, fp32 [h, s*s, N] per layer. size: R. only: int64 [K], the tokens whose maps are wanted; None: all.
    out: fp32 [N or K, R, R], filled with values in [0, 1].
    """
    layers = [_Layer(x, only, size) for x in logits]
    count = len(out)
    extra = 0 if layers[0].width == count else count  # columns in front that do not belong to the denominator
    ones = out.new_ones(layers[0].width)
    ones[:extra] = 0
    tile = _tile_bytes(out.device)
    for panel in _panels(layers):
        sums = out.new_zeros(panel.stop - panel.start, out.shape[-1], count)  # [r, R, count]
        for layer in layers:
            weight = 1.0 / (len(layers) * layer.heads)
            for _, rows, e in layer.exponentials(layer.widen(panel), tile):
                scale = torch.mv(e.view(-1, layer.width), ones).reciprocal_().mul_(weight).view(*e.shape[:3], 1)
                for head, factor in zip(e, scale, strict=True):
                    sums[rows].addcmul_(head[..., :count], factor)
        out[:, panel] = sums.view(-1, count).T.contiguous().view(count, -1, out.shape[-1])


def tiled_backward(logits: torch.Tensor, wanted: torch.Tensor, chosen: torch.Tensor, out: torch.Tensor) -> None:
    """The backward pass of `tiled_maps` for one layer and the maps of a few tokens.

    logits: [h, s*s, N]. wanted: gradient [R, R, K] of the mean over heads of the softmax, for the tokens `chosen`,
    int64 [K]. out: gradient [h, s*s, N] of the logits, filled in place.

    Softmax and upsampling backwards are A^T (S * (dM - <S, dM>)) A. Off the chosen tokens dM is 0, so all tokens get a
    multiple of exp() that is the same for the whole pixel, and the multiple goes into A^T, which is small; the chosen
    ones get S * dM besides.
    """
    layer, k = _Layer(logits, chosen, len(wanted)), len(chosen)
    s = layer.side
    ones = out.new_ones(layer.width)
    ones[:k] = 0
    common = out.new_zeros(layer.heads, s, s * (layer.width - k))  # [h, s, s*N]
    special = out.new_zeros(layer.heads, s, s * k)  # [h, s, s*K]
    for panel in _panels([layer]):
        wide = layer.widen(panel)  # [h, r, s, C]
        wide_common, wide_special = torch.empty_like(wide[..., k:]), torch.empty_like(wide[..., :k])
        for heads, rows, e in layer.exponentials(wide, _tile_bytes(out.device)):
            inverse = torch.mv(e.view(-1, layer.width), ones).reciprocal_().view(*e.shape[:3], 1)
            picked = e[..., :k] * inverse * wanted[panel][rows]  # [g, r, R, K]
            factor = picked.sum(-1, keepdim=True).mul_(inverse).neg_()  # [g, r, R, 1]
            turned = (layer.matrix * factor).transpose(-1, -2)  # [g, r, s, R]
            wide_common[heads, rows] = torch.matmul(turned, e[..., k:])
            wide_special[heads, rows] = torch.matmul(layer.matrix.T, picked)
        back = layer.matrix[panel].T.expand(layer.heads, -1, -1)  # [h, s, r]
        common.baddbmm_(back, wide_common.flatten(2))
        special.baddbmm_(back, wide_special.flatten(2))
    out.copy_(common.view_as(out)).index_add_(-1, chosen, special.view(layer.heads, -1, k))
