import numpy as np
import pytest
import torch
from tiny_models import SIDE, WIDTH, make_unet, make_vae

from stablekp_core.backbone.attention_processors import captured_layers, queries
from stablekp_core.backbone.backbone import Backbone, alphas_cumprod
from stablekp_core.backbone.devices import choose_device, choose_dtype
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.errors import KeypointError

TOKENS = 7
UP = (
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
    "up_blocks.0.attentions.2",
    "up_blocks.1.attentions.0",
)


def some(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stock_queries(unet, noisy, timestep, tokens):
    """Queries by hooks on to_q in an unchanged UNet that runs to its end."""
    found, hooks = [], []
    for name in UP:
        to_q = unet.get_submodule(f"{name}.transformer_blocks.0.attn2.to_q")
        hooks.append(to_q.register_forward_hook(lambda _m, _i, out: found.append(out)))
    unet(noisy, timestep, tokens.expand(len(noisy), -1, -1))
    for hook in hooks:
        hook.remove()
    return [q.unflatten(-1, (4, -1)).transpose(1, 2) for q in found]


def test_captured_layers_are_the_first_four_on_the_way_up(backbone):
    assert backbone.layers == tuple(f"{name}.transformer_blocks.0.attn2" for name in UP)
    unet = backbone.unet
    from diffusers import UNet2DConditionModel

    full = {
        "sample_size": 8,
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "attention_head_dim": 2,
    }
    like_sd15 = captured_layers(UNet2DConditionModel(cross_attention_dim=8, **full))
    assert [n.removesuffix(".transformer_blocks.0.attn2") for n in like_sd15] == [
        *(f"up_blocks.1.attentions.{i}" for i in range(3)),
        "up_blocks.2.attentions.0",
    ]
    assert captured_layers(unet) == backbone.layers


def test_a_model_with_fewer_layers_is_refused():
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    with pytest.raises(KeypointError, match="3 cross-attentions.*4 are needed"):
        Backbone(plain, make_vae())


def test_queries_are_those_of_the_whole_unchanged_unet(backbone):
    noisy, tokens = some(2, 4, 8, 8), some(TOKENS, WIDTH, seed=1)
    with torch.no_grad():
        found, expected = backbone.queries(noisy, 3, tokens), stock_queries(backbone.unet, noisy, 3, tokens)
    assert [tuple(q.shape) for q in found] == [(2, 4, 16, 8)] * 3 + [(2, 4, 64, 4)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    other = backbone.queries(noisy, 3, some(TOKENS, WIDTH, seed=2))
    assert (other[3] - found[3]).abs().max() > 1e-3  # the features depend on the tokens


def test_logits_are_scaled_products_of_queries_and_keys(backbone):
    tokens, found = (
        some(TOKENS, WIDTH),
        [some(2, 4, 16, 8, seed=i) for i in range(3)] + [some(2, 4, 64, 4, seed=3)],
    )
    logits = backbone.logits(found, tokens)
    for name, q, out in zip(backbone.layers, found, logits, strict=True):
        weight = backbone.unet.get_submodule(name).to_k.weight.double()
        d = q.shape[-1]
        assert out.shape == (*q.shape[:3], TOKENS) and out.dtype == torch.float32
        for head in range(4):
            keys = tokens.double() @ weight[head * d : (head + 1) * d].T
            np.testing.assert_allclose(out[:, head], q[:, head].double() @ keys.T * d**-0.5, atol=1e-5)


def test_nothing_runs_after_the_last_query(backbone):
    order = []
    for name, part in backbone.unet.named_modules():
        part.register_forward_pre_hook(lambda _m, _i, name=name: order.append(name))
    backbone.queries(some(1, 4, 8, 8), 0, some(TOKENS, WIDTH))
    assert order[-1] == f"{backbone.layers[-1]}.to_q"
    assert order.count("conv_in") == 1
    stock_queries(backbone.unet, some(1, 4, 8, 8), 0, some(TOKENS, WIDTH))
    assert order[-1] == "conv_out"  # the counter would have seen it


def test_the_backward_pass_ends_in_the_tokens_only(backbone):
    tokens = some(TOKENS, WIDTH).requires_grad_()
    found = backbone.queries(some(1, 4, 8, 8), 0, tokens)
    sum(q.square().sum() for q in found).backward()
    assert tokens.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in backbone.unet.parameters())


def test_processors_come_back(backbone):
    def now():
        return {name: id(p) for name, p in backbone.unet.attn_processors.items()}

    before, noisy, tokens = now(), some(1, 4, 8, 8), some(TOKENS, WIDTH)
    backbone.queries(noisy, 0, tokens)
    assert now() == before
    with pytest.raises(RuntimeError):
        backbone.queries(noisy, 0, some(TOKENS, WIDTH + 1))  # fails inside the UNet
    assert now() == before

    def fail(_module, _inputs):
        raise KeyboardInterrupt

    hook = backbone.unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        backbone.queries(noisy, 0, tokens)
    hook.remove()
    assert now() == before
    with queries(backbone.unet, backbone.layers):
        assert not set(now().values()) & set(before.values())  # within the context all are ours
    assert now() == before


def test_the_whole_unet_can_run_with_a_mask_of_tokens(backbone):
    noisy, tokens = some(2, 4, 8, 8), some(2, TOKENS, WIDTH, seed=1)
    mask = torch.zeros(2, 1, TOKENS)
    mask[:, :, 4:] = -1e9
    with torch.no_grad():
        expected = backbone.unet(noisy, 5, tokens[:, :4]).sample
        with queries(backbone.unet, (), stop=False):
            found = backbone.unet(noisy, 5, tokens, cross_attention_kwargs={"mask": mask}).sample
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def exact_logits(unet, noisy, tokens):
    """Logits in float64 from the stock UNet, differentiable in tokens."""
    out = []
    for name, q in zip(UP, stock_queries(unet, noisy, 0, tokens), strict=True):
        weight = unet.get_submodule(f"{name}.transformer_blocks.0.attn2.to_k").weight
        keys = (tokens @ weight.T).unflatten(-1, (4, -1)).transpose(0, 1)
        out.append(q @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5)
    return out


def test_token_gradient_matches_finite_differences():
    """Through the truncated UNet of float64 modules: queries exactly, logits up to their fp32."""
    backbone = Backbone(make_unet().double(), make_vae(), dtype=torch.float64)
    noisy, tokens = some(1, 4, 8, 8).double(), some(TOKENS, WIDTH, seed=1).double().requires_grad_()
    weights = [some(1, 4, p, TOKENS, seed=p).double() for p in (16, 16, 16, 64)]

    def of_queries(e):
        return sum((w[..., :4] * q[..., :4]).sum() for w, q in zip(weights, backbone.queries(noisy, 0, e), strict=True))

    def of_logits(e):
        return sum((w * x).sum() for w, x in zip(weights, exact_logits(backbone.unet, noisy, e), strict=True))

    (by_queries,) = torch.autograd.grad(of_queries(tokens), tokens)
    logits = backbone.token_logits(noisy, 0, tokens)
    (by_logits,) = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, logits, strict=True)), tokens)
    for seed in range(4):
        direction = some(TOKENS, WIDTH, seed=10 + seed).double()
        with torch.no_grad():
            high, low = tokens + 1e-5 * direction, tokens - 1e-5 * direction
            for gradient, function, tolerance in (
                (by_queries, of_queries, 1e-6),
                (by_logits, of_logits, 1e-4),
            ):
                slope = (function(high) - function(low)).item() / 2e-5
                assert (gradient * direction).sum().item() == pytest.approx(slope, rel=tolerance, abs=tolerance)
    assert by_queries.abs().max() > 1e-3


def test_features_times_an_embedding_are_its_logits_summed_over_heads(backbone):
    found, tokens = backbone.queries(some(2, 4, 8, 8), 0, some(TOKENS, WIDTH, seed=1)), some(5, WIDTH, seed=2)
    for features, logits in zip(backbone.features(found), backbone.logits(found, tokens), strict=True):
        np.testing.assert_allclose(features[:, 0] @ tokens.T, logits.sum(1), atol=1e-4)


def test_gradient_modes(backbone):
    noisy = some(2, 4, 8, 8)
    tokens = some(TOKENS, WIDTH, seed=1).requires_grad_()

    def gradient(mode):
        logits = backbone.token_logits(noisy, 0, tokens, mode)
        (grad,) = torch.autograd.grad(sum(x.square().mean() for x in logits), tokens)
        return [x.detach() for x in logits], grad

    with torch.no_grad():
        of_nothing = backbone.queries(noisy, 0, torch.zeros(1, WIDTH))
    (exact, exact_grad), (cached, cached_grad) = map(gradient, ("exact", "cached"))
    e = tokens.detach().clone().requires_grad_()  # only the keys move, the queries are constants
    expected = backbone.logits(of_nothing, e)
    (grad,) = torch.autograd.grad(sum(x.square().mean() for x in expected), e)
    assert all(torch.equal(a, b) for a, b in zip(cached, expected, strict=True)) and torch.equal(grad, cached_grad)
    by_keys = backbone.logits([q.detach() for q in backbone.queries(noisy, 0, tokens)], tokens)
    (keys_grad,) = torch.autograd.grad(sum(x.square().mean() for x in by_keys), tokens)
    assert (exact_grad - keys_grad).abs().max() > 1e-4  # the path through the features matters
    assert (cached[3] - exact[3]).abs().max() > 1e-3


def test_encode_is_the_scaled_mean_of_the_posterior(backbone):
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = backbone.encode(images, slice_size=2)
    with torch.no_grad():
        moments = backbone.vae.quant_conv(backbone.vae.encoder(images * 2 - 1))
    assert backbone.vae.config.scaling_factor == pytest.approx(0.18215)
    np.testing.assert_allclose(found, moments[:, :4] * 0.18215, atol=1e-6)
    assert not found.requires_grad and found.shape == (3, 4, 8, 8)


def test_noise_is_that_of_stable_diffusions_schedule(backbone):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    np.testing.assert_allclose(alphas_cumprod(), scheduler.alphas_cumprod, rtol=1e-4)
    latents, noise = some(2, 4, 8, 8), some(2, 4, 8, 8, seed=1)
    for t in (0, 1, 19, 999):
        expected = scheduler.add_noise(latents, noise, torch.tensor([t, t]))
        np.testing.assert_allclose(backbone.add_noise(latents, noise, t), expected, atol=1e-5)
    assert (1 - alphas_cumprod()[0]).sqrt().item() == pytest.approx(0.0292, abs=1e-4)


def test_image_side(backbone):
    assert (backbone.factor, backbone.width) == (2, WIDTH)
    assert backbone.input_side() == 16 and backbone.input_side(24) == 24
    with pytest.raises(KeypointError, match="image_size is 18, but tiny needs a multiple of 4; use 16"):
        backbone.input_side(18)


def test_half_precision_weights_give_fp32_logits(backbone):
    noisy, tokens = some(1, 4, 8, 8), some(TOKENS, WIDTH, seed=1)
    expected = backbone.token_logits(noisy, 0, tokens)
    half = Backbone(make_unet().bfloat16(), make_vae().bfloat16(), dtype=torch.bfloat16)
    for found, wanted in zip(half.token_logits(noisy, 0, tokens), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert half.encode(torch.rand(1, 3, SIDE, SIDE)).dtype == torch.float32


def test_devices_and_dtypes(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu") == choose_device("cpu")
    with pytest.raises(KeypointError, match="'cuda:99' cannot be used here"):
        choose_device("cuda:99")
    with pytest.raises(KeypointError, match="'toaster' cannot be used here"):
        choose_device("toaster")
    with pytest.raises(KeypointError, match="no dtype 'fp8'; use auto, fp32, bf16, fp16"):
        choose_dtype("fp8", torch.device("cpu"))
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert not caplog.records and choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert choose_dtype("fp16", torch.device("cpu")) == torch.float16
    assert [record.message.split(":")[0] for record in caplog.records] == ["fp16 is for GPUs"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16
    assert choose_dtype("auto", torch.device("mps")) == torch.bfloat16


def test_load_backbone_from_a_folder(model_folder, monkeypatch):
    loaded = load_backbone(str(model_folder), device="cpu")
    assert (loaded.name, loaded.dtype, loaded.width) == ("tiny", torch.float32, WIDTH) and len(loaded.hash) == 64
    noisy, tokens = some(1, 4, 8, 8), some(TOKENS, WIDTH, seed=1)
    expected = Backbone(make_unet(), make_vae()).token_logits(noisy, 0, tokens)
    for a, b in zip(loaded.token_logits(noisy, 0, tokens), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    half = load_backbone(str(model_folder), "bf16", "cpu")
    assert half.dtype == next(half.unet.parameters()).dtype == torch.bfloat16
