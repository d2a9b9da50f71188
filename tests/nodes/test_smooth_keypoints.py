"""Smooth Keypoints."""

from __future__ import annotations

import fake_comfy
import numpy as np
import pytest
from node_data import SIDE, part

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.video.smoothing import METHODS


def widget_values(method: str, nested: bool) -> dict:
    """What the page sends for a method: what it brings lies below it, or beside it in a prompt of an older version."""
    schema = part("smooth_keypoints").SmoothKeypoints.define_schema()
    widgets = {name: i for name, i in fake_comfy.live_inputs(schema.inputs, {"method": method}).items() if i.is_widget}
    values = {i.id: i.default for name, i in widgets.items()} | {"method": method}
    if not nested:
        return values
    own = [name.split(".")[1] for name in widgets if "." in name]
    return {k: v for k, v in values.items() if k not in own} | {"method": {k: values[k] for k in ["method", *own]}}


def test_every_method_of_the_core_is_offered(pack):
    schema = part("smooth_keypoints").SmoothKeypoints.define_schema()
    (method,) = (i for i in schema.inputs if i.id == "method")
    assert [option.key for option in method.options["options"]] == list(METHODS)
    assert method.default == METHODS[0]


def test_values_of_the_method_are_used_wherever_a_prompt_puts_them(pack):
    time = np.linspace(0, 3, 60)[:, None]
    way = np.stack([32 + 15 * np.sin(time + np.arange(5)), 32 + 15 * np.cos(time - np.arange(5))], -1)
    points = Keypoints(way, np.ones(way.shape[:2]), np.full((60, 2), SIDE))
    node, wide = part("smooth_keypoints").SmoothKeypoints, {"window": 31, "order": 0}
    flat, nested = (widget_values("savitzky-golay", nested) for nested in (False, True))
    default = node.execute(points, **flat).args[0]
    flat |= wide
    nested["method"] |= wide
    left_out = {**nested, "method": {"method": "savitzky-golay", "window": None, "order": None}}
    found = [node.execute(points, **values).args[0].xy for values in (flat, nested, left_out)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], default.xy)
    assert np.abs(found[0] - default.xy).max() > 1
    with pytest.raises(KeypointError, match="method is 'median'.*savitzky-golay, one-euro, none"):
        node.execute(points, **{**flat, "method": "median"})


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_smoothing_with_the_widgets_values(pack, method, nested):
    time = np.linspace(0, 3, 60)[:, None]
    way = np.stack([32 + 15 * np.sin(time + np.arange(5)), 32 + 15 * np.cos(time - np.arange(5))], -1)
    noisy = way + np.random.default_rng(1).normal(0, 0.5, way.shape)
    points = Keypoints(noisy, np.ones(noisy.shape[:2]), np.full((60, 2), SIDE))
    smooth, report = part("smooth_keypoints").SmoothKeypoints.execute(points, **widget_values(method, nested)).args
    before, after = (np.abs(np.diff(xy, 2, axis=0)).mean() for xy in (noisy, smooth.xy))
    assert after < 0.5 * before if method != "none" else after == pytest.approx(before, rel=1e-4)
    assert "jitter" in report
