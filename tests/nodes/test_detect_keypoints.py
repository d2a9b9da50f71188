"""Detect Keypoints."""

from __future__ import annotations

import fake_comfy
import pytest
import torch
from node_data import part, points
from tiny_models import WIDTH, make_unet, make_vae

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.read_settings import ReadSettings
from stablekp_core.keypoints.tokens import KeypointTokens


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


@pytest.mark.parametrize(
    "maps, sizes", [("as computed", [(16, 16)] * 2), ("image size", [(24, 20), (30, 40)]), ("off", [])]
)
def test_the_node_detects_with_a_real_model(pack, maps, sizes):
    """Random weights: what comes out has the right shapes, and the maps are between 0 and 1."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    model = Backbone(make_unet(), make_vae(), "tiny", "")
    generator = torch.Generator().manual_seed(0)
    learned = KeypointTokens(torch.randn(12, WIDTH, generator=generator), (0, 3, 5), reading=ReadSettings(map_size=16))
    images = [torch.rand(1, 24, 20, 3, generator=generator), torch.rand(1, 30, 40, 3, generator=generator)]
    node = part("detect_keypoints").DetectKeypoints
    widgets = {i.id: [i.options["default"]] for i in node.define_schema().inputs if i.is_widget}
    handle = SimpleNamespace(open=lambda batch_size: nullcontext(model))
    found, heat, text = node.execute([handle], [learned], images, **{**widgets, "views": [2], "heat_maps": [maps]}).args
    assert found.sizes.tolist() == [[20, 24], [40, 30]] and found.num_keypoints == 3
    assert text == fake_comfy.page().texts[-1][1] and len(text.splitlines()) == 2
    if maps == "off":
        return
    assert [tuple(m.shape[-2:]) for batch in heat for m in batch] == [size for size in sizes for _ in range(3)]
    assert all(0 <= float(batch.min()) and 0 < float(batch.max()) <= 1 for batch in heat)
