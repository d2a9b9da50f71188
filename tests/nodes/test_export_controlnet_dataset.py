"""Export ControlNet Dataset."""

from __future__ import annotations

import json

import pytest
import torch
from node_data import COUNT, SIDE, named, part

from stablekp_core.errors import KeypointError


def export(points, images, **changes):
    node = part("export_controlnet_dataset").ExportControlNetDataset
    schema = node.define_schema()
    values = {i.id: [i.options["default"]] for i in schema.inputs if i.is_widget}
    values |= {"size": [64], "style": ["openpose"], "caption": ["a doll"]}
    return node.execute([images], [points], **{**values, **changes}).args


def test_a_data_set_is_written_below_output_and_goes_on(pack, tmp_path):
    images = torch.rand(COUNT, SIDE, SIDE, 3)
    path, report = export(named(), images)
    assert path == str(tmp_path / "output" / "controlnet_datasets" / "my_dataset")
    assert f"{COUNT} new" in report
    texts = [f"doll {number}" for number in range(COUNT)]
    assert "0 new" in export(named(), images, captions=texts)[1]
    rows = [
        json.loads(line)
        for file in (tmp_path / "output" / "controlnet_datasets" / "my_dataset").glob("*/metadata.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert {row["source"]: row["text"] for row in rows} == {f"{i}.png": texts[i] for i in range(COUNT)}


def test_a_data_set_cannot_leave_output_and_lists_must_agree(pack):
    node = part("export_controlnet_dataset").ExportControlNetDataset
    assert "stays inside" in node.validate_inputs(name="../x") and node.validate_inputs(name=["x"]) is True
    images = torch.rand(COUNT, SIDE, SIDE, 3)
    with pytest.raises(KeypointError, match="2 captions are connected"):
        export(named(), images, captions=["a", "b"])
    with pytest.raises(KeypointError, match="1 names are connected"):
        export(named(), images, names=["a"])
