import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIG, WIDTH, make_unet, make_vae, write_images

from stablekp_core.attention import readout, tiled, token_maps
from stablekp_core.backbone.backbone import Backbone
from stablekp_core.config import DetectConfig
from stablekp_core.detection.detector import detect
from stablekp_core.errors import KeypointError
from stablekp_core.images import affine
from stablekp_core.images.affine import random_affine
from stablekp_core.images.image_set import load_folder
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.progress import CHECKING, CHOOSING, EXTRACTING, TRAINING, TRAINING_PHASES
from stablekp_core.randomness import generator_for, image_order
from stablekp_core.selection import ranking, select
from stablekp_core.selection.occlusion import load_occlusion_network
from stablekp_core.training import trainer
from stablekp_core.training.step import training_step
from stablekp_core.training.train import train
from stablekp_core.training.trainer import TrainingDiverged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "pictures"
    write_images(folder, 5)
    return folder


@pytest.fixture(scope="module")
def model():
    return Backbone(make_unet(), make_vae(), "tiny", "0123abcd")


@pytest.fixture(scope="module")
def whole(model, folder):
    """An undisturbed run, and the tokens after each of its steps."""
    tokens = []
    result = train(model, load_folder(folder), CONFIG, on_step=lambda info: tokens.append(info.snapshot().embeddings))
    return result, tokens


def step_inputs(batch=2, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(CONFIG.tokens, WIDTH, generator=g, dtype=dtype).requires_grad_()
    latents, view = torch.randn(2, batch, 4, 8, 8, generator=g)
    theta = random_affine(batch, 15, (0.8, 1.0), 0.25, g)
    return tokens, latents, view, theta, torch.randn(2 * batch, 4, 8, 8, generator=g)


def gradient(model, config, inputs):
    out = training_step(model, config, *inputs)
    (grad,) = torch.autograd.grad(out.total.mean(), inputs[0])
    return out, grad


# The model input


def test_the_shape_of_the_images_decides_how_they_are_fitted_and_is_kept_with_the_tokens(model, tmp_path):
    write_images(tmp_path, 3, size=(48, 24))
    images, config = load_folder(tmp_path), CONFIG.replace(steps=1, resize="auto")
    tokens = train(model, images, config).tokens
    reading = tokens.reading
    assert (reading.resize, reading.image_size, reading.map_size) == ("pad", 24, 24)  # the model's 16, and half as much
    found = detect(model, tokens, images, DetectConfig(views=1)).keypoints
    assert (found.xy <= (48, 24)).all()
    chosen = [
        trainer.fitted(config.replace(**changes), model, images)
        for changes in (dict(image_size=32), dict(resize="squash"), dict(resize="pad"))
    ]
    assert [(c.resize, c.image_size) for c in chosen] == [("pad", 32), ("squash", 0), ("pad", 0)]


def test_images_that_are_about_square_are_squashed_as_ever(model, folder):
    assert trainer.fitted(CONFIG.replace(resize="auto"), model, load_folder(folder)) == CONFIG


# The step


def test_step_shapes_and_sums(model):
    inputs = step_inputs()
    for changes, k in (({}, 3), ({"loss_tokens": "all"}, 5), ({"upsample": "maps"}, 3)):
        config = CONFIG.replace(**changes)
        out, grad = gradient(model, config, inputs)
        assert out.maps.shape == out.view_maps.shape == (2, 12, 16, 16) and not out.maps.requires_grad
        assert out.chosen.shape == (2, k) and all(len(set(row)) == k for row in out.chosen.tolist())
        assert out.localization.shape == out.equivariance.shape == out.total.shape == (2,)
        expected = 100 * out.localization + 1000 * out.equivariance
        assert torch.allclose(out.total, expected, rtol=1e-5) and grad.abs().max() > 0


def test_step_is_a_pure_function(model):
    inputs = step_inputs()
    before = [x.detach().clone() for x in inputs]
    (first, grad), state = gradient(model, CONFIG, inputs), torch.get_rng_state()
    torch.rand(7)
    again, grad_again = gradient(model, CONFIG, inputs)
    assert torch.equal(first.total, again.total) and torch.equal(grad, grad_again)
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, inputs, strict=True))
    torch.set_rng_state(state)
    gradient(model, CONFIG, inputs)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn


def test_images_of_a_batch_do_not_mix(model):
    tokens, latents, view, theta, noise = step_inputs(3)
    together = training_step(model, CONFIG, tokens, latents, view, theta, noise)
    for i in range(3):
        alone = training_step(
            model, CONFIG, tokens, latents[i : i + 1], view[i : i + 1], theta[i : i + 1], noise[[i, 3 + i]]
        )
        assert alone.chosen[0].tolist() == together.chosen[i].tolist()
        assert alone.total.item() == pytest.approx(together.total[i].item(), rel=1e-4)


def same_choice_and_peaks(a, b):
    every = torch.arange(2)[:, None]
    peaks = [readout.peaks(x.maps[every, x.chosen]) for x in (a, b)]
    return torch.equal(a.chosen, b.chosen) and torch.equal(*peaks)


@pytest.mark.parametrize("upsample", ["logits", "maps"])
def test_step_gradient_matches_finite_differences(upsample):
    """Through the truncated UNet, the maps and both losses; tokens chosen and peaks stay put for small
    changes.
    """
    model = Backbone(make_unet().double(), make_vae(), dtype=torch.float64)
    config, checked = CONFIG.replace(upsample=upsample), 0
    for seed in range(6):
        inputs = step_inputs(seed=seed)
        out, grad = gradient(model, config, inputs)
        way = grad / grad.norm() + torch.randn(grad.shape, generator=torch.Generator().manual_seed(3)) / 14
        near = [training_step(model, config, inputs[0].detach() + h * way, *inputs[1:]) for h in (2e-3, -2e-3)]
        if not all(same_choice_and_peaks(x, out) for x in near):
            continue  # the loss jumps in between
        slope = (near[0].total.double().mean() - near[1].total.double().mean()).item() / 4e-3
        assert (grad * way).sum().item() == pytest.approx(slope, rel=1e-2)
        checked += 1
    assert checked >= 2


def test_coverage_mask_and_border_change_the_step(model):
    inputs = step_inputs()
    plain = training_step(model, CONFIG, *inputs)
    unmasked = training_step(model, CONFIG.replace(coverage_mask=False), *inputs)
    assert torch.equal(plain.localization, unmasked.localization)
    assert not torch.allclose(plain.equivariance, unmasked.equivariance, rtol=1e-2)


# Seeds


def test_same_seed_same_tokens(model, folder, whole):
    again = train(model, load_folder(folder), CONFIG)
    assert torch.equal(again.tokens.embeddings, whole[0].tokens.embeddings)
    assert again.losses == whole[0].losses and again.tokens.chosen == whole[0].tokens.chosen
    assert again.tokens.scores == whole[0].tokens.scores
    other = train(model, load_folder(folder), CONFIG.replace(seed=1, steps=1))
    assert not torch.equal(other.tokens.embeddings, whole[1][0])


def test_what_a_run_leaves(whole):
    result, tokens = whole
    assert torch.equal(tokens[-1], result.tokens.embeddings)
    assert len(result.losses) == 6 and all(len(row) == 3 for row in result.losses)
    assert result.tokens.losses == tuple(row[0] for row in result.losses)
    for total, localization, equivariance in result.losses:
        assert total == pytest.approx(100 * localization + 1000 * equivariance, rel=1e-4)
    assert result.tokens.config == CONFIG.to_dict() and result.tokens.num_keypoints == 3
    assert (result.tokens.model_name, result.tokens.model_hash) == ("tiny", "0123abcd")
    assert len(result.tokens.scores) == 3 and all(0 < s <= 1 for s in result.tokens.scores)


def test_the_first_step_is_adam_on_the_mean_gradient(model, folder, whole):
    """Data drawn by hand from the seed, one step of Adam by its formula."""
    seed, config = CONFIG.seed, CONFIG
    tokens = torch.randn(12, WIDTH, generator=generator_for(seed, "tokens")).requires_grad_()
    images, order = load_folder(folder), image_order(seed, 0, 2, 5)
    g = generator_for(seed, "step", 0)
    theta = random_affine(2, config.rotation, config.scale, config.translation, g)
    noise = torch.randn(2, 2, 4, 8, 8, generator=g).flatten(0, 1)
    source = trainer.LatentSource(model, images)
    inputs = (tokens, source.latents(order), source.view_latents(order, theta), theta, noise)
    out, grad = gradient(model, config, inputs)
    expected = tokens.detach() - config.learning_rate * grad / (grad.abs() + 1e-8)
    large = grad.abs() > 1e-4 * grad.abs().max()  # tinier ones may differ by rounding in their sign
    assert torch.allclose(whole[1][0][large], expected[large], atol=1e-4)
    assert whole[0].losses[0][0] == pytest.approx(out.total.mean().item(), rel=1e-5)


def test_image_order_is_shuffled_epochs():
    whole = image_order(0, 0, 30, 7)
    for start, count in ((0, 4), (4, 4), (5, 9), (13, 17)):
        assert image_order(0, start, count, 7) == whole[start : start + count]
    epochs = [whole[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(e) == list(range(7)) for e in epochs) and len({tuple(e) for e in epochs}) > 1
    assert image_order(1, 0, 30, 7) != whole


# Stopping and going on


def stop_at(step, error=KeyboardInterrupt):
    def on_step(info):
        if info.step == step:
            raise error

    return on_step


@pytest.mark.parametrize("changes", [{}, {"view_pool": 2}, {"loss_tokens": "all", "selection": "votes"}])
def test_resumed_runs_end_where_undisturbed_ones_do(model, folder, tmp_path, changes):
    config, path = CONFIG.replace(**changes), tmp_path / "run.checkpoint"
    expected = train(model, load_folder(folder), config)
    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(folder), config, checkpoint=path, on_step=stop_at(2))
    seen = []
    found = train(
        model,
        load_folder(folder),
        config,
        checkpoint=path,
        resume=True,
        on_step=lambda i: seen.append(i.step),
    )
    assert seen == [3, 4, 5, 6]
    assert torch.equal(found.tokens.embeddings, expected.tokens.embeddings)
    assert found.losses == expected.losses
    assert found.tokens.chosen == expected.tokens.chosen and found.tokens.votes == expected.tokens.votes


def test_stopping_between_the_gradient_and_the_step(model, folder, tmp_path, monkeypatch, whole):
    path, step, calls = tmp_path / "run.checkpoint", torch.optim.Adam.step, []

    def interrupted(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.Adam, "step", interrupted)
        train(model, load_folder(folder), CONFIG, checkpoint=path)
    found = train(model, load_folder(folder), CONFIG, checkpoint=path, resume=True)
    assert found.losses == whole[0].losses and torch.equal(found.tokens.embeddings, whole[0].tokens.embeddings)


def test_votes_of_the_last_images_survive_a_stop(model, folder, tmp_path):
    path, expected, found = tmp_path / "run.checkpoint", [], []
    train(model, load_folder(folder), CONFIG, on_step=lambda info: expected.append(info.snapshot()))
    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(folder), CONFIG, checkpoint=path, on_step=stop_at(3))
    train(
        model,
        load_folder(folder),
        CONFIG,
        checkpoint=path,
        resume=True,
        on_step=lambda info: found.append(info.snapshot()),
    )
    assert [(t.chosen, t.votes) for t in found] == [(t.chosen, t.votes) for t in expected[3:]]


def test_periodic_checkpoints(model, folder, tmp_path, whole):
    path, found = tmp_path / "run.checkpoint", {}

    def look(info):
        if path.exists():
            found[info.step] = load_file(path)["tokens"]
            path.unlink()

    train(model, load_folder(folder), CONFIG, checkpoint=path, checkpoint_every=2, on_step=look)
    assert sorted(found) == [2, 4, 6]
    assert all(torch.equal(found[step], whole[1][step - 1]) for step in found)
    assert list(tmp_path.iterdir()) == []  # no partial file is left


def test_without_resume_a_checkpoint_is_not_read(model, folder, tmp_path, whole):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(b"rubbish")
    result = train(model, load_folder(folder), CONFIG.replace(steps=2), checkpoint=path)
    assert torch.equal(result.tokens.embeddings, whole[1][1])
    with pytest.raises(KeypointError, match="run.checkpoint is not a training checkpoint"):
        train(model, load_folder(folder), CONFIG, checkpoint=path, resume=True)


def test_stopping_before_the_first_step_leaves_nothing(model, folder, tmp_path, monkeypatch):
    def fail(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "training_step", fail)
    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(folder), CONFIG, checkpoint=tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_stopping_while_tokens_are_chosen_keeps_what_was_learned(model, folder, tmp_path, monkeypatch, whole):
    path = tmp_path / "run.checkpoint"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(select.FeatureExtractor, "views", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        train(model, load_folder(folder), CONFIG, checkpoint=path)
    steps = []
    found = train(model, load_folder(folder), CONFIG, checkpoint=path, resume=True, on_step=steps.append)
    assert not steps
    assert torch.equal(found.tokens.embeddings, whole[0].tokens.embeddings)
    assert found.tokens.chosen == whole[0].tokens.chosen


def test_a_checkpoint_of_another_run_is_refused(model, folder, tmp_path):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(folder), CONFIG, checkpoint=path, on_step=stop_at(1))

    def resume(backbone=model, config=CONFIG, limit=None):
        return train(backbone, load_folder(folder, limit), config, checkpoint=path, resume=True)

    with pytest.raises(KeypointError, match="another learning_rate; use the same settings"):
        resume(config=CONFIG.replace(learning_rate=0.5))
    with pytest.raises(KeypointError, match="another model"):
        resume(Backbone(make_unet(1), make_vae(), "other", "ffff"))
    with pytest.raises(KeypointError, match="another number of images"):
        resume(limit=3)
    assert len(resume(config=CONFIG.replace(steps=2, micro_batch=1)).losses) == 2  # these two may differ
    tensors = load_file(path)
    save_file(
        tensors,
        path,
        {"stable_keypoints": json.dumps({"format": "stable-keypoints-training", "version": 99})},
    )
    with pytest.raises(KeypointError, match="not a training checkpoint of this version"):
        resume()


def test_start_from_tokens(model, folder, whole):
    start = whole[0].tokens
    result = train(model, load_folder(folder), CONFIG.replace(steps=1), start=start)
    moved = (result.tokens.embeddings - start.embeddings).abs()
    assert 0 < moved.max() <= 0.0201  # one step of Adam away
    assert torch.equal(start.embeddings, whole[1][-1])  # and they themselves are untouched
    with pytest.raises(KeypointError, match="hold 12 tokens, but 20 were asked for; set tokens to 12"):
        train(model, load_folder(folder), CONFIG.replace(tokens=20), start=start)


def test_snapshots_can_be_saved_at_any_step(model, folder, tmp_path, whole):
    snapshots = []
    train(
        model,
        load_folder(folder),
        CONFIG,
        on_step=lambda info: snapshots.append((info.loss, info.snapshot())),
    )
    for step, (loss, tokens) in enumerate(snapshots):
        assert torch.equal(tokens.load(tokens.save(tmp_path / "t.safetensors")).embeddings, whole[1][step])
        assert loss == tokens.losses[-1] and len(tokens.losses) == step + 1
        assert len(set(tokens.chosen)) == 3 and min(tokens.votes) >= 1


# When things go wrong


@pytest.mark.parametrize("bad_step", [1, 3])
def test_a_loss_that_is_no_number_stops_with_the_last_good_tokens(
    model, folder, tmp_path, monkeypatch, whole, bad_step
):
    path, calls, step = tmp_path / "run.checkpoint", [], trainer.training_step

    def poisoned(*args):
        calls.append(1)
        out = step(*args)
        return trainer.StepOutput(
            *(getattr(out, n) for n in ("maps", "view_maps", "chosen", "localization", "equivariance")),
            out.total * (float("nan") if len(calls) == bad_step else 1),
        )

    monkeypatch.setattr(trainer, "training_step", poisoned)
    with pytest.raises(TrainingDiverged, match=f"not a finite number at step {bad_step}") as caught:
        train(model, load_folder(folder), CONFIG, checkpoint=path, checkpoint_every=1)
    if bad_step == 1:
        assert caught.value.tokens is None and not path.exists()
        return
    assert "last good tokens were kept" in str(caught.value)
    assert torch.equal(caught.value.tokens.embeddings, whole[1][bad_step - 2])
    assert len(caught.value.tokens.losses) == bad_step - 1
    monkeypatch.setattr(trainer, "training_step", step)
    resumed = train(model, load_folder(folder), CONFIG, checkpoint=path, resume=True)  # it is not spoilt either
    assert torch.equal(resumed.tokens.embeddings, whole[0].tokens.embeddings)


def test_a_gradient_that_is_no_number_stops_too(model, folder, monkeypatch, whole):
    step = trainer.training_step

    def poisoned(backbone, config, tokens, *rest):
        if len(calls) == 2:
            tokens.register_hook(lambda g: g * float("inf"))
        calls.append(1)
        return step(backbone, config, tokens, *rest)

    calls = []
    monkeypatch.setattr(trainer, "training_step", poisoned)
    with pytest.raises(TrainingDiverged, match="at step 3") as caught:
        train(model, load_folder(folder), CONFIG)
    assert torch.equal(caught.value.tokens.embeddings, whole[1][1])


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_add_up(model, folder, whole, size):
    result = train(model, load_folder(folder), CONFIG.replace(micro_batch=size))
    np.testing.assert_allclose(result.losses, whole[0].losses, rtol=1e-4)
    # Adam divides by gradients as small as their rounding, so compare with how far six steps carry a value.
    assert (result.tokens.embeddings - whole[0].tokens.embeddings).abs().max() < 0.05 * 6 * CONFIG.learning_rate


def test_micro_batches_have_the_gradient_of_the_batch(model, folder, tmp_path):
    found = []
    for size in (0, 1):
        path = tmp_path / f"{size}.checkpoint"
        train(
            model,
            load_folder(folder),
            CONFIG.replace(steps=1, micro_batch=size),
            checkpoint=path,
            checkpoint_every=1,
        )
        found.append(load_file(path)["exp_avg"])
    assert (found[0] - found[1]).norm() < 1e-4 * found[0].norm()


def test_out_of_memory_goes_on_in_smaller_pieces(model, folder, monkeypatch, whole):
    monkeypatch.setattr(tiled, "TILE_BYTES", 8 << 20)
    step, sizes, notices = trainer.training_step, [], []

    def hungry(backbone, config, tokens, latents, *rest):
        sizes.append((len(latents), tiled.TILE_BYTES >> 20))
        if len(sizes) in (2, 3):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return step(backbone, config, tokens, latents, *rest)

    monkeypatch.setattr(trainer, "training_step", hungry)
    result = train(model, load_folder(folder), CONFIG.replace(steps=2), notice=notices.append)
    assert sizes == [(2, 8), (2, 8), (2, 4), (1, 4), (1, 4)]  # first smaller tiles, then fewer images
    assert tiled.TILE_BYTES == 8 << 20  # the next run starts with what it had
    assert ["4 MB" in notices[0], "1 images per pass" in notices[1], len(notices)] == [True, True, 2]
    np.testing.assert_allclose(result.losses, whole[0].losses[:2], rtol=1e-4)
    assert (result.tokens.embeddings - whole[1][1]).abs().max() < 0.1 * CONFIG.learning_rate


def test_too_little_memory_for_one_image_is_said(model, folder, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_BYTES", 4 << 20)

    def fail(*_args):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trainer, "training_step", fail)
    notices = []
    with pytest.raises(KeypointError, match="not enough memory for one image; lower"):
        train(model, load_folder(folder), CONFIG, notice=notices.append)
    assert ["1 images per pass" in notices[0], "twice" in notices[1], len(notices)] == [True, True, 2]
    assert not model.recompute and tiled.TILE_BYTES == 4 << 20  # the caller's backbone is as it was
    monkeypatch.setattr(trainer, "training_step", lambda *a: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):  # other errors are not taken for that
        train(model, load_folder(folder), CONFIG)


def test_broken_images_are_left_out_and_named(model, tmp_path):
    write_images(tmp_path, 4)
    for name in ("image1.png", "image2.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-60])
    (tmp_path / "notes.txt").write_text("no image")
    result = train(model, load_folder(tmp_path), CONFIG)
    assert sorted(name for name, _ in result.skipped) == ["image1.png", "image2.png", "notes.txt"]
    assert np.isfinite(result.losses).all()


def test_view_pool_reuses_views(model, folder, monkeypatch):
    seen, step = {}, trainer.training_step

    def record(backbone, config, tokens, latents, view, theta, noise, area=None):
        for own, turned, t in zip(latents, view, theta, strict=True):
            key = (own.numpy().tobytes(), turned.numpy().tobytes())
            assert torch.equal(seen.setdefault(key, t), t)
        return step(backbone, config, tokens, latents, view, theta, noise)

    monkeypatch.setattr(trainer, "training_step", record)
    train(model, load_folder(folder), CONFIG.replace(steps=20, view_pool=2))
    assert len(seen) == 10 == len({t.numpy().tobytes() for t in seen.values()})  # two of each of five images
    seen.clear()
    train(model, load_folder(folder), CONFIG.replace(steps=6))
    assert len(seen) == 12


def test_pooled_views_stay_with_their_latents_when_images_are_broken(model, tmp_path, monkeypatch):
    write_images(tmp_path, 3)
    (tmp_path / "image1.png").write_bytes((tmp_path / "image1.png").read_bytes()[:-60])
    step, views = trainer.training_step, {}

    def record(backbone, config, tokens, latents, view, theta, noise, area=None):
        for turned, t in zip(view, theta, strict=True):
            views.setdefault(turned.numpy().tobytes(), set()).add(t.numpy().tobytes())
        return step(backbone, config, tokens, latents, view, theta, noise)

    monkeypatch.setattr(trainer, "training_step", record)
    train(model, load_folder(tmp_path), CONFIG.replace(steps=12, view_pool=2))
    assert len(views) == 4 and all(len(thetas) == 1 for thetas in views.values())


# Choosing


def test_votes_are_counted_over_single_views(model, folder, monkeypatch):
    config, seen, views = (
        CONFIG.replace(steps=0, selection="votes", selection_images=5),
        [],
        select.FeatureExtractor.views,
    )
    with monkeypatch.context() as patch:
        patch.setattr(select.FeatureExtractor, "views", lambda *a: seen.append(a[2]) or views(*a))
        result = train(model, load_folder(folder), config)
    assert [len(theta) for theta in seen] == [1] * 5 + [3] * 5  # to choose, and to check
    tokens, source = result.tokens.embeddings, trainer.LatentSource(model, load_folder(folder))
    votes, heights = torch.zeros(12, dtype=torch.long), []
    for i in range(5):
        latents = source.latents([i])
        noise = torch.randn(latents.shape, generator=generator_for(0, "selection noise", i))
        maps = token_maps.token_maps(model.token_logits(model.add_noise(latents, noise, 0), 0, tokens), 16)
        heights.append(maps[0].flatten(1).amax(1))
        choice = ranking.spread_choice(maps, readout.peaks(maps), 3, 5, 2.0, "softmax", config.border)
        votes[choice[0]] += 1
    assert result.tokens.chosen == tuple(votes.argsort(descending=True, stable=True)[:3].tolist())
    assert result.tokens.votes == tuple(votes[list(result.tokens.chosen)].tolist())
    expected = torch.stack(heights).median(0).values[list(result.tokens.chosen)]
    np.testing.assert_allclose(result.tokens.scores, expected, rtol=1e-4)


def test_prediction_sees_the_image_and_its_views(model, folder, monkeypatch):
    calls, chooser = [], select.most_predictive

    def record(position, height, *rest):
        calls.append((position, height))
        return chooser(position, height, *rest)

    monkeypatch.setattr(select, "most_predictive", record)
    result = train(model, load_folder(folder), CONFIG.replace(steps=0, refine_images=0))
    position, height = calls[0]
    assert position.shape == (3, 3, 12, 2) and height.shape == (3, 12)
    chosen = list(result.tokens.chosen)
    assert len(set(chosen)) == 3 and result.tokens.votes == (0, 0, 0)
    where = position[:, :, chosen].mean(1)
    where = where - where.mean(1, keepdim=True)
    np.testing.assert_allclose(result.tokens.spatial_prior.mean, where.mean(0), atol=1e-6)
    np.testing.assert_allclose(result.tokens.spatial_prior.covariance, np.cov(where.flatten(1).T, bias=True), atol=1e-6)


def test_the_chosen_tokens_are_refined(model, folder):
    config = CONFIG.replace(steps=0)
    result = train(model, load_folder(folder), config).tokens.read("refined")
    plain = train(model, load_folder(folder), config.replace(refine_images=0)).tokens
    assert plain.refined is None and plain.occlusion is None and load_occlusion_network(result.occlusion)
    assert result.refined.shape == (3, len(model.layers), WIDTH)
    again = train(model, load_folder(folder), config).tokens.read("refined").refined
    assert torch.equal(again, result.refined)
    fewer = [train(model, load_folder(folder), config.replace(refine_images=n)).tokens for n in (2, 3)]
    assert len({t.digest for t in (*fewer, result)}) == 3


def test_features_beyond_the_budget_are_left_out(model, folder, monkeypatch):
    kept, add = [], select.FeatureStore.add
    monkeypatch.setattr(select.FeatureStore, "add", lambda self, *a: kept.append(len(a[0])) or add(self, *a))
    train(model, load_folder(folder), CONFIG.replace(steps=0))
    assert kept == [3] * 3 + [1] * 2 + [4] * 5 + [3] * 3
    kept.clear()
    monkeypatch.setattr(select, "FEATURE_BYTES", 1)
    seen = []
    config = CONFIG.replace(steps=0)
    tokens = train(model, load_folder(folder), config, on_progress=lambda *a: seen.append(a)).tokens
    assert seen[:11] == [(EXTRACTING, i, 10) for i in range(11)] and seen[11][0] == CHOOSING
    tokens = tokens.read("refined")
    assert kept[0] == 3 and tokens.refined.isfinite().all() and tokens.spatial_prior.images == 1


def test_masks_count_when_tokens_are_refined(model, folder, monkeypatch):
    areas, add = [], select.FeatureStore.add
    monkeypatch.setattr(select.FeatureStore, "add", lambda self, f, area: areas.append(area) or add(self, f, area))
    half = np.zeros((20, 24), bool)
    half[:, 12:] = True
    train(model, load_folder(folder), CONFIG.replace(steps=0), masks=lambda name: half)
    assert [len(a) for a in areas] == [3] * 3 + [1] * 2 + [4] * 5 + [3] * 3
    assert all(0.2 < area.mean() < 0.8 for area in areas[5:])  # under shapes, in turned views
    for area in areas[:5]:
        middle = area.shape[-1] // 2
        assert area[0, 0, :, : middle - 1].max() == 0 and area[0, 0, :, middle + 1 :].min() == 1


def watched(model, folder, **changes) -> dict[str, list[tuple[int, int]]]:
    """(done, total) as they were told, by phase in the order in which the phases began."""
    seen: dict[str, list[tuple[int, int]]] = {}
    train(
        model,
        load_folder(folder),
        CONFIG.replace(**changes),
        on_progress=lambda phase, done, total: seen.setdefault(phase, []).append((done, total)),
    )
    return seen


def test_every_phase_of_training_can_be_watched(model, folder):
    seen = watched(model, folder)
    assert tuple(seen) == TRAINING_PHASES
    for phase, reports in seen.items():
        done, totals = zip(*reports, strict=True)
        assert list(done) == sorted(done) and len(set(totals)) == 1 and done[-1] == totals[0] > 1, phase
        assert done[0] == 0, phase
    steps = CONFIG.steps
    assert seen[TRAINING] == [(i, steps) for i in range(steps + 1)]
    assert seen[EXTRACTING] == [(i, 10) for i in range(11)]  # to choose on 3 images, to refine all, under shapes
    assert watched(model, folder, steps=0, refine_images=2)[EXTRACTING] == [(i, 5) for i in range(6)]
    assert tuple(watched(model, folder, steps=0, refine_images=0)) == (EXTRACTING, CHOOSING, CHECKING)
    assert tuple(watched(model, folder, selection="votes", refine_images=0)) == (TRAINING, EXTRACTING, CHECKING)


@pytest.mark.parametrize("phase", TRAINING_PHASES)
def test_every_phase_of_training_can_be_stopped(model, folder, phase):
    def stop(now, done, total):
        if now == phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(folder), CONFIG, on_progress=stop)


# The self-check


def test_left_out_images_take_no_part_in_anything(model, tmp_path):
    """The same tokens come out whatever the left-out images show, and from the other images alone."""
    write_images(tmp_path / "a", 14)
    images = load_folder(tmp_path / "a")
    config = CONFIG.replace(check_share=0.1)
    found = train(model, images, config).tokens
    check = found.check
    assert (check.how, check.images, len(check.names)) == ("left out", 4, 4)
    write_images(tmp_path / "b", 14, seed=5)
    for name in check.names:
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    other = train(model, load_folder(tmp_path / "a"), config).tokens
    assert torch.equal(other.embeddings, found.embeddings) and other.check != check
    for how in ("learned", "refined"):
        assert other.read(how).digest == found.read(how).digest
    for name in check.names:
        (tmp_path / "a" / name).unlink()
    alone = train(model, load_folder(tmp_path / "a"), CONFIG).tokens
    assert torch.equal(alone.embeddings, found.embeddings) and torch.equal(
        alone.read("refined").refined, found.read("refined").refined
    )
    assert alone.check.how == "seen" and alone.check.names == ()


def test_few_images_are_left_out_in_turn(model, folder, monkeypatch):
    chosen_on, choices = [], select._choices
    monkeypatch.setattr(select, "_choices", lambda s, *a: chosen_on.append(len(s.position)) or choices(s, *a))
    config = CONFIG.replace(steps=0, selection_images=5, check_share=0.1)
    tokens = train(model, load_folder(folder), config).tokens
    assert chosen_on == [5, 3, 3, 4]  # on all, then without each part of two, two and one
    assert (tokens.check.how, tokens.check.images) == ("left out in turn", 5)
    alone = train(model, load_folder(folder, 1), config).tokens
    assert alone.check.how == "seen"


def test_both_readouts_are_kept_and_the_better_one_is_read(model, folder, monkeypatch, tmp_path):
    for used in ("learned", "refined"):
        monkeypatch.setattr(select, "better_readout", lambda *checks, used=used, keypoints: used)
        tokens = train(model, load_folder(folder), CONFIG.replace(steps=0)).tokens
        tokens = KeypointTokens.load(tokens.save(tmp_path / used))
        assert tokens.check.used == used and (tokens.refined is not None) == (used == "refined")
        assert tokens.read("auto") is tokens
        learned, refined = tokens.read("learned"), tokens.read("refined")
        assert learned.refined is None and refined.refined is not None and refined.occlusion is not None
    monkeypatch.undo()
    plain = train(model, load_folder(folder), CONFIG.replace(steps=0, refine_images=0)).tokens
    assert learned.chosen == plain.chosen and learned.scores == plain.scores  # its own choice
    assert plain.other is None and plain.check.refined is None


def test_what_is_chosen_from_does_not_depend_on_the_size_of_passes(model, folder):
    source = trainer.LatentSource(model, load_folder(folder))
    tokens = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))
    theta = torch.cat([affine.identity_affine(1), affine.random_affine(4, 15, (0.8, 1), 0.25, generator_for(0, "t"))])
    (maps, features), (maps_1, features_1) = (
        select.FeatureExtractor(model, tokens, source, CONFIG, at_once=n).views(0, theta, refine=True) for n in (8, 1)
    )
    np.testing.assert_allclose(maps, maps_1, atol=1e-5)
    np.testing.assert_allclose(features, features_1, atol=1e-4 * features.abs().max())


def features_by_hand(model, source, index, prompt):
    """[1, L*D, G, G]: of one image, layer by layer."""
    latents = source.latents([index])
    noise = torch.randn(latents.shape, generator=generator_for(0, "selection noise", index))
    queries = model.queries(model.add_noise(latents, noise, 0), 0, prompt)
    side = max(int(q.shape[2] ** 0.5) for q in queries)
    return torch.cat([token_maps.summed_logits([layer], side) for layer in model.features(queries)], 1)


def test_images_seen_together_have_the_features_of_each(model, folder):
    source = trainer.LatentSource(model, load_folder(folder))
    tokens = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))
    look = select.FeatureExtractor(model, tokens, source, CONFIG, at_once=2)
    alone = torch.cat([look.features([index]) for index in (3, 0, 4)])
    np.testing.assert_allclose(look.features([3, 0, 4]), alone, atol=1e-4 * alone.abs().max())
    wanted = features_by_hand(model, source, 3, tokens.mean(0)[None])
    np.testing.assert_allclose(alone[:1], wanted, atol=1e-4 * wanted.abs().max())
    _, as_views = look.views(0, affine.identity_affine(1), refine=True)
    np.testing.assert_allclose(as_views, alone[1:2], atol=1e-4 * alone.abs().max())
    assert (alone[0] - alone[1]).abs().max() > 0.1 * alone.abs().max()
