"""Every example workflow against the schemas of the nodes in it, without ComfyUI."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_comfy
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "example_workflows").glob("*.json"))


@pytest.fixture(scope="module")
def schemas(tmp_path_factory):
    pack = fake_comfy.install(tmp_path_factory.mktemp("comfy"))
    yield {schema.node_id: schema for schema in (node.define_schema() for node in pack.nodes.NODES)}
    fake_comfy.remove()


def ours(workflow: dict) -> list[dict]:
    return [node for node in workflow["nodes"] if node["type"].startswith("StableKP")]


def test_each_has_an_image():
    assert FILES
    for path in FILES:
        assert path.with_suffix(".jpg").is_file(), f"{path.stem} has no picture"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nodes_match_their_schemas(path, schemas):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert ours(workflow)
    for node in ours(workflow):
        schema = schemas[node["type"]]
        # A list that brings inputs is the first widget of its node, so the file's first value is its choice.
        choice = {i.id: node["widgets_values"][0] for i in schema.inputs if i.io_type == fake_comfy.DYNAMIC}
        inputs = list(fake_comfy.live_inputs(schema.inputs, choice).values())
        widgets = [i for i in inputs if i.is_widget]
        assert len(node["widgets_values"]) == len(widgets), node["type"]
        for widget, value in zip(widgets, node["widgets_values"], strict=True):
            check_value(node["type"], widget, value)
        sockets = {i["name"]: i["type"] for i in node["inputs"] if "widget" not in i}
        assert sockets == {i.id: i.io_type for i in inputs if not i.is_widget}
        assert [(o["name"], o["type"]) for o in node["outputs"]] == [
            (o.options["display_name"], o.io_type) for o in schema.outputs
        ]


def check_value(kind: str, widget, value) -> None:
    where, options = (kind, widget.id, value), widget.options
    if widget.io_type in ("INT", "FLOAT"):
        assert isinstance(value, int if widget.io_type == "INT" else (int, float)) and type(value) is not bool, where
        assert options["min"] <= value <= options["max"], where
    elif widget.io_type == "BOOLEAN":
        assert type(value) is bool, where
    else:
        assert isinstance(value, str), where
        # Files and folders differ between installations; all other lists are fixed.
        if widget.io_type == "COMBO" and widget.id not in ("model", "folder", "tokens_file", "landmarks_file"):
            assert value in options["options"], where


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_join_sockets_of_one_type_and_required_ones_are_wired(path, schemas):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, source, number, target, slot, io_type in workflow["links"]:
        output, socket = nodes[source]["outputs"][number], nodes[target]["inputs"][slot]
        assert link in output["links"] and socket["link"] == link
        assert output["type"] == io_type and (socket["type"] == "*" or io_type in socket["type"].split(","))
    for node in ours(workflow):
        optional = {i.id for i in schemas[node["type"]].inputs if i.optional}
        for socket in node["inputs"]:
            assert socket["link"] is not None or socket["name"] in optional, (node["type"], socket["name"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_nodes_overlap(path):
    boxes = [
        (n["pos"][0], n["pos"][1] - 30, n["pos"][0] + n["size"][0], n["pos"][1] + n["size"][1], n["type"])
        for n in json.loads(path.read_text(encoding="utf-8"))["nodes"]
    ]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_text_can_be_read_when_a_page_of_1600_by_900_opens_it(path):
    boxes = [(*group["bounding"], group["title"]) for group in json.loads(path.read_text(encoding="utf-8"))["groups"]]
    width, height = max(x + w for x, _, w, _, _ in boxes), max(y + h for _, y, _, h, _ in boxes)
    assert min(1207 / width, 715 / height) >= 0.58  # the page leaves text out below 0.57
    assert all(10 * len(title) < w for _, _, w, _, title in boxes)


def test_the_app_has_fields_and_a_result_that_are_there(schemas):
    apps = [flow for flow in (json.loads(path.read_text(encoding="utf-8")) for path in FILES) if flow["extra"]]
    assert len(apps) == 1
    nodes, app = {node["id"]: node for node in apps[0]["nodes"]}, apps[0]["extra"]["linearData"]
    for number, field, *_ in app["inputs"]:
        assert field in {i.id for i in schemas[nodes[number]["type"]].inputs if i.is_widget}
    assert [nodes[number]["title"] for number in app["outputs"]] == ["Keypoints on new images"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_note_is_there_in_chinese_too(path):
    """Same paragraphs and list items, the same files and templates, and the nodes by their Chinese names."""
    (note,) = (n for n in json.loads(path.read_text(encoding="utf-8"))["nodes"] if n["type"] == "MarkdownNote")
    english, chinese = (note["properties"]["stable_keypoints_note"][language] for language in ("en", "zh"))
    assert note["widgets_values"] == [english]
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) > len(chinese) / 3
    for part in (r"^\d+\.", r"\n\n", r"\*\*\d+ [\w ]+\*\*", r"input/\w+", r"POSE_KEYPOINT|JSON|TRACKS"):
        kept = [sorted(re.findall(part, text, re.MULTILINE)) for text in (english, chinese)]
        assert kept[0] == kept[1], part
    names = {
        language: json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for language in ("en", "zh")
    }
    short = {"StableKPTrain": "Train", "StableKPDetect": "Detect", "StableKPDraw": "Draw"}
    for kind, entry in names["en"].items():
        mentioned = any(f"*{name}*" in english for name in (entry["display_name"], short.get(kind, kind)))
        assert not mentioned or f"*{names['zh'][kind]['display_name']}*" in chinese, kind


def test_the_files_are_what_the_tool_writes(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import make_workflows as m, pathlib; "
        "m.ROOT = pathlib.Path(sys.argv[2]); m.main()"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT / "tools"), str(tmp_path)], check=True, capture_output=True)
    for folder in ("example_workflows", "subgraphs"):
        made, kept = (
            {path.name: path.read_text(encoding="utf-8") for path in (root / folder).glob("*.json")}
            for root in (tmp_path, ROOT)
        )
        assert made == kept


@pytest.mark.parametrize("path", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda path: path.stem)
def test_blueprints_show_widgets_and_join_sockets_that_are_there(path, schemas):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    whole, inside = blueprint["nodes"][0], blueprint["definitions"]["subgraphs"][0]
    assert whole["type"] == inside["id"]
    nodes = {node["id"]: node for node in inside["nodes"]}
    for number, widget in whole["properties"]["proxyWidgets"]:
        assert widget in {i.id for i in schemas[nodes[int(number)]["type"]].inputs if i.is_widget}
    for link in inside["links"]:
        if link["target_id"] in nodes:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        if link["origin_id"] in nodes:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
    for node in nodes.values():
        optional = {i.id for i in schemas[node["type"]].inputs if i.optional}
        assert all(socket["link"] or socket["name"] in optional for socket in node["inputs"])
