import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import write_images

from stablekp_core.images.affine import identity_affine, random_affine
from stablekp_core.images.image_set import load_folder
from stablekp_core.images.latent_cache import LatentSource
from stablekp_core.randomness import generator_for
from stablekp_core.training import fixed_features as module
from stablekp_core.training.fixed_features import FeatureSource
from stablekp_core.training.step import training_step
from stablekp_core.training.train import train

CONFIG = tiny_models.CONFIG.replace(gradient="cached", view_pool=2)


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path, 4)
    return load_folder(tmp_path)


def counted(backbone, monkeypatch):
    """How many images went through the UNet in each pass."""
    passes, queries = [], backbone.queries
    monkeypatch.setattr(backbone, "queries", lambda x, *a: passes.append(len(x)) or queries(x, *a))
    return passes


def test_kept_queries_are_those_of_the_fixed_prompt(backbone, images, monkeypatch):
    source = LatentSource(backbone, images)
    features = FeatureSource(backbone, source, CONFIG)
    theta = random_affine(3, 15, (0.8, 1.0), 0.25, torch.Generator().manual_seed(0))
    theta[2] = identity_affine(1)[0]
    passes = counted(backbone, monkeypatch)
    found = features.queries([1, 0, 1], theta, [0, 1, None])
    again = features.queries([1, 1], theta[[2, 0]], [None, 0])
    assert passes == [1, 1, 1]
    noise = torch.stack(
        [torch.randn(4, *source.latents([0]).shape[2:], generator=generator_for(0, "feature noise", *name))
         for name in ((1, 0), (0, 1), (1, None))]
    )  # fmt: skip
    noisy = backbone.add_noise(source.view_latents([1, 0, 1], theta), noise, 0)
    wanted = backbone.queries(noisy, 0, torch.zeros(1, backbone.width))
    assert len(found) == len(wanted) == 4
    for part, second, whole in zip(found, again, wanted, strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-4)
        assert torch.equal(second, part[[2, 0]])


def test_what_does_not_fit_is_computed_again(backbone, images, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    features = FeatureSource(backbone, LatentSource(backbone, images), CONFIG)
    passes = counted(backbone, monkeypatch)
    first = features.queries([0, 1], identity_affine(2), [None, None])
    second = features.queries([0, 1], identity_affine(2), [None, None])
    assert sum(passes) >= 3 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_training_on_kept_queries_stops_asking_the_model(backbone, images, monkeypatch):
    passes, after = counted(backbone, monkeypatch), []
    train(backbone, images, CONFIG.replace(steps=20), on_step=lambda info: after.append(sum(passes)))
    assert after[-1] == after[-3] <= 4 * (1 + CONFIG.view_pool)  # each image and each view of its pool once
    fresh = CONFIG.replace(view_pool=0, steps=8)
    del passes[:], after[:]
    train(backbone, images, fresh, on_step=lambda info: after.append(sum(passes)))
    assert after[-1] - after[-2] == fresh.batch_size  # views are new every time, images are not


def test_the_loss_is_that_of_a_step_with_constant_features(backbone, images, monkeypatch):
    asked, queries = [], FeatureSource.queries
    monkeypatch.setattr(FeatureSource, "queries", lambda self, *a: asked.append(a) or queries(self, *a))
    result = train(backbone, images, CONFIG.replace(steps=1))
    (indices, identity, none), (same, theta, slots) = asked
    assert indices == same and torch.equal(identity, identity_affine(2)) and none == [None, None]
    source, names = LatentSource(backbone, images), [*zip(indices, none, strict=True), *zip(same, slots, strict=True)]
    noise = torch.stack([torch.randn(4, 8, 8, generator=generator_for(0, "feature noise", *name)) for name in names])
    tokens = torch.randn(CONFIG.tokens, backbone.width, generator=generator_for(0, "tokens"))
    latents, views = source.latents(indices), source.view_latents(same, theta)
    out = training_step(backbone, CONFIG, tokens, latents, views, theta, noise)
    assert result.losses[0][0] == pytest.approx(float(out.total.mean()), rel=1e-4)


def test_cached_training_resumes_bit_for_bit(backbone, images, tmp_path):
    whole = train(backbone, images, CONFIG)

    def stop(info):
        if info.step == 3:
            raise KeyboardInterrupt

    state = tmp_path / "run.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(backbone, images, CONFIG, on_step=stop, checkpoint=state)
    resumed = train(backbone, images, CONFIG, checkpoint=state, resume=True)
    assert torch.equal(resumed.tokens.embeddings, whole.tokens.embeddings)
    assert resumed.tokens.chosen == whole.tokens.chosen and resumed.losses == whole.losses
