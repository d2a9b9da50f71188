"""Train Keypoint Tokens."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import nullcontext

import fake_comfy
import pytest
import torch
from node_data import part
from tiny_models import CONFIG, make_unet, make_vae

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.config import TrainConfig
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.progress import TRAINING_PHASES


def test_training_widgets_are_the_cores_settings_with_its_defaults(pack):
    training = part("train_keypoint_tokens")
    widgets = {i.id: i.options for i in training.TrainKeypointTokens.define_schema().inputs if i.is_widget}
    widgets.pop("earlier_run")  # of the node, not of the training
    default = training.train_config({name: options["default"] for name, options in widgets.items()})
    assert default == TrainConfig()
    changed = training.train_config({"steps": 7, "scale_min": 0.5, "scale_max": 0.9, "resize": "pad"})
    assert changed == TrainConfig(steps=7, scale=(0.5, 0.9), resize="pad")


@pytest.mark.parametrize("losses", [[], [2.0], [1.0, 1.0, 1.0], [0.0], [3.0, 1.0]])
def test_the_loss_graph_can_always_divide_by_the_range(pack, losses):
    values = part("train_keypoint_tokens").loss_map(losses)["loss"]
    assert max(values) > min(values) and all(type(v) is float for v in values)
    assert losses == [] or values[-len(losses) :] == losses


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"keypoints": 30}, None),
        ({"keypoints": 30, "tokens": 20}, "30 keypoints"),
        ({"keypoints": 30, "candidates": 25}, "25 candidates"),
        ({"keypoints": None}, None),
    ],
)
def test_settings_that_do_not_fit_are_told_when_queued(pack, changes, words):
    values = {"keypoints": 10, "tokens": 500, "candidates": 0, **changes}
    answer = part("train_keypoint_tokens").TrainKeypointTokens.validate_inputs(
        **{name: value if value is None else [value] for name, value in values.items()}
    )
    assert answer is True if words is None else words in answer


class Handle:
    """A backbone of random weights, as it travels on the wire."""

    def __init__(self):
        self.model = Backbone(make_unet(), make_vae(), "tiny", "hash")

    def open(self, batch_size):
        return nullcontext(self.model)


def train(handle, **changes):
    settings = {k: v for k, v in CONFIG.to_dict().items() if k not in ("scale",)} | changes
    images = [torch.rand(4, 24, 20, 3, generator=torch.Generator().manual_seed(0))]
    node = part("train_keypoint_tokens").TrainKeypointTokens
    return node.execute([handle], images, **{name: [value] for name, value in settings.items()})


def refuse_to_train(monkeypatch):
    monkeypatch.setattr(
        "stablekp_core.training.train.train", lambda *a, **k: pytest.fail("a finished training was done again")
    )


def cancel_at(monkeypatch, step: int) -> None:
    """Cancel is asked for as training begins, then twice after every step: by the bar, and for what may come between
    two steps."""
    asked = iter(range(1, 1000))

    def check():
        if next(asked) == 2 * step:
            raise fake_comfy.Cancelled

    monkeypatch.setattr(sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", check)


def test_the_same_training_is_found_after_a_restart_unless_it_is_to_be_done_anew(pack, tmp_path, monkeypatch):
    first = train(Handle())
    fake_comfy.remove()
    fake_comfy.install(tmp_path)  # as ComfyUI does when it starts
    with monkeypatch.context() as patch:
        refuse_to_train(patch)
        again = train(Handle())
    torch.testing.assert_close(again[0].embeddings, first[0].embeddings, rtol=0, atol=0)
    torch.testing.assert_close(again[2], first[2])
    assert again[1] == first[1] and "Trained earlier" in fake_comfy.page().texts[-1][1]
    seen = []
    real = sys.modules["stablekp_core.training.train"].train
    monkeypatch.setattr("stablekp_core.training.train.train", lambda *a, **k: seen.append(1) or real(*a, **k))
    train(Handle(), earlier_run="train anew")
    train(Handle(), seed=1)
    train(Handle(), steps=5)
    assert len(seen) == 3


def test_cancel_names_the_rescued_file_on_the_page_and_the_next_run_goes_on(pack, monkeypatch):
    whole = train(Handle(), seed=9)[0]
    folders = part("comfy.folders")
    fake_comfy.remove()
    fake_comfy.install(folders.rescue_folder().parents[1])
    shutil.rmtree(part("comfy.kept").kept_folder())
    with monkeypatch.context() as patch:
        cancel_at(patch, 4)
        with pytest.raises(fake_comfy.Cancelled):
            train(Handle(), seed=9)
    (rescued,) = part("comfy.folders").rescue_folder().glob("interrupted_*.safetensors")
    assert len(KeypointTokens.load(rescued).losses) == 4
    (event, note) = fake_comfy.page().events[-1]
    for told in (note["text"], fake_comfy.page().texts[-1][1]):
        assert rescued.name in told and "step 4 of 6" in told and "go on from there" in told
    assert event == "stable_keypoints.note" and note["node"] == "7"
    fake_comfy.page().texts.clear()
    seen = []
    real = part("train_run").TrainingRun._on_step
    monkeypatch.setattr(
        part("train_run").TrainingRun, "_on_step", lambda self, info: seen.append(info.step) or real(self, info)
    )
    torch.testing.assert_close(train(Handle(), seed=9)[0].embeddings, whole.embeddings, rtol=0, atol=0)
    assert seen == [5, 6]


def test_the_status_text_tells_step_loss_and_time_and_the_bar_reaches_the_end(pack, monkeypatch):
    monkeypatch.setattr(part("comfy.messages").Status, "SECONDS", 0)
    fake_comfy.ProgressBar.calls.clear()
    train(Handle())
    texts = [text for _, text in fake_comfy.page().texts]
    assert any(re.match(r"step 3 of 6, loss \d+(\.\d+)?, \d+ s of training left", text) for text in texts)
    assert not any(text.startswith("step 6") and "left" in text for text in texts)
    phases = [
        "reading the images",
        "step 0 of 6",
        "step 1",
        "step 6",
        "extracting",
        "choosing",
        "refining",
        "learning",
        "checking",
        "drawing",
    ]
    places = [next(i for i, text in enumerate(texts) if text.startswith(phase)) for phase in phases]
    assert places == sorted(places)
    values = [value for value, _, _ in fake_comfy.ProgressBar.calls]
    assert values == sorted(values) and values[-1] == 100 and 60 < values[5] < 80
    assert fake_comfy.ProgressBar.calls[-1][2] is not None  # the contact sheet


def test_every_phase_has_its_part_of_the_bar(pack):
    run = part("train_run")
    parts = [(0, run._TRAINED), *run._PARTS.values()]
    assert set(TRAINING_PHASES[1:]) < set(run._PARTS)
    assert [end for _, end in parts] == [*(start for start, _ in parts[1:]), 100]


def test_what_is_kept_stays_within_its_room(pack):
    kept, folder = part("comfy.kept"), part("comfy.kept").kept_folder()
    folder.mkdir(parents=True)
    for number in range(6):
        path = folder / f"{number}.safetensors"
        path.write_bytes(bytes(1000))
        path.with_suffix(".png").write_bytes(bytes(100))
        os.utime(path, ns=(number, number))
    kept.make_room(folder / "0.safetensors", most=2500)
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "0.safetensors", "5.png", "5.safetensors"]
