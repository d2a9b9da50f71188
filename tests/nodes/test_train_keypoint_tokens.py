"""Train Keypoint Tokens."""

from __future__ import annotations

import sys

import fake_comfy
import pytest
import torch
from node_data import part, tokens

from stablekp_core.config import TrainConfig
from stablekp_core.keypoints.tokens import KeypointTokens


def test_training_widgets_are_the_cores_settings_with_its_defaults(pack):
    training = part("train_keypoint_tokens")
    widgets = {i.id: i.options for i in training.TrainKeypointTokens.define_schema().inputs if i.is_widget}
    default = training.train_config({name: options["default"] for name, options in widgets.items()})
    assert default == TrainConfig()
    changed = training.train_config({"steps": 7, "scale_min": 0.5, "scale_max": 0.9, "resize": "pad"})
    assert changed == TrainConfig(steps=7, scale=(0.5, 0.9), resize="pad")


@pytest.mark.parametrize("losses", [[], [2.0], [1.0, 1.0, 1.0], [0.0], [3.0, 1.0]])
def test_the_loss_graph_can_always_divide_by_the_range(pack, losses):
    values = part("train_keypoint_tokens").loss_map(losses)["loss"]
    assert max(values) > min(values) and all(type(v) is float for v in values)
    assert losses == [] or values[-len(losses) :] == losses


def test_cancel_saves_what_was_learned_and_goes_on_up(pack, monkeypatch):
    training, folders = part("train_keypoint_tokens"), part("comfy.folders")

    class Info:
        step, steps, history = 2, 9, [1.0, 0.5]
        snapshot = staticmethod(tokens)

    def core_train(model, images, config, *, start, on_step, notice, on_choosing):
        on_step(Info)
        pytest.fail("training went on after Cancel")

    def cancelled():
        raise fake_comfy.Cancelled

    monkeypatch.setattr("stablekp_core.training.trainer.train", core_train)
    monkeypatch.setattr(sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(fake_comfy.Cancelled):
        training._train(None, [], TrainConfig(steps=9), None)
    (rescued,) = folders.rescue_folder().glob("interrupted_*.safetensors")
    torch.testing.assert_close(KeypointTokens.load(rescued).embeddings, tokens().embeddings)
