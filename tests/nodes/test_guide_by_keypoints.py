"""Fit Keypoint Guidance, its files, Guide by Keypoints and Compare Keypoints."""

from __future__ import annotations

import copy
import dataclasses
import sys
import types
from contextlib import nullcontext

import fake_comfy
import numpy as np
import pytest
import torch
from node_data import part
from sd15_writer import unet_shapes
from tiny_models import CONFIG, make_unet, make_vae

from stablekp_core.backbone.backbone import Backbone, alphas_cumprod
from stablekp_core.errors import KeypointError
from stablekp_core.guidance.readers import KeypointGuidance
from stablekp_core.guidance.steering import Steering
from stablekp_core.guidance.targets import pose_targets
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens

NAMES = ("nose", "tail", "ear")


class Handle:
    """A backbone of random weights, as it travels on the wire."""

    def __init__(self):
        self.model, self.seen_times = Backbone(make_unet(), make_vae(), "tiny", "a" * 64), 0

    def open(self, batch_size=1):
        return nullcontext(self.model)

    def beside(self, model):
        return ["patcher"]

    def seen(self):
        self.seen_times += 1
        return self.model


class Sampling:
    """ComfyUI's discrete model sampling."""

    sigmas = ((1 - alphas_cumprod()) / alphas_cumprod()).sqrt()

    def timestep(self, sigma):
        return (self.sigmas.log() - sigma.log()).abs().argmin(0, keepdim=True)


class Patcher:
    """What Guide by Keypoints asks of a MODEL; `denoise` is what its UNet would say."""

    def __init__(self):
        self.model = types.SimpleNamespace(diffusion_model=make_unet(), model_config=None, model_sampling=Sampling())
        self.model_options, self.wrappers, self.more = {"transformer_options": {}}, [], {}

    def clone(self):
        out = copy.copy(self)
        out.model_options, out.wrappers, out.more = copy.deepcopy(self.model_options), list(self.wrappers), {}
        return out

    def set_additional_models(self, key, models):
        self.more[key] = models

    def get_additional_models_with_key(self, key):
        return self.more.get(key, [])

    def add_wrapper_with_key(self, kind, key, wrapper):
        assert kind == "outer_sample"
        self.wrappers.append(wrapper)

    def set_model_sampler_post_cfg_function(self, function):
        self.model_options["sampler_post_cfg_function"] = [
            *self.model_options.get("sampler_post_cfg_function", []),
            function,
        ]

    def sample(self, x, sigmas):
        """Euler's method; the UNet says that 0.3 times the latents are clean."""
        seen = []

        def run():
            nonlocal x
            for now, following in zip(sigmas, sigmas[1:], strict=False):
                denoised = 0.3 * x
                options = self.model_options | {"transformer_options": {"sample_sigmas": sigmas}}
                args = dict(
                    input=x, denoised=denoised, sigma=now.expand(len(x)), model=self.model, model_options=options
                )
                for function in self.model_options.get("sampler_post_cfg_function", []):
                    denoised = function(args | {"denoised": denoised})
                step = x + (following - now) * (x - denoised) / now
                plain = x + (following - now) * (x - 0.3 * x) / now
                seen.append((float(now), x, step - plain))
                x = step
            return x

        for wrapper in self.wrappers:
            run = (lambda inner, w: lambda: w(inner))(run, wrapper)
        with torch.inference_mode():
            return run(), seen


def pose(rows=1, size=(16, 16)) -> Keypoints:
    xy = np.random.default_rng(0).uniform(0.2, 0.8, (rows, 3, 2)) * size
    return Keypoints(xy, np.ones((rows, 3)), np.array([size] * rows), NAMES)


@pytest.fixture
def guidance():
    b = Handle().model
    readers = torch.randn(2, 3, len(b.layers), b.width, generator=torch.Generator().manual_seed(1))
    return KeypointGuidance(
        (100, 500), readers, torch.zeros(1, b.width), (0.1, 0.2), 0.3, "t" * 64, b.hash, "tiny", NAMES
    )


@pytest.fixture
def node(pack, monkeypatch):
    module = part("guide_by_keypoints")
    monkeypatch.setattr(module, "check_model", lambda model: "MODEL")  # it looks at ComfyUI's layout
    return module.GuideByKeypoints


SIGMAS = torch.tensor([14.0, 5.0, 2.0, 0.7, 0.2, 0.0])


def test_eulers_steps_go_where_steering_says_and_the_model_stays_as_it_is(node, guidance):
    model, handle = Patcher(), Handle()
    out = node.execute(model, handle, guidance, pose(2))
    assert out[1] == 2 and out[0].more == {"stable_keypoints_guidance": ["patcher"]}
    x = 14 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = x.clone()  # as everything that ComfyUI makes during a prompt
    _, seen = out[0].sample(x, SIGMAS)
    steering = Steering(handle.model, guidance, pose_targets(pose(2), guidance, 8, 8))
    active = 0
    for sigma, latents, moved in seen:
        spread = (1 + sigma**2) ** 0.5
        t = float(Sampling().timestep(torch.tensor([sigma])))
        expected = steering.shift(latents.clone() / spread, t, sigma / spread) * spread
        torch.testing.assert_close(moved.clone(), expected, rtol=1e-3, atol=1e-3)
        active += bool(expected.any())
    assert active == 4  # the last quarter of the schedule is left alone
    assert handle.seen_times == 1 and model.model_options == {"transformer_options": {}} and not model.wrappers
    plain, _ = model.sample(x, SIGMAS)
    off, _ = node.execute(model, handle, guidance, pose(2), strength=0.0)[0].sample(x, SIGMAS)
    assert torch.equal(plain, off)


def test_nothing_is_kept_after_a_sampling_even_a_cancelled_one(node, guidance, monkeypatch):
    handle = Handle()
    guided = node.execute(Patcher(), handle, guidance, pose())[0]
    (function,) = guided.model_options["sampler_post_cfg_function"]
    guided.sample(torch.randn(1, 4, 8, 8), SIGMAS)
    assert function._steering is None

    def cancel():
        raise fake_comfy.Cancelled

    monkeypatch.setattr(sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", cancel)
    with pytest.raises(fake_comfy.Cancelled):
        guided.sample(torch.randn(1, 4, 8, 8), SIGMAS)
    assert function._steering is None


def test_poses_and_latents_that_do_not_pair_are_told(node, guidance, caplog):
    guided = node.execute(Patcher(), Handle(), guidance, pose(2))[0]
    with pytest.raises(KeypointError, match="2 poses were given for 3 images"):
        guided.sample(torch.randn(3, 4, 8, 8), SIGMAS)
    wide = node.execute(Patcher(), Handle(), guidance, pose(size=(32, 16)))[0]
    wide.sample(torch.randn(1, 4, 8, 8), SIGMAS)
    assert "another aspect ratio" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(guidance=dict(model_hash="f" * 64, model_name="other")), "fitted to other"),
        (dict(tokens=True), "other tokens"),
        (dict(pose=pose().select([0, 1])), "the pose has 2 keypoints but the guidance reads 3"),
        (dict(pose=pose(0)), "the pose is empty"),
        (dict(pose=dataclasses.replace(pose(), confidence=np.zeros((1, 3)))), "leaves every keypoint free"),
        (dict(points="wing"), "no keypoint 'wing'"),
        (dict(strength=-1.0), "strength is -1.0"),
        (dict(start_percent=0.9), "start must be below end"),
    ],
)
def test_what_does_not_fit_is_refused_before_sampling(node, guidance, change, words):
    given = dict(pose=pose(), guidance=guidance) | {k: v for k, v in change.items() if k not in ("guidance", "tokens")}
    if "guidance" in change:
        given["guidance"] = dataclasses.replace(guidance, **change["guidance"])
    if "tokens" in change:
        given["tokens"] = KeypointTokens(torch.randn(4, 16), (0, 1, 2))
    with pytest.raises(KeypointError, match=words):
        node.execute(Patcher(), Handle(), **given)


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (dict(context=2048, label_width=2816, mult=(1, 2, 4), attention=(False, True, True)), "an SDXL model"),
        (dict(context=1280, label_width=2560), "an SDXL refiner model"),
        (dict(context=1024, linear=True), "a Stable Diffusion 2 model"),
        (dict(in_channels=9), "an inpainting model"),
        (None, "not a Stable Diffusion UNet"),
        ({}, None),
    ],
)
def test_another_kind_of_model_is_refused_by_name(pack, guidance, shapes, kind):
    """The MODEL's UNet has the names and the shapes that ComfyUI gives it, but no memory."""
    model, execute = Patcher(), part("guide_by_keypoints").GuideByKeypoints.execute
    if shapes is not None:
        tensors = {key: torch.empty(shape, device="meta") for key, shape in unet_shapes(**shapes).items()}
        model.model.diffusion_model = types.SimpleNamespace(state_dict=lambda: tensors)
    if kind is None:
        assert execute(model, Handle(), guidance, pose())[1] == 1
        return
    with pytest.raises(KeypointError, match=f"the MODEL is {kind}.* connect a MODEL of that kind\\.$") as refused:
        execute(model, Handle(), guidance, pose())
    assert "\n" not in str(refused.value)


def test_guidance_is_fitted_saved_and_loaded(pack):
    handle = Handle()
    tokens = KeypointTokens(torch.randn(12, 16), (0, 1, 2), config=CONFIG.to_dict(), names=NAMES)
    images = [torch.rand(8, 24, 20, 3, generator=torch.Generator().manual_seed(0))]
    fitted, report = part("fit_keypoint_guidance").FitKeypointGuidance.execute([handle], [tokens], images).args
    assert fitted.tokens_digest == tokens.digest and "900" in report
    assert fake_comfy.ProgressBar.calls[-1][0] == fake_comfy.ProgressBar.calls[-1][1]
    saved = part("save_keypoint_guidance").SaveKeypointGuidance.execute(fitted, "dolls/a")
    assert saved[0].replace("\\", "/").endswith("models/keypoint_guidance/dolls/a.safetensors")
    load = part("load_keypoint_guidance").LoadKeypointGuidance
    name = part("comfy.folders").guidance_files()[0]
    assert torch.equal(load.execute(name)[0].readers, fitted.readers)
    assert load.validate_inputs(name) is True and "Save Keypoint Guidance" in load.validate_inputs(
        "nothing.safetensors"
    )


def test_comparing_says_how_far_the_result_is(pack):
    found = dataclasses.replace(pose(), xy=pose().xy + (1.6, 0))
    report, error = part("compare_keypoints").CompareKeypoints.execute(found, pose()).args
    assert error == pytest.approx(0.1, rel=1e-4) and report.startswith("mean distance 10.0%")
