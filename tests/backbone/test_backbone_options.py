"""Options of the backbone that change time and memory, never results."""

import numpy as np
import pytest
import torch

from stablekp_core.backbone.attention_processors import _attend
from stablekp_core.backbone.backbone import Backbone
from stablekp_core.backbone.checkpoint import load_model
from stablekp_core.backbone.loading import compile_blocks, load_backbone, make_backbone
from stablekp_core.backbone.memory_layout import arrange, convolution_layout


def tokens_gradient(backbone: Backbone) -> tuple[list[torch.Tensor], torch.Tensor, int]:
    """Queries, the tokens' gradient, and how many bytes were kept between the passes, under fixed inputs."""
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=g)
    tokens = torch.randn(5, backbone.width, generator=g).requires_grad_()
    weights, kept = {p.data_ptr() for p in backbone.unet.parameters()}, {}

    def pack(t):
        if t.data_ptr() not in weights:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        found = backbone.queries(latents, 3, tokens)
    sum(q.square().sum() for q in found).backward()
    return [q.detach() for q in found], tokens.grad, sum(kept.values())


def test_recomputing_gives_the_same_with_less_memory(backbone):
    before = dict(backbone.unet.attn_processors)
    queries, gradient, kept = tokens_gradient(backbone)
    backbone.recompute = True
    again, gradient_again, kept_again = tokens_gradient(backbone)
    assert gradient.abs().max() > 1e-3
    np.testing.assert_allclose(gradient_again, gradient, atol=1e-6, rtol=1e-5)
    for a, b in zip(queries, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert kept_again < 0.6 * kept
    assert dict(backbone.unet.attn_processors) == before
    assert not any("forward" in m.__dict__ for m in backbone.unet.modules())


def test_compile_that_fails_is_undone_with_a_notice(backbone, monkeypatch):
    def refuse(self, *_, **__):
        raise RuntimeError("no compiler here")

    expected = tokens_gradient(backbone)[1]
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", refuse))
    with pytest.warns(UserWarning, match="RuntimeError: no compiler here"):
        assert not compile_blocks(backbone)
    np.testing.assert_array_equal(tokens_gradient(backbone)[1], expected)


@pytest.mark.slow
def test_compiled_blocks_agree(backbone):
    expected = tokens_gradient(backbone)[1]
    if not compile_blocks(backbone):
        pytest.skip("torch.compile does not work on this machine")
    np.testing.assert_allclose(tokens_gradient(backbone)[1], expected, atol=1e-5, rtol=1e-4)


def test_bf16_convolutions_get_their_layout_and_fp32_stays():
    device = torch.device("cpu")
    assert convolution_layout(device, torch.float32) is torch.contiguous_format
    assert convolution_layout(device, torch.bfloat16) is torch.channels_last
    half = load_backbone("demo", dtype="bf16", device="cpu")
    assert half.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = load_backbone("demo", dtype="fp32", device="cpu")
    np.testing.assert_allclose(half.encode(image), whole.encode(image), atol=0.05)


def test_arranged_modules_give_the_same_latents():
    loaded = load_model("demo", torch.float32)
    image = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    plain = Backbone(loaded.unet, loaded.vae).encode(image, slice_size=3)
    arrange(loaded.unet, loaded.vae, torch.device("cpu"), torch.float32)
    np.testing.assert_allclose(Backbone(loaded.unet, loaded.vae).encode(image), plain, atol=1e-5)


def test_shared_weights_keep_storage_and_layout():
    """A model that another program holds too: nothing of it is copied, and the same comes out."""
    loaded, place = load_model("demo", torch.bfloat16), torch.device("cpu")
    modules = (loaded.unet, loaded.vae)
    before = [(w.data_ptr(), w.stride()) for m in modules for w in m.parameters()]
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    shared = make_backbone(*modules, "", "", place, torch.bfloat16, shared=True)
    found = shared.encode(image)
    assert [(w.data_ptr(), w.stride()) for m in modules for w in m.parameters()] == before
    own = make_backbone(*modules, "", "", place, torch.bfloat16)
    assert [(w.data_ptr(), w.stride()) for m in modules for w in m.parameters()] != before
    np.testing.assert_allclose(found, own.encode(image), atol=0.05)


@pytest.mark.parametrize("side", [4, 9])
def test_convolutions_as_matrix_products(side):
    """With few pixels in bf16 on a CPU; more pixels than channels take the usual way."""
    g = torch.Generator().manual_seed(0)
    vae = torch.nn.Module()
    vae.encoder = torch.nn.Module()
    conv = torch.nn.Conv2d(48, 64, 3, padding=1).bfloat16()
    x = torch.randn(2, 48, side, side, generator=g).bfloat16().requires_grad_()
    direction = torch.randn(2, 64, side, side, generator=g).bfloat16()

    def results():
        y = conv(x)
        return y.detach().float(), torch.autograd.grad(y, x, direction)[0].float()

    plain = results()
    arrange(torch.nn.Sequential(conv), vae, torch.device("cpu"), torch.bfloat16)
    names = {type(node).__name__ for node in _graph(conv(x).grad_fn)}
    assert ("_NeighboursBackward" in names) == (2 * side**2 <= 48)
    for found, expected in zip(results(), plain, strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=0.02 * float(expected.abs().max()))


def _graph(node):
    if node is not None:
        yield node
        for parent, _ in node.next_functions:
            yield from _graph(parent)


@pytest.mark.parametrize("places", [(16, 20), (512, 512)])
def test_attention_written_out_agrees_with_the_fused_one(places):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g).bfloat16() for n in (places[0], places[1], places[1]))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    found = _attend(q.requires_grad_(), k, v)
    names = {type(node).__name__ for node in _graph(found.grad_fn)}
    assert ("SoftmaxBackward0" in names) == (places == (16, 20))
    np.testing.assert_allclose(found.detach().float(), expected.float(), atol=0.02)
