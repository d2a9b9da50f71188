"""Readers, energy, targets and steering, on the tiny random model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import CONFIG

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.config import DetectConfig, GuideConfig
from stablekp_core.detection.detector import Detector
from stablekp_core.errors import KeypointError
from stablekp_core.guidance import energy as energies
from stablekp_core.guidance.fitting import fit_guidance
from stablekp_core.guidance.readers import KeypointGuidance
from stablekp_core.guidance.steering import STEP, Steering, active
from stablekp_core.guidance.targets import Targets, choose_points, pose_targets
from stablekp_core.images.image_set import ImageSet
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens

NAMES = ("nose", "tail", "ear")


@pytest.fixture
def guidance(backbone):
    """Random readers of three keypoints at two timesteps."""
    g = torch.Generator().manual_seed(1)
    readers = torch.randn(2, 3, len(backbone.layers), backbone.width, generator=g)
    prompt = torch.randn(1, backbone.width, generator=g)
    return KeypointGuidance((100, 500), readers, prompt, (0.1, 0.2), 0.3, "t" * 64, backbone.hash, "tiny", NAMES)


def pose(rows: int = 1, width: int = 16, height: int = 16, confidence: float = 1.0) -> Keypoints:
    xy = np.random.default_rng(0).uniform(0.2, 0.8, (rows, 3, 2)) * (width, height)
    return Keypoints(xy, np.full((rows, 3), confidence), np.array([[width, height]] * rows), NAMES)


def squares(count: int, side: int = 16, block: int = 4) -> ImageSet:
    """Images of a bright block on noise."""
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        image = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
        x, y = rng.integers(0, side - block + 1, 2)
        image[y : y + block, x : x + block] = (250, 60, 200)
        images.append(image)
    return ImageSet.from_arrays(images)


# Readers


class Colours(Backbone):
    """A backbone whose latents are colours, and whose features are the noisy latents at the finest layer."""

    def encode(self, images, slice_size=0):
        small = F.avg_pool2d(images * 2 - 1, self.factor)
        return torch.cat([small, small[:, :1]], 1)

    def queries(self, noisy, timestep, tokens):
        self.seen = noisy
        return super().queries(noisy, timestep, tokens)

    def features(self, found):
        layers = [torch.zeros_like(layer) for layer in super().features(found)]
        layers[-1][:, 0, :, :4] = self.seen.flatten(2).transpose(1, 2)
        return layers


class Blocks(Detector):
    """Finds the bright block, whatever the tokens."""

    def stream(self, pictures, keep_maps=False, masks=None):
        for (_, image), found in zip(pictures, super().stream(pictures, keep_maps, masks), strict=True):
            y, x = np.argwhere(image[..., 0] > 200).mean(0) + 0.5
            here = np.broadcast_to(np.array([x, y]), (1, 3, 2))
            yield replace(found, keypoints=replace(found.keypoints, xy=here))


def test_readers_find_keypoints_in_noise_on_images_left_out(backbone, monkeypatch):
    colours = Colours(backbone.unet, backbone.vae, "tiny", "0123abcd")
    tokens = KeypointTokens(torch.randn(12, backbone.width), (0, 1, 2), config=CONFIG.to_dict(), names=NAMES)
    monkeypatch.setattr("stablekp_core.guidance.fitting.Detector", Blocks)
    progress = []
    fitted = fit_guidance(
        colours,
        tokens,
        squares(48),
        timesteps=(0, 900),
        detection=DetectConfig(views=0),
        on_progress=lambda *how: progress.append(how),
    )
    assert fitted.readers.shape == (2, 3, len(backbone.layers), backbone.width)
    assert fitted.errors[0] < 0.3 * fitted.guess_error  # clean latents show the block
    assert fitted.errors[1] > 2 * fitted.errors[0]  # at timestep 900 hardly anything is to be seen
    assert fitted.tokens_digest == tokens.digest and fitted.model_hash == backbone.hash and fitted.names == NAMES
    assert progress[0] == ("detecting", 0, 48) and progress[-1] == ("fitting guidance", 96, 96)


def test_too_few_images_are_refused(backbone):
    tokens = KeypointTokens(torch.randn(12, backbone.width), (0, 1, 2), config=CONFIG.to_dict())
    with pytest.raises(KeypointError, match="7 readable images are too few"):
        fit_guidance(backbone, tokens, squares(7), detection=DetectConfig(views=0))


def test_the_reader_between_two_timesteps_is_between_theirs(guidance):
    a, b = guidance.readers
    torch.testing.assert_close(guidance.at(300), (a + b) / 2)
    assert torch.equal(guidance.at(0), a) and torch.equal(guidance.at(100), a) and torch.equal(guidance.at(900), b)


def test_guidance_comes_back_from_its_file(guidance, tmp_path):
    guidance = replace(guidance, skeleton=((0, 1),), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    path = guidance.save(tmp_path / "a")
    assert path.name == "a.guidance.safetensors"
    again = KeypointGuidance.load(path)
    assert torch.equal(again.readers, guidance.readers) and torch.equal(again.prompt, guidance.prompt)
    for name in ("timesteps", "errors", "guess_error", "tokens_digest", "model_hash", "names", "skeleton", "colors"):
        assert getattr(again, name) == getattr(guidance, name)


def test_other_files_are_refused_by_name(tmp_path):
    tokens = KeypointTokens(torch.randn(4, 8), (0, 1)).save(tmp_path / "tokens")
    with pytest.raises(KeypointError, match="tokens.safetensors is not a guidance file"):
        KeypointGuidance.load(tokens)
    (tmp_path / "cut.safetensors").write_bytes(b"abc")
    with pytest.raises(KeypointError, match="cut.safetensors is not a complete safetensors file"):
        KeypointGuidance.load(tmp_path / "cut.safetensors")
    with pytest.raises(KeypointError, match="does not exist"):
        KeypointGuidance.load(tmp_path / "nowhere.safetensors")


def test_other_tokens_and_models_are_refused(guidance):
    with pytest.raises(KeypointError, match="fitted to tiny .* the model in use is other"):
        guidance.check_model("f" * 64, "other")
    with pytest.raises(KeypointError, match="other tokens"):
        guidance.check_tokens("f" * 64)
    guidance.check_model(guidance.model_hash), guidance.check_tokens(guidance.tokens_digest)


# Energy


def test_the_gradient_is_that_of_finite_differences(backbone, guidance):
    backbone.unet.double(), backbone.vae.double()
    g = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=g)
    targets, weights = torch.rand(2, 3, 2, generator=g), torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    found, gradient = energies.energy_gradient(backbone, guidance, noisy, 300, targets, weights, 0.1)
    direction = torch.randn(noisy.shape, generator=g)
    step = 1e-2
    away = [
        energies.energy_gradient(backbone, guidance, noisy + s * step * direction, 300, targets, weights, 0.1)[0]
        for s in (1, -1)
    ]
    measured = (away[0] - away[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), measured, rtol=2e-2, atol=1e-3)
    assert gradient.abs().amax() > 1e-4 and (found > 0).all()


def test_energies_of_a_batch_are_those_of_its_images(backbone, guidance):
    noisy, targets, weights = torch.randn(3, 4, 8, 8), torch.rand(3, 3, 2), torch.rand(3, 3)
    whole = energies.energy_gradient(backbone, guidance, noisy, 200, targets, weights, 0.1)
    for i in range(3):
        one = slice(i, i + 1)
        alone = energies.energy_gradient(backbone, guidance, noisy[one], 200, targets[one], weights[one], 0.1)
        for a, b in zip(whole, alone, strict=True):
            torch.testing.assert_close(a[one], b, rtol=1e-3, atol=1e-5)


def test_energy_is_lowest_at_the_target_and_0_weight_counts_nothing():
    maps = torch.full((1, 2, 8, 8), -40.0)
    maps[0, 0, 2, 5] = maps[0, 1, 6, 1] = 0.0  # keypoint 0 at x = 5.5 / 8, y = 2.5 / 8
    here = torch.tensor([[[5.5, 2.5], [1.5, 6.5]]]) / 8
    assert energies.energy(maps, here, torch.ones(1, 2), 0.1).item() == pytest.approx(0, abs=1e-4)
    away = here.clone()
    away[0, 1] = 0.9
    expected = ((0.9 - here[0, 1]) ** 2).sum() / (2 * 0.1**2)
    assert energies.energy(maps, away, torch.ones(1, 2), 0.1).item() == pytest.approx(expected.item(), rel=1e-3)
    assert energies.energy(maps, away, torch.tensor([[1.0, 0.0]]), 0.1).item() == pytest.approx(0, abs=1e-4)


def test_maps_are_those_that_fitting_and_detection_read(backbone, guidance):
    from stablekp_core.attention import token_maps

    noisy = torch.randn(2, 4, 8, 8)
    found = energies.log_maps(backbone, noisy, 100, guidance).exp()
    logits = backbone.logits(backbone.queries(noisy, 100, guidance.prompt), guidance.readers[0])
    torch.testing.assert_close(found, token_maps.spatial_softmax_maps(logits, 8), rtol=1e-4, atol=1e-6)


def test_oblong_latents_have_oblong_maps(backbone, guidance):
    maps = energies.log_maps(backbone, torch.randn(1, 4, 12, 6), 100, guidance)
    assert maps.shape == (1, 3, 12, 6)
    torch.testing.assert_close(maps.exp().sum((2, 3)), torch.ones(1, 3))
    gauss = energies.target_log_maps(torch.tensor([[[0.5, 0.5]]]), (12, 6), 0.25)[0, 0]
    assert gauss[5, 0] == pytest.approx(-((2.5 / 12) ** 2 + (0.5 / 12) ** 2) / (2 * 0.25**2))  # a circle in pixels


# Targets


def test_a_pose_of_another_aspect_ratio_is_fitted_into_the_image(guidance):
    wide = pose(width=32, height=16)
    found = pose_targets(wide, guidance, 64, 64)
    assert found.fitted
    np.testing.assert_allclose(found.xy[0, :, 0], wide.xy[0, :, 0] / 32, rtol=1e-6)
    np.testing.assert_allclose(found.xy[0, :, 1], 0.25 + wide.xy[0, :, 1] / 32, rtol=1e-6)
    assert not pose_targets(wide, guidance, 512, 256).fitted


def test_weights_are_confidence_and_0_for_points_left_free(guidance):
    found = pose_targets(pose(confidence=0.5), guidance, 8, 8, "tail, 2")
    assert found.weights.tolist() == [[0, 0.5, 0.5]]
    assert choose_points("", NAMES).all()


@pytest.mark.parametrize(
    ("given", "points", "message"),
    [
        (pose(0), "", "the pose is empty"),
        (pose().select([0, 1]), "", "the pose has 2 keypoints but the guidance reads 3"),
        (pose(confidence=0), "", "row 0 of the pose leaves every keypoint free"),
        (pose(), "wing", "there is no keypoint 'wing'"),
        (pose(), "3", "there is no keypoint '3'"),
        (replace(pose(), names=("a", "b", "c")), "", "names a keypoint 'a' where the guidance has 'nose'"),
    ],
)
def test_poses_that_do_not_fit_are_refused(guidance, given, points, message):
    with pytest.raises(KeypointError, match=message):
        pose_targets(given, guidance, 8, 8, points)


# Steering


def steering(backbone, guidance, **settings) -> Steering:
    return Steering(backbone, guidance, pose_targets(pose(2), guidance, 8, 8), GuideConfig(**settings))


def test_steps_have_the_length_asked_for_and_lower_the_energy(backbone, guidance):
    noisy, one = torch.randn(2, 4, 8, 8), steering(backbone, guidance, strength=2.0)
    shift = one.shift(noisy, 500, deviation=0.8)
    for row in shift:
        assert row.square().mean().sqrt() == pytest.approx(2 * STEP * 0.8, rel=1e-4)
    args = (500, one.targets.xy, one.targets.weights, one.sigma(500))
    before = energies.energy_gradient(backbone, guidance, noisy, *args)[0]
    after = energies.energy_gradient(backbone, guidance, noisy + shift, *args)[0]
    assert (after < before).all()


def test_two_gradient_steps_and_small_passes(backbone, guidance):
    noisy = torch.randn(4, 4, 8, 8)
    one, twice = (steering(backbone, guidance, gradient_steps=n).shift(noisy, 500, 0.8) for n in (1, 2))
    again = steering(backbone, guidance).shift(noisy + one, 500, 0.8)
    torch.testing.assert_close(twice, one + again, rtol=1e-3, atol=1e-4)
    alone = steering(backbone, guidance, batch_size=1).shift(noisy, 500, 0.8)
    torch.testing.assert_close(alone, one, rtol=1e-3, atol=1e-4)


def test_nothing_moves_outside_of_the_schedule(backbone, guidance):
    one = steering(backbone, guidance, start=0.2, end=0.6)
    assert [active(one.config, t) for t in (999, 801, 799, 401, 399, 0)] == [False, False, True, True, False, False]
    assert not one.shift(torch.randn(2, 4, 8, 8), 100, 0.1).any()
    assert not steering(backbone, guidance, strength=0).shift(torch.randn(2, 4, 8, 8), 500, 0.8).any()
    assert one.sigma(800) == pytest.approx(1 / 8) and one.sigma(400) == pytest.approx(1 / 32)
    assert one.sigma(600) == pytest.approx(math.sqrt(1 / 8 / 32))


def test_stopping_comes_through_between_gradient_steps(backbone, guidance):
    class Stop(Exception):
        pass

    def check():
        calls.append(1)
        if len(calls) == 2:
            raise Stop

    calls = []
    one = Steering(backbone, guidance, pose_targets(pose(), guidance, 8, 8), GuideConfig(gradient_steps=5), check)
    with pytest.raises(Stop):
        one.shift(torch.randn(1, 4, 8, 8), 500, 0.8)
    assert len(calls) == 2


def test_memory_that_runs_out_means_smaller_passes(backbone, guidance, monkeypatch):
    sizes, real = [], energies.energy_gradient

    def tight(backbone, guidance, noisy, *rest):
        sizes.append(len(noisy))
        if len(noisy) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(backbone, guidance, noisy, *rest)

    noisy, expected = torch.randn(2, 4, 8, 8), None
    expected = steering(backbone, guidance).shift(noisy, 500, 0.8)
    monkeypatch.setattr("stablekp_core.guidance.steering.energy_gradient", tight)
    torch.testing.assert_close(steering(backbone, guidance).shift(noisy, 500, 0.8), expected, rtol=1e-3, atol=1e-4)
    assert sizes == [2, 2, 1, 1] or sizes[-2:] == [1, 1]


def test_an_image_whose_gradient_overflows_is_left_alone(backbone, guidance, monkeypatch, caplog):
    real = energies.energy_gradient

    def overflowing(*args):
        energy, gradient = real(*args)
        gradient[0, 0, 0, 0] = float("inf")
        return energy, gradient

    noisy = torch.randn(2, 4, 8, 8)
    expected = steering(backbone, guidance).shift(noisy, 500, 0.8)
    monkeypatch.setattr("stablekp_core.guidance.steering.energy_gradient", overflowing)
    shift = steering(backbone, guidance).shift(noisy, 500, 0.8)
    assert not shift[0].any() and torch.equal(shift[1], expected[1])
    assert "overflows for 1 of 2 images" in caplog.text


def test_poses_take_turns_over_a_batch():
    targets = Targets(torch.rand(2, 3, 2), torch.ones(2, 3))
    assert torch.equal(targets.repeated(4).xy, targets.xy[[0, 1, 0, 1]])
    with pytest.raises(KeypointError, match="2 poses were given for 3 images"):
        targets.repeated(3)


@pytest.mark.parametrize("wrong", [dict(strength=-1), dict(start=0.8), dict(gradient_steps=0), dict(sigma_end=0)])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(KeypointError):
        GuideConfig(**wrong)
