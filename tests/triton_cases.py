"""What the Triton kernels must do; test_attention_triton.py runs this file under Triton's interpreter."""

import numpy as np
import pytest
import torch

from stablekp_core.attention import tiled as tiles
from stablekp_core.attention import triton_kernels as kernels

LAYERS = [(2, 3), (1, 4)]  # (heads, side)
TOKENS, SIZE = 70, 5  # more than one tile of tokens


@pytest.fixture(params=[64 << 20, 1], ids=["one-panel", "row-by-row"])
def tile_bytes(request, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", request.param)


def some_logits(scale=3.0):
    g = torch.Generator().manual_seed(0)
    return [scale * torch.randn(h, s * s, TOKENS, generator=g) for h, s in LAYERS]


@pytest.mark.parametrize("only", [None, [69, 0, 69, 7]], ids=["all", "some"])
@pytest.mark.parametrize("scale", [3.0, 60.0], ids=["usual", "steep"])
def test_maps(only, scale):
    only = None if only is None else torch.tensor(only)
    count = TOKENS if only is None else len(only)
    found, expected = torch.empty(count, SIZE, SIZE), torch.empty(count, SIZE, SIZE)
    kernels.image_maps(some_logits(scale), SIZE, only, found)
    tiles.tiled_maps(some_logits(scale), SIZE, only, expected)
    assert expected.max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradient(tile_bytes):
    g = torch.Generator().manual_seed(1)
    chosen = torch.tensor([69, 3, 12])
    for layer in some_logits():
        wanted = torch.randn(SIZE, SIZE, 3, generator=g)
        found, expected = torch.empty_like(layer), torch.empty_like(layer)
        kernels.backward_layer(layer, wanted, chosen, found)
        tiles.tiled_backward(layer, wanted, chosen, expected)
        assert expected.abs().max() > 0.01
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_maps_smaller_than_a_layer():
    found, expected = torch.empty(TOKENS, 3, 3), torch.empty(TOKENS, 3, 3)
    kernels.image_maps(some_logits(), 3, None, found)
    tiles.tiled_maps(some_logits(), 3, None, expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernels_check_themselves(monkeypatch):
    kernels.usable.cache_clear()
    assert kernels.usable(torch.device("cpu")) == ""
    kernels.usable.cache_clear()
    monkeypatch.setattr(kernels, "image_maps", lambda logits, size, only, out: out.fill_(0.5))
    assert "differ" in kernels.usable(torch.device("cpu"))
    kernels.usable.cache_clear()

    def broken(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(kernels, "image_maps", broken)
    assert kernels.usable(torch.device("cpu")) == "RuntimeError: no compiler"
    kernels.usable.cache_clear()
