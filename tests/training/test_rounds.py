"""Training in rounds that ends when they bring nothing."""

import pytest
import torch
from tiny_models import CONFIG, make_unet, make_vae, write_images

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.images.image_set import load_folder
from stablekp_core.progress import TRAINING
from stablekp_core.training import rounds
from stablekp_core.training.train import train

LONG = CONFIG.replace(steps=16, check_share=0.1)


@pytest.fixture(scope="module")
def model():
    return Backbone(make_unet(), make_vae(), "tiny", "0123abcd")


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", 13)
    return tmp_path / "images"


@pytest.fixture
def told(monkeypatch):
    """Rounds that end after 2, 3, 4, 6, 8, ... steps. Their checks say what the test put here; and the steps at which
    they were made."""
    ratios, asked = [], []
    monkeypatch.setattr(rounds, "FIRST", 2)
    monkeypatch.setattr(
        rounds, "_cheap_check", lambda trainer, on_image: asked.append(trainer.step) or ratios[len(asked) - 1]
    )
    return ratios, asked


def test_two_rounds_double_the_steps():
    assert rounds.marks(500) == [40, 60, 80, 120, 160, 240, 320, 480]
    assert rounds.marks(80) == [40, 60] and rounds.marks(40) == rounds.marks(0) == []


def test_two_rounds_without_a_gain_end_it():
    assert not rounds.settled([]) and not rounds.settled([0.5, 0.5])
    assert rounds.settled([0.5, 0.5, 0.49])  # less than a twentieth better
    assert not rounds.settled([0.9, 0.9, 0.9])  # nothing has begun yet: not the time to end
    assert not rounds.settled([0.5, 0.6, 0.4]) and not rounds.settled([0.5, 0.4, 0.5])
    assert rounds.settled([0.5, 0.4, 0.5, 0.39]) and not rounds.settled([0.5, 0.4, 0.5, 0.37])


def test_training_ends_when_nothing_is_gained(model, images, told):
    told[0][:] = [0.5, 0.4, 0.4, 0.3, 0.4, 0.3]
    seen = []
    found = train(model, load_folder(images), LONG, on_progress=lambda *a: seen.append(a))
    assert told[1] == [2, 3, 4, 6, 8, 12] and len(found.losses) == 12 == len(found.tokens.losses)
    assert found.tokens.check.how == "left out"
    short = train(model, load_folder(images), LONG.replace(steps=12, stop="fixed"))
    assert torch.equal(short.tokens.embeddings, found.tokens.embeddings)
    assert max(done for phase, done, _ in seen if phase == TRAINING) == 12


@pytest.mark.parametrize("changes, ratios", [({}, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2]), ({"stop": "fixed"}, [])])
def test_it_goes_on_while_rounds_help_or_when_the_number_of_steps_is_fixed(model, images, told, changes, ratios):
    told[0][:] = ratios
    assert len(train(model, load_folder(images), LONG.replace(**changes)).losses) == 16
    assert len(told[1]) == len(ratios)


def test_a_resumed_run_ends_where_the_whole_one_does(model, images, told, tmp_path):
    told[0][:] = [0.5, 0.4, 0.4, 0.4]

    def stop(info):
        if info.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, load_folder(images), LONG, checkpoint=tmp_path / "c", on_step=stop)
    found = train(model, load_folder(images), LONG, checkpoint=tmp_path / "c", resume=True)
    assert told[1] == [2, 3, 4, 6] and len(found.losses) == 6


def test_the_cheap_check_changes_nothing(model, images, monkeypatch):
    monkeypatch.setattr(rounds, "FIRST", 2)
    monkeypatch.setattr(rounds, "settled", lambda ratios: False)
    kept, cheap = [], rounds._cheap_check
    monkeypatch.setattr(rounds, "_cheap_check", lambda *a: kept.append(cheap(*a)) or kept[-1])
    auto, fixed = (train(model, load_folder(images), LONG.replace(steps=5, stop=s)).tokens for s in ("auto", "fixed"))
    assert len(kept) == 3 and all(0 < value < 5 for value in kept)
    assert torch.equal(auto.embeddings, fixed.embeddings) and auto.chosen == fixed.chosen
