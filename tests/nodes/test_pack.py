"""What holds for all nodes of the pack."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import fake_comfy
import pytest
from node_data import part

ROOT = Path(__file__).resolve().parents[2]


def test_outside_comfyui_the_pack_is_empty_and_harmless():
    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('pack', sys.argv[1], "
        "submodule_search_locations=[sys.argv[2]]); m = importlib.util.module_from_spec(s); "
        "sys.modules['pack'] = m; s.loader.exec_module(m); "
        "print(hasattr(m, 'comfy_entrypoint'), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "__init__.py"), str(ROOT)],
        text=True,
        capture_output=True,
        cwd="/",
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


def test_loading_the_pack_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, fake_comfy; "
        "fake_comfy.install(pathlib.Path(sys.argv[2])); "
        "print([m for m in ('diffusers', 'transformers', 'cv2', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests"), str(tmp_path)],
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_no_seed_is_changed_by_the_page_after_a_run(pack):
    """ComfyUI's page makes a new seed after each run where a node does not say otherwise: all would be learned anew."""
    seeds = [i for node in pack.nodes.NODES for i in node.define_schema().inputs if i.id in ("seed", "noise_seed")]
    assert len(seeds) >= 3
    assert all(seed.options.get("control_after_generate") is False for seed in seeds)


def test_all_nodes_have_our_prefix_category_and_a_tooltip_everywhere(pack):
    names = set()
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        names.add(schema.node_id)
        assert (
            schema.node_id.startswith("StableKP")
            and schema.category.removeprefix("keypoints/") in part("comfy.sockets").GROUPS
        )
        assert schema.display_name and schema.description
        for socket in [*fake_comfy.all_inputs(schema.inputs).values(), *schema.outputs]:
            assert socket.tooltip, (schema.node_id, socket.id)
    assert len(names) == len(pack.nodes.NODES)


def test_execute_takes_every_input_and_has_a_default_for_every_optional_one(pack):
    import inspect

    for node in pack.nodes.NODES:
        parameters = inspect.signature(node.execute).parameters
        takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for socket in node.define_schema().inputs:
            assert takes_rest or socket.id in parameters, (node, socket.id)
            if socket.optional and socket.id in parameters:
                assert parameters[socket.id].default is not inspect.Parameter.empty, (node, socket.id)


#: Types of ComfyUI itself and of the pose nodes in it.
KNOWN = {
    *("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "MASK", "MODEL", "VAE", "LATENT", "VIDEO"),
    *("LOSS_MAP", "TRACKS", "POSE_KEYPOINT", "BOUNDING_BOX", "BOUNDING_BOXES", fake_comfy.DYNAMIC),
}


def test_types_of_the_pack_cannot_be_taken_for_another_packs(pack):
    schemas = [node.define_schema() for node in pack.nodes.NODES]
    types = {kind for s in schemas for socket in [*s.inputs, *s.outputs] for kind in socket.io_type.split(",")}
    own = types - KNOWN
    assert len(own) == 5 and all(kind.startswith("STABLEKP_") for kind in own)


def test_boxes_come_over_a_wire_only(pack):
    """Newer pages make a widget of a BOUNDING_BOX input, and so a box of every graph, unless it is told not to."""
    boxes = [
        socket
        for node in pack.nodes.NODES
        for socket in node.define_schema().inputs
        if socket.io_type.startswith("BOUNDING_BOX")
    ]
    assert boxes and all(socket.options["extra_dict"]["forceInput"] for socket in boxes)


def test_schemas_only_use_fields_of_the_oldest_supported_version(pack):
    known = {field.name for field in fields(fake_comfy.Schema)}
    assert "search_aliases" not in known  # what 0.8.0 does not have is filtered out on the way
    assert pack.nodes.NODES[0].define_schema().node_id == "StableKPLoadBackbone"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translations_are_complete(pack, language):
    entries = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        entry = entries.pop(schema.node_id)
        assert entry["display_name"] and entry["description"]
        inputs = {name.replace(".", "_"): i for name, i in fake_comfy.all_inputs(schema.inputs).items()}
        assert set(entry["inputs"]) == set(inputs)
        assert set(entry["outputs"]) == {str(i) for i in range(len(schema.outputs))}
        for text in [*entry["inputs"].values(), *entry["outputs"].values()]:
            assert text["name"] and text["tooltip"]
        if language == "en":
            assert {k: v["tooltip"] for k, v in entry["inputs"].items()} == {k: i.tooltip for k, i in inputs.items()}
    assert not entries


def test_every_node_has_a_help_page_that_explains_every_input_and_output(pack):
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == {node.define_schema().node_id for node in pack.nodes.NODES}
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        page = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        inputs = fake_comfy.all_inputs(schema.inputs).values()
        for name in [i.id for i in inputs] + [o.options["display_name"] for o in schema.outputs]:
            assert f"**{name}**" in page, (schema.node_id, name)


def test_every_node_has_a_chinese_help_page_of_what_the_chinese_locale_says(pack):
    """The pages are written by tools/make_locales.py; this finds a page that is older than the locale."""
    entries = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert {path.parent.name for path in (ROOT / "web" / "docs").glob("*/zh.md")} == set(entries)
    for node_id, entry in entries.items():
        page = (ROOT / "web" / "docs" / node_id / "zh.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {entry['display_name']}\n") and entry["description"] in page
        for row in [*entry["inputs"].values(), *entry["outputs"].values()]:
            assert f"**{row['name']}**" in page and row["tooltip"].replace("|", "\\|").replace("\n", " ") in page
