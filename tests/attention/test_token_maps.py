import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stablekp_core.attention import tiled
from stablekp_core.attention.token_maps import chosen_maps, coarse_maps, spatial_softmax_maps, summed_logits, token_maps

LAYERS = [(2, 4), (3, 4), (2, 6)]  # (heads, side): two resolutions
TOKENS, SIZE = 11, 13


def some_logits(seed=0, batch=2, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(batch, h, s * s, TOKENS, generator=g) for h, s in LAYERS]


def materialised(logits, size):
    """All at once in float64: upsample every head's logits, softmax over tokens, mean. [B, N, R, R]."""
    layers = []
    for layer in logits:
        b, h, p, n = layer.shape
        side = int(p**0.5)
        image = layer.double().permute(0, 1, 3, 2).reshape(b * h, n, side, side)
        wide = F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False)
        layers.append(wide.softmax(1).view(b, h, n, size, size).mean(1))
    return torch.stack(layers).mean(0)


@pytest.fixture(
    params=[16 << 20, 5000, 3 * SIZE * TOKENS * 4, SIZE * SIZE * TOKENS * 4, 1],
    ids=["one-tile", "few-rows", "three-rows", "one-head", "one-row"],
)
def tile_bytes(request, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_BYTES", request.param)


def test_upsampling_logits_is_upsampling_queries():
    """The paper upsamples what goes into to_q, bicubically; the logits of the upsampled queries must come
    out.
    """
    g = torch.Generator().manual_seed(0)
    side, width, heads, size = 4, 12, 3, 16
    to_q, to_k = torch.nn.Linear(width, 6, bias=False), torch.nn.Linear(5, 6, bias=False)
    x, tokens = torch.randn(1, width, side, side, generator=g), torch.randn(TOKENS, 5, generator=g)

    def logits(features):  # [1, C, s, s] -> [1, h, s*s, N]
        q = to_q(features.flatten(2).transpose(1, 2)).unflatten(-1, (heads, 2)).transpose(1, 2)
        k = to_k(tokens).unflatten(-1, (heads, 2)).transpose(0, 1)
        return q @ k.transpose(-1, -2) * 3

    with torch.no_grad():
        wide = logits(F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False))
        expected = wide.softmax(-1).mean(1).transpose(1, 2).view(1, TOKENS, size, size)
        np.testing.assert_allclose(token_maps([logits(x)], size), expected, atol=1e-6)


def test_maps(tile_bytes):
    logits = some_logits()
    maps = token_maps(logits, SIZE)
    assert maps.shape == (2, TOKENS, SIZE, SIZE) and maps.dtype == torch.float32
    np.testing.assert_allclose(maps, materialised(logits, SIZE), atol=1e-6)
    np.testing.assert_allclose(maps.sum(1), 1, atol=1e-5)


def test_maps_smaller_than_a_layer():
    logits = some_logits()
    np.testing.assert_allclose(token_maps(logits, 5), materialised(logits, 5), atol=1e-6)


def test_only_some_tokens(tile_bytes):
    logits, only = some_logits(1), torch.tensor([7, 0, 7, 10])
    np.testing.assert_allclose(token_maps(logits, SIZE, only), materialised(logits, SIZE)[:, only], atol=1e-6)


def test_chosen_maps_and_their_gradient(tile_bytes):
    logits = [x.requires_grad_() for x in some_logits(2)]
    chosen = torch.tensor([[3, 0, 9], [1, 10, 4]])
    weight = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    maps = token_maps([x.detach() for x in logits], SIZE)
    picked = chosen_maps(logits, maps, chosen)
    (weight * picked.square()).sum().backward()

    exact = [x.detach().double().requires_grad_() for x in logits]
    expected = torch.gather(materialised(exact, SIZE), 1, chosen[:, :, None, None].expand(-1, -1, SIZE, SIZE))
    (weight * expected.square()).sum().backward()
    np.testing.assert_allclose(picked.detach(), expected.detach(), atol=1e-6)
    for found, wanted in zip(logits, exact, strict=True):
        assert wanted.grad.abs().max() > 1e-2
        np.testing.assert_allclose(found.grad, wanted.grad, atol=1e-5, rtol=1e-5)


def test_only_low_resolution_logits_are_kept_for_the_backward_pass():
    logits, kept = [x.requires_grad_() for x in some_logits()], []
    maps = token_maps([x.detach() for x in logits], 64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        chosen_maps(logits, maps, torch.tensor([[3, 0], [1, 2]]))
    assert kept and sum(kept) <= sum(x.nbytes for x in logits) + 100


def test_coarse_maps_and_their_gradient():
    logits = [x.requires_grad_() for x in some_logits(3)]
    maps = coarse_maps(logits, SIZE)
    exact, layers = [x.detach().double().requires_grad_() for x in logits], []
    for layer in exact:
        b, _, p, n = layer.shape
        low = layer.softmax(-1).mean(1).transpose(1, 2).reshape(b, n, int(p**0.5), -1)
        layers.append(F.interpolate(low, size=(SIZE, SIZE), mode="bilinear", align_corners=False))
    expected = torch.stack(layers).mean(0)
    np.testing.assert_allclose(maps.detach(), expected.detach(), atol=1e-6)
    maps.square().sum().backward()
    expected.square().sum().backward()
    for found, wanted in zip(logits, exact, strict=True):
        np.testing.assert_allclose(found.grad, wanted.grad, atol=1e-5)
    assert (maps - token_maps(some_logits(3), SIZE)).abs().max() > 0.05  # not the same thing as upsampled logits


def test_halving_tiles_ends(monkeypatch):
    monkeypatch.setattr(tiled, "TILE_BYTES", 16 << 20)
    assert [tiled.halve_tiles() for _ in range(4)] == [True, True, False, False]
    assert tiled.TILE_BYTES == 4 << 20


def test_logits_far_apart_do_not_overflow(tile_bytes):
    """Logits of hundreds: exp() alone would be infinite, and all but one token vanish."""
    logits, chosen = [x.requires_grad_() for x in some_logits(4, scale=150.0)], torch.tensor([[0, 5], [6, 2]])
    maps = token_maps([x.detach() for x in logits], SIZE)
    assert max(x.detach().abs().max() for x in logits) > 400
    np.testing.assert_allclose(maps, materialised(logits, SIZE).detach(), atol=5e-4)
    chosen_maps(logits, maps, chosen).square().sum().backward()
    exact = [x.detach().double().requires_grad_() for x in logits]
    torch.gather(
        materialised(exact, SIZE), 1, chosen[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    ).square().sum().backward()
    for found, wanted in zip(logits, exact, strict=True):
        np.testing.assert_allclose(found.grad, wanted.grad, atol=5e-4)


def test_tokens_that_all_lose_somewhere():
    """Between a pixel where one token is far ahead and a pixel where another is, both are far below the
    maximum.
    """
    logits = torch.full((1, 1, 16, 3), -70.0)
    logits[0, 0, ::2, 0] = logits[0, 0, 1::2, 1] = 0
    found = token_maps([logits], 32)
    np.testing.assert_allclose(found, materialised([logits], 32), atol=1e-5)


def test_place_maps_are_a_softmax_over_places():
    g = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, heads, side**2, 3, generator=g) for heads, side in ((2, 4), (3, 8))]
    expected = 0
    for layer in logits:
        for head in layer.unbind(1):
            low = head.transpose(1, 2).unflatten(2, (int(head.shape[1] ** 0.5),) * 2)
            expected = expected + F.interpolate(low, (12, 12), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(summed_logits(logits, 12), expected, atol=1e-4)
    maps = spatial_softmax_maps(logits, 12)
    np.testing.assert_allclose(maps, expected.exp() / expected.exp().sum((2, 3), keepdim=True), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(maps.sum((2, 3)), np.ones((2, 3)), rtol=1e-5)
