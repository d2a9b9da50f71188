import dataclasses
import json
import re

import pytest

from stablekp_core.config import PRESETS, DetectConfig, TrainConfig
from stablekp_core.errors import KeypointError

BOTH = (TrainConfig, DetectConfig)


def changed(cls, preset):
    """What a preset changes against the default one."""
    default, other = cls(), cls.preset(preset)
    names = [f.name for f in dataclasses.fields(cls)]
    return {n: getattr(other, n) for n in names if getattr(other, n) != getattr(default, n)}


def test_presets():
    assert PRESETS == ("default", "reference", "paper")
    for cls in BOTH:
        assert cls.preset() == cls.preset("default") == cls()
    assert changed(TrainConfig, "reference") == {
        "resize": "squash",
        "border": "penalized",
        "coverage_mask": False,
        "selection": "votes",
        "refine_images": 0,
        "check_share": 0.0,
        "stop": "fixed",
    }
    assert changed(TrainConfig, "paper") == {
        "resize": "squash",
        "loss_tokens": "all",
        "closeness": "normalized",
        "coverage_mask": False,
        "selection": "votes",
        "refine_images": 0,
        "check_share": 0.0,
        "stop": "fixed",
        "scale": (1 / 1.2, 1.0),
        "translation": 0.5,
    }
    assert changed(DetectConfig, "reference") == {
        "identity": False,
        "read": "learned",
        "readout": "argmax",
        "map_size": 512,
    }
    assert changed(DetectConfig, "paper") == {"identity": False, "read": "learned", "readout": "argmax"}


def test_a_preset_with_changes():
    config = TrainConfig.preset("reference", steps=7, selection="prediction")
    assert (config.steps, config.selection, config.border) == (7, "prediction", "penalized")
    with pytest.raises(KeypointError, match="no preset 'papers'; the presets are default, reference, paper"):
        TrainConfig.preset("papers")


@pytest.mark.parametrize("cls", BOTH)
def test_unknown_settings_are_named(cls):
    for make in (lambda: cls.from_dict({"stepz": 1}), lambda: cls().replace(stepz=1), lambda: cls.preset(stepz=1)):
        with pytest.raises(KeypointError, match=f"{cls.__name__} has no setting 'stepz'; its settings are .*seed"):
            make()


@pytest.mark.parametrize("cls", BOTH)
def test_frozen_and_through_json(cls):
    for preset in PRESETS:
        config = cls.preset(preset, seed=3)
        again = cls.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config and hash(again) == hash(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.seed = 4
    changed = cls().replace(seed=5)
    assert changed.seed == 5 and cls().seed == 0 and changed.replace(seed=0) == cls()


@pytest.mark.parametrize("cls", BOTH)
def test_every_setting_is_explained(cls):
    for item in dataclasses.fields(cls):
        assert len(item.metadata["help"]) > 5, item.name


RANGES = {
    TrainConfig: {
        "keypoints": (2, 500),
        "tokens": (10, 100_000),
        "candidates": (10, 500),
        "steps": (0, 10_000_000),
        "learning_rate": (0, 100),
        "batch_size": (1, 4096),
        "micro_batch": (0, 4096),
        "seed": (0, 2**31 - 1),
        "image_size": (0, 2048),
        "timestep": (0, 999),
        "map_size": (8, 1024),
        "sigma": (0.1, 100),
        "equivariance_weight": (0, 1e9),
        "localization_weight": (0, 1e9),
        "rotation": (0, 180),
        "translation": (0, 1),
        "selection_images": (1, 1_000_000),
        "selection_views": (1, 100),
        "refine_images": (0, 1_000_000),
        "occluded_views": (0, 100),
        "check_share": (0, 0.5),
        "view_pool": (0, 1000),
    },
    DetectConfig: {
        "views": (0, 1000),
        "window": (0.5, 50),
        "map_size": (0, 2048),
        "batch_size": (1, 4096),
        "seed": (0, 2**31 - 1),
    },
}


@pytest.mark.parametrize("cls", BOTH)
def test_every_number_has_a_range(cls):
    numbers = {f.name for f in dataclasses.fields(cls) if type(f.default) in (int, float)}
    assert numbers == set(RANGES[cls])
    for name, (low, high) in RANGES[cls].items():
        for good in (low, high):
            assert getattr(cls.from_dict({name: good}), name) == good
        for bad in (low - 1, high + 1, float("nan"), "1", None, True, [1]):
            with pytest.raises(KeypointError, match=f"{name}|keypoints <= candidates <= tokens"):
                cls.from_dict({name: bad})
        if isinstance(cls.from_dict({}).to_dict()[name], int):
            with pytest.raises(KeypointError, match=f"{name} is .*5, but it must be a whole number"):
                cls.from_dict({name: low + 0.5})


@pytest.mark.parametrize("cls", BOTH)
def test_every_choice_names_the_others(cls):
    strings = {f.name for f in dataclasses.fields(cls) if isinstance(f.default, str)}
    assert strings == set(cls._choices)
    for name, allowed in cls._choices.items():
        for value in allowed:
            assert getattr(cls.from_dict({name: value}), name) == value
        with pytest.raises(KeypointError, match=f"{name} is 'x', but it must be one of {', '.join(allowed)}"):
            cls.from_dict({name: "x"})


def test_flags_must_be_flags():
    for cls, name in ((TrainConfig, "coverage_mask"), (DetectConfig, "identity")):
        for bad in ("no", 0, None):
            with pytest.raises(KeypointError, match=f"{name} is {bad!r}, but it must be true or false"):
                cls.from_dict({name: bad})


@pytest.mark.parametrize("bad", [(1.0, 0.8), (0.8,), (0.05, 1), (1, 5), 0.9, "ab", ("a", "b"), (0.8, 0.9, 1.0)])
def test_scale(bad):
    with pytest.raises(KeypointError, match=re.escape(f"scale is {bad!r}, but it must be two numbers")):
        TrainConfig(scale=bad)


def test_as_many_candidates_as_keypoints_need():
    assert TrainConfig().candidates == 25
    assert TrainConfig(keypoints=30).candidates == 30
    assert TrainConfig(tokens=20).candidates == 20


def test_numbers_that_do_not_fit_together():
    for wrong in ({"keypoints": 600}, {"candidates": 600}, {"candidates": 9}, {"tokens": 8}):
        with pytest.raises(KeypointError, match="it takes keypoints <= candidates <= tokens"):
            TrainConfig(**wrong)
    with pytest.raises(KeypointError, match="leave no map to average"):
        DetectConfig(views=0, identity=False)
