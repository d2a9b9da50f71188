"""Detect Keypoints."""

from __future__ import annotations

import pytest
import torch
from node_data import part, points

from stablekp_core.errors import KeypointError


def test_detection_widgets_are_the_cores_settings(pack):
    from stablekp_core.config import DetectConfig

    detection = part("detect_keypoints")
    widgets = {i.id: i.options["default"] for i in detection.DetectKeypoints.define_schema().inputs if i.is_widget}
    for name in ("heat_maps", "crop_margin", "isolate"):  # of the node, not of the detection
        widgets.pop(name)
    assert detection.detect_config(widgets) == DetectConfig()
    assert detection.detect_config({"sub_pixel": False, "view_seed": 4, "views": 1}) == DetectConfig(
        readout="argmax", seed=4, views=1
    )


def test_names_must_be_those_of_the_images(pack):
    named = part("detect_keypoints").image_set
    images = [torch.rand(20, 20, 3)] * 2
    assert named(images, ["a", "b"]).names == ("a", "b")
    assert len(named(images, None)) == 2
    with pytest.raises(KeypointError, match="3 names"):
        named(images, ["a", "b", "c"])


def test_the_confidence_text_names_the_doubtful_points(pack):
    text = part("detect_keypoints").confidence_text(points(images=("a.png", "")), "other model")
    lines = text.splitlines()
    assert "other model" in lines[0]
    assert lines[1] == "a.png: mean 0.36; unsure: kp0 0.20, kp1 0.36"
    assert lines[2] == "image 1: mean 0.84"
    found = points(images=("a.png", ""), occluded=[[0.5, 0.2, 0.91], [0, 0, 0.4]])
    lines = part("detect_keypoints").confidence_text(found).splitlines()
    assert lines == ["a.png: mean 0.36; unsure: kp0 0.20, kp1 0.36; hidden: kp0 0.50, kp2 0.91", "image 1: mean 0.84"]
