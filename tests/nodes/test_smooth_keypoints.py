"""Smooth Keypoints."""

from __future__ import annotations

import numpy as np
import pytest
from node_data import SIDE, part

from stablekp_core.keypoints.keypoints import Keypoints


def smooth_defaults() -> dict:
    schema = part("smooth_keypoints").SmoothKeypoints.define_schema()
    return {i.id: i.options["default"] for i in schema.inputs if i.is_widget}


@pytest.mark.parametrize("method", ["savitzky-golay", "one-euro", "none"])
def test_smoothing_with_the_widgets_values(pack, method):
    time = np.linspace(0, 3, 60)[:, None]
    way = np.stack([32 + 15 * np.sin(time + np.arange(5)), 32 + 15 * np.cos(time - np.arange(5))], -1)
    noisy = way + np.random.default_rng(1).normal(0, 0.5, way.shape)
    points = Keypoints(noisy, np.ones(noisy.shape[:2]), np.full((60, 2), SIDE))
    smooth, report = (
        part("smooth_keypoints").SmoothKeypoints.execute(points, **{**smooth_defaults(), "method": method}).args
    )
    before, after = (np.abs(np.diff(xy, 2, axis=0)).mean() for xy in (noisy, smooth.xy))
    assert after < 0.5 * before if method != "none" else after == pytest.approx(before, rel=1e-4)
    assert "jitter" in report
