"""Generating images in a pose: the small model's words, diffusers' pipeline, schedulers of both kinds."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from tiny_models import write_text_encoder

from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import GuideConfig
from stablekp_core.errors import KeypointError
from stablekp_core.guidance import generation
from stablekp_core.guidance.generation import SCHEDULE, generate, open_generator
from stablekp_core.guidance.readers import KeypointGuidance
from stablekp_core.guidance.steering import STEP, Steering
from stablekp_core.guidance.targets import pose_error, pose_targets
from stablekp_core.guidance.words import CaptionWords
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.randomness import generator_for
from stablekp_core.synthetic import figures
from stablekp_core.synthetic import generator as pictures


@pytest.fixture(scope="module")
def demo():
    return open_generator(load_backbone("demo", "fp32", "cpu"), "demo")


@pytest.fixture(scope="module")
def guidance(demo):
    """Random readers of two keypoints."""
    b = demo.backbone
    readers = torch.randn(1, 2, len(b.layers), b.width, generator=torch.Generator().manual_seed(0))
    return KeypointGuidance((500,), readers, torch.zeros(1, b.width), (0.1,), 0.2, "t" * 64, b.hash, "demo")


def pose(rows: int = 1, size=(128, 128)) -> Keypoints:
    xy = np.random.default_rng(0).uniform(0.2, 0.8, (rows, 2, 2)) * size
    return Keypoints(xy, np.ones((rows, 2)), np.array([size] * rows))


# Words


def test_the_small_model_comes_with_a_word_for_every_part_and_colour():
    words = CaptionWords.load(generation.DEMO_FOLDER)
    assert words.color_names == pictures.COLOR_NAMES and len(words.color) == len(pictures.COLORS)
    assert set(words.kinds) == set(figures.KINDS)
    for kind, (row, names) in words.kinds.items():
        assert names == ("background", *figures.part_names(kind)) and row + len(names) <= len(words.part)
    assert words.part.isfinite().all() and 0.5 < words.part.std() < 2


def test_captions_give_the_colours_asked_for():
    words = CaptionWords.load(generation.DEMO_FOLDER)
    tokens = words.caption("a doll with RED head, green left hand, white background", generator_for(0))
    row, names = words.kinds["dolls"]
    assert len(tokens) == len(names)
    for part, color in (("head", "red"), ("left hand", "green"), ("background", "white")):
        i = names.index(part)
        expected = (words.part[row + i] + words.color[words.color_names.index(color)]) / 2**0.5
        torch.testing.assert_close(tokens[i], expected)
    again = words.caption("a doll with red head, green left hand, white background", generator_for(0))
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, words.caption("a doll", generator_for(1)))
    with pytest.raises(KeypointError, match="begin with a doll or a face"):
        words.caption("a red bird", generator_for(0))


# Generation


def test_the_same_noise_for_every_pose_or_for_none(demo, guidance):
    off = GuideConfig(strength=0)
    three = generate(demo, "a face", pose(3), guidance, steps=2, config=off)
    assert np.array_equal(three[0], three[1]) and np.array_equal(three[0], three[2])
    assert three[0].shape == (128, 128, 3) and three[0].dtype == np.uint8
    own = generate(demo, "a face", pose(3), guidance, steps=2, config=off, same_noise=False)
    assert np.array_equal(own[0], three[0]) and not np.array_equal(own[0], own[1])
    alone = generate(demo, "a face", count=2, steps=2)
    assert np.array_equal(alone[0], three[0]) and np.array_equal(alone[1], own[1])


def test_guidance_changes_images_and_batches_do_not(demo, guidance):
    plain = generate(demo, "a doll", count=1, steps=4)[0].astype(int)
    progress = []
    both = generate(demo, "a doll", pose(2), guidance, steps=4, on_progress=lambda *how: progress.append(how))
    assert np.abs(both[0] - plain).mean() > 2 and np.abs(both[1].astype(int) - both[0]).mean() > 2
    one_by_one = generate(demo, "a doll", pose(2), guidance, steps=4, batch_size=1)
    for a, b in zip(both, one_by_one, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 1
    assert progress == [("generating", 2 * i, 8) for i in range(5)]


def test_oblong_images_and_a_pose_of_another_aspect_ratio(demo, guidance, caplog):
    with caplog.at_level(logging.WARNING):
        (image,) = generate(demo, "a doll", pose(), guidance, steps=2, width=192, height=128)
    assert image.shape == (128, 192, 3) and "another aspect ratio" in caplog.text


def test_latents_of_either_scale_are_moved_the_same_way(demo, guidance):
    """Schedulers with the UNet's own scale, and those whose latents grow with the noise (Euler)."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    steering = Steering(demo.backbone, guidance, pose_targets(pose(), guidance, 128, 128))
    schedule = {k: v for k, v in SCHEDULE.items() if k.startswith("beta")}
    unit = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    moves = {}
    for kind in (DDIMScheduler, EulerDiscreteScheduler):
        scheduler = kind(timestep_spacing="trailing", **schedule)
        scheduler.set_timesteps(10)
        t = scheduler.timesteps[2]
        alpha = float(scheduler.alphas_cumprod[round(float(t))])
        scale = alpha**0.5 if kind is EulerDiscreteScheduler else 1.0
        scheduler._step_index = 2
        moved = generation._steered(scheduler, steering, 2, unit / scale)
        moves[kind.__name__] = (float(t), (moved - unit / scale) * scale)
        assert (moved - unit / scale).square().mean().sqrt() * scale == pytest.approx(
            STEP * (1 - alpha) ** 0.5, rel=2e-2
        )
    (t_a, a), (t_b, b) = moves.values()
    assert t_a == pytest.approx(t_b, abs=1)
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_generates_much_the_same(demo, guidance, dtype):
    half = open_generator(load_backbone("demo", dtype, "cpu"), "demo")
    assert half.backbone.hash == guidance.model_hash
    (expected,) = generate(demo, "a doll", pose(), guidance, steps=3)
    (image,) = generate(half, "a doll", pose(), guidance, steps=3)
    assert np.abs(image.astype(int) - expected).mean() < 8


def test_what_does_not_fit_is_refused(demo, guidance):
    with pytest.raises(KeypointError, match="A pose needs guidance"):
        generate(demo, "a doll", pose())
    with pytest.raises(KeypointError, match="count is 0"):
        generate(demo, "a doll", count=0)
    other = dataclasses.replace(guidance, model_hash="f" * 64, model_name="other")
    with pytest.raises(KeypointError, match="fitted to other"):
        generate(demo, "a doll", pose(), other)
    with pytest.raises(KeypointError, match="multiple of"):
        generate(demo, "a doll", width=100)


def test_a_model_without_text_encoder_cannot_generate(model_folder):
    backbone = load_backbone(str(model_folder), "fp32", "cpu")
    with pytest.raises(KeypointError, match="no folder text_encoder"):
        open_generator(backbone, model_folder)


def test_a_diffusers_folder_generates_with_its_text_encoder(model_folder, tmp_path):
    """A random CLIP text encoder beside the tiny model; classifier-free guidance doubles the batch inside."""
    backbone = load_backbone(str(model_folder), "fp32", "cpu")
    write_text_encoder(tmp_path, backbone.width)
    readers = torch.randn(1, 2, len(backbone.layers), backbone.width)
    guidance = KeypointGuidance((500,), readers, torch.zeros(1, backbone.width), (0.1,), 0.2, "t" * 64, backbone.hash)
    generator = open_generator(backbone, model_folder, tmp_path)
    images = generate(generator, "a cat", pose(2), guidance, steps=3, negative="dog", prompt_weight=5.0)
    assert len(images) == 2 and not np.array_equal(images[0], images[1])
    assert generator.pipeline.scheduler.config.prediction_type == "epsilon"
    backbone.prediction = "v_prediction"
    velocity = open_generator(backbone, model_folder, tmp_path)
    assert velocity.pipeline.scheduler.config.prediction_type == "v_prediction"


# The error of what was generated


def test_pose_error_compares_in_the_frame_of_the_image():
    asked = pose(1, (64, 128))
    found = Keypoints(asked.xy * 2 + (64, 0) + (0, 12.8), np.ones((1, 2)), np.array([[256, 256]]))
    error = pose_error(found, asked)
    assert error.mean == pytest.approx(0.05, rel=1e-4) and error.pck() == 1 and error.pck(0.04) == 0
    assert "mean distance 5.0%" in error.report()
    only = pose_error(found, asked, "1")
    assert np.isnan(only.distances[0, 0]) and only.mean == pytest.approx(0.05, rel=1e-4)
    with pytest.raises(KeypointError, match="3 images cannot be compared with 2 poses"):
        pose_error(pose(3), pose(2))
    with pytest.raises(KeypointError, match="different points"):
        pose_error(pose(), dataclasses.replace(pose(), names=("a", "b")))
