"""Names, folders and files that a graph may reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_data import part

from stablekp_core.errors import KeypointError


@pytest.mark.parametrize(
    "typed, path",
    [
        ("cat", "cat.safetensors"),
        ("cat.safetensors", "cat.safetensors"),
        (" my cat ", "my cat.safetensors"),
        ("pets/cat", "pets/cat.safetensors"),
        ("pets\\cat", "pets/cat.safetensors"),
        ("猫", "猫.safetensors"),
        ("v1.2", "v1.2.safetensors"),
        ("./cat", "cat.safetensors"),
    ],
)
def test_names_that_may_be_saved(pack, typed, path):
    assert part("comfy.folders").relative_save_path(typed) == Path(path)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "..",
        "../cat",
        "pets/../../cat",
        "/etc/passwd",
        "\\\\host\\share",
        "C:\\cat",
        "C:cat",
        "~/cat",
        "con",
        "NUL.safetensors",
        "cat\nx",
        "cat\0",
        "a" * 200,
        ".hidden",
        "cat.",
    ],
)
def test_names_that_would_leave_the_folder_are_refused(pack, typed):
    with pytest.raises(KeypointError, match="file name"):
        part("comfy.folders").relative_save_path(typed)


def test_image_folders_stay_below_input(pack, tmp_path, monkeypatch):
    folders = part("comfy.folders")
    (tmp_path / "input" / "cats").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "input-other").mkdir()
    (tmp_path / "input" / "way-out").symlink_to(tmp_path / "elsewhere")
    assert folders.image_folder("cats") == tmp_path / "input" / "cats"
    for wrong in (
        "../elsewhere",
        "cats/../../elsewhere",
        str(tmp_path / "elsewhere"),
        "../input-other",
        "way-out",
    ):
        with pytest.raises(KeypointError, match="outside"):
            folders.image_folder(wrong)
    with pytest.raises(KeypointError, match="no folder 'dogs'"):
        folders.image_folder("dogs")
    with pytest.raises(KeypointError, match=folders.ANY_PATH_VARIABLE):
        folders.image_folder("cats", str(tmp_path / "elsewhere"))
    monkeypatch.setenv(folders.ANY_PATH_VARIABLE, "1")
    assert folders.image_folder("cats", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_links_inside_a_folder_that_lead_out_of_input_are_refused(pack, tmp_path):
    folders = part("comfy.folders")
    cats = tmp_path / "input" / "cats"
    cats.mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "input" / "shared.png").write_bytes(b"")
    (cats / "inside.png").symlink_to(tmp_path / "input" / "shared.png")
    assert folders.image_folder("cats") == cats
    (cats / "outside.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(KeypointError, match="outside.png in the folder 'cats' is a link"):
        folders.image_folder("cats")


def test_files_are_not_saved_through_a_link_that_leads_out(pack, tmp_path):
    folders = part("comfy.folders")
    root, elsewhere = tmp_path / "kept", tmp_path / "elsewhere"
    (root / "pets").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "way-out").symlink_to(elsewhere)
    (tmp_path / "linked").symlink_to(root)  # the folder as a whole may lie elsewhere
    assert folders.save_path(root, "pets/cat") == root / "pets" / "cat.safetensors"
    assert folders.save_path(tmp_path / "linked", "new/cat", ".json") == tmp_path / "linked" / "new" / "cat.json"
    with pytest.raises(KeypointError, match="link to outside kept"):
        folders.save_path(root, "way-out/cat")


def test_what_comes_over_a_wire_is_looked_at_when_the_node_runs(pack):
    assert part("load_keypoint_backbone").LoadKeypointBackbone.validate_inputs(None) is True
    assert part("load_image_set").LoadImageSet.validate_inputs(None) is True
    assert part("load_keypoint_tokens").LoadKeypointTokens.validate_inputs(None) is True
    assert part("save_keypoint_tokens").SaveKeypointTokens.validate_inputs(None) is True
    with pytest.raises(KeypointError):
        part("comfy.folders").image_folder("..")
