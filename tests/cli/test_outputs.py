"""Nothing is lost, and what cannot be written is told before any work."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.cli import main
from stablekp_core.cli.outputs import Output, check_outputs
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Images, tokens, keypoints and things in the way; a model that would be loaded ends the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stablekp_core.backbone.loading.load_model", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "pics").mkdir()
    for i in range(3):
        Image.new("RGB", (64, 48), (40 * i, 90, 90)).save(tmp_path / "pics" / f"{i}.png")
    KeypointTokens(torch.randn(8, 6), (0, 1, 2)).save(tmp_path / "t.safetensors")
    found = Keypoints(np.full((3, 3, 2), 20.0), np.ones((3, 3)), [(64, 48)] * 3, images=[f"{i}.png" for i in range(3)])
    (tmp_path / "k.json").write_text(found.to_json())
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"a model of 4 GB")
    (tmp_path / "folder.safetensors").mkdir()
    return tmp_path


DETECT = ("detect", "pics", "--tokens", "t.safetensors")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((*DETECT, "--output", "t.safetensors"), "t.safetensors is no name for JSON"),
        ((*DETECT, "--output", "k.json", "--csv", "k.json"), "k.json is no name for a table"),
        ((*DETECT, "--output", "same", "--csv", "same"), "same would be written over another result"),
        ((*DETECT, "--output", "a_file/k.json"), "a_file is a file, so a_file/k.json cannot be written"),
        ((*DETECT, "--output", "a_folder"), "a_folder is a folder"),
        ((*DETECT, "--csv", "a_folder"), "a_folder is a folder"),
        (("train", "pics", "model.safetensors"), "model.safetensors exists and is not keypoint tokens"),
        (("train", "pics", "folder.safetensors"), "folder.safetensors is a folder"),
        (("train", "pics", "pics/t.safetensors"), "lies in the folder of images"),
        (("train", "pics", "new.safetensors", "--from", "new.safetensors"), "does not exist"),
        (
            ("heatmaps", "pics/0.png", "--tokens", "t.safetensors", "--output", "pics/0.png"),
            "one of the files it is made",
        ),
        (("heatmaps", "pics/0.png", "--tokens", "t.safetensors", "--output", "map.psd"), "end it in .png or .jpg"),
        (("heatmaps", "pics/0.png", "--tokens", "t.safetensors", "--output", "map"), "end it in .png or .jpg"),
        (("report", "k.json", "--images", "pics", "--picture", "pics/1.png"), "lies among the images that are read"),
        (("apply-landmarks", "k.json", "t.safetensors", "k.json"), "one of the files it is made from"),
        (("apply-landmarks", "k.json", "t.safetensors", "t.safetensors"), "no name for JSON"),
        (("fit-landmarks", "k.json", "k.json", "t.safetensors"), "t.safetensors exists and is not a landmark map"),
        (("smooth", "k.json", "k.json"), "one of the files it is made from"),
        (("smooth", "k.json", "link.json"), "one of the files it is made from"),
        (("skeleton", "k.json", "--output", "k.json"), "one of the files it is made from"),
        (
            ("skeleton", "k.json", "--tokens", "t.safetensors", "--output", "model"),
            "model.safetensors exists and is not",
        ),
        (
            ("edit", "t.safetensors", "drop 0", "--output", "model"),
            "model.safetensors exists and is not keypoint tokens",
        ),
        (("evaluate", "--dataset", "dolls", "--output", "x.txt"), "x.txt is no name for JSON"),
        (("evaluate", "--dataset", "dolls", "--cache", "a_file"), "a_file is a file, but a folder is to be written"),
        (("draw", "pics", "k.json", "pics"), "holds the images themselves"),
        (("draw", "pics", "k.json", "a_file"), "a_file is a file, but a folder is to be written"),
        (("export-controlnet-dataset", "pics", "k.json", "a_file"), "a_file is a file, but a folder is to be written"),
        (("demo", "--output", "a_file"), "a_file is a file, but a folder is to be written"),
    ],
)
def test_refused_before_the_work(place, capsys, arguments, said):
    (place / "link.json").symlink_to("k.json")
    before = {p.name: p.stat().st_mtime_ns for p in place.rglob("*")}
    assert main(list(arguments)) == 1
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and "Errno" not in err and ".tmp" not in err
    assert {p.name: p.stat().st_mtime_ns for p in place.rglob("*")} == before


def test_files_of_the_same_kind_may_be_replaced(place):
    check_outputs([Output(place / "t.safetensors", "tokens"), Output(place / "k.json", "JSON")])
    check_outputs([Output(place / "pics" / "0.png", "image")])  # nothing is read from that folder
    check_outputs([Output(place / "new" / "deep" / "k.json", "JSON"), Output(place / "new", "folder")])
    with pytest.raises(KeypointError, match="would be written over another result"):
        check_outputs([Output(place / "a.json", "JSON"), Output(place / "a_folder" / ".." / "a.json", "JSON")])


def test_a_folder_that_may_not_be_written(place, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(KeypointError, match="may not be written to"):
        check_outputs([Output(place / "a_folder" / "k.json", "JSON")])


def test_images_of_one_name_are_drawn_into_their_folders(tmp_path, capsys):
    names = ["a/1.jpg", "b/1.jpg", "b/1.png", "2.jpg"]
    for i, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (60 * i, 0, 0)).save(tmp_path / "in" / name)
    found = Keypoints(np.full((4, 3, 2), 20.0), np.ones((4, 3)), [(64, 48)] * 4, images=names)
    (tmp_path / "k.json").write_text(found.to_json())
    assert main(["draw", str(tmp_path / "in"), str(tmp_path / "k.json"), str(tmp_path / "out")]) == 0
    drawn = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert drawn == ["2.png", "a/1.png", "b/1.jpg.png", "b/1.png.png"] and "4 images" in capsys.readouterr().out
    data = json.loads(found.to_json())
    for image in data["images"][:2]:
        image["file_name"] = image["file_name"].split("/")[1]  # a/1.jpg and b/1.jpg as 1.jpg
    (tmp_path / "k.json").write_text(json.dumps(data))
    assert main(["draw", str(tmp_path / "in"), str(tmp_path / "k.json"), str(tmp_path / "out")]) == 1


def test_keypoints_are_drawn_on_copies_of_another_size(tmp_path, capsys):
    """They landed in the wrong place, with exit code 0."""
    found = Keypoints([[[60, 30], [150, 80]]], np.ones((1, 2)), [(200, 100)], images=["a.png"])
    (tmp_path / "k.json").write_text(found.to_json())
    for size, scale in (((800, 400), 4), ((50, 25), 0.25)):
        (tmp_path / f"{scale}").mkdir()
        Image.new("RGB", size, (90, 90, 90)).save(tmp_path / f"{scale}" / "a.png")
        command = ["draw", str(tmp_path / f"{scale}"), str(tmp_path / "k.json"), str(tmp_path / f"d{scale}")]
        assert main([*command, "--no-numbers"]) == 0
        drawn = np.asarray(Image.open(tmp_path / f"d{scale}" / "a.png")).astype(int)
        y, x = np.nonzero(abs(drawn - 90).sum(-1) > 30)
        assert abs((x.min() + x.max()) / 2 - 105 * scale) < 3 * max(scale, 1)
        assert abs((y.min() + y.max()) / 2 - 55 * scale) < 3 * max(scale, 1)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (100, 200)).save(tmp_path / "other" / "a.png")
    capsys.readouterr()
    assert main(["draw", str(tmp_path / "other"), str(tmp_path / "k.json"), str(tmp_path / "d")]) == 1
    assert (
        "keypoints of a.png are for 200x100 pixels, but the image is 100x200; width and height"
        in capsys.readouterr().err
    )


def test_an_error_of_the_system_has_no_number_and_no_temporary_name(place, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["smooth", "k.json", "s.json"]) == 1
    err = capsys.readouterr().err
    assert "s.json cannot be written (No space left on device)" in err and "Errno" not in err and ".tmp" not in err
    assert not list(place.glob(".*"))
