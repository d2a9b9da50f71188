"""Numbers, names, encodings and orders that careless calls bring."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.cli import main
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("draw", "p", "k.json", "d", "--threshold", "nan"), "'nan' was given, but it must be a number from 0 to 1"),
        (("draw", "p", "k.json", "d", "--threshold", "50"), "'50' was given, but it must be a number from 0 to 1"),
        (("draw", "p", "k.json", "d", "--width", "-3"), "'-3' was given, but it must be a number above 0"),
        (("draw", "p", "k.json", "d", "--width", "inf"), "a number above 0, at most 1000"),
        (("draw", "p", "k.json", "d", "--which", "-1"), "a whole number from 0 up"),
        (("smooth", "k.json", "s.json", "--threshold", "30"), "a number from 0 to 1"),
        (("smooth", "k.json", "s.json", "--fps", "nan"), "a number above 0"),
        (("smooth", "k.json", "s.json", "--beta", "inf"), "a number from 0 up"),
        (("smooth", "k.json", "s.json", "--fill", "-1"), "a whole number from 0 up"),
        (("report", "k.json", "--threshold", "nan"), "a number from 0 to 1"),
        (("report", "k.json", "--max-pictures", "-2"), "a whole number from 1 up"),
        (("skeleton", "k.json", "--extra", "nan"), "a number from 0 to 1"),
        (("fit-landmarks", "k.json", "l.json", "m", "--ridge", "inf"), "a number from 0 up"),
        (("apply-landmarks", "k.json", "m", "a.json", "--threshold", "9"), "a number from 0 to 1"),
        (("export-controlnet-dataset", "p", "k.json", "d", "--validation", "1"), "a number from 0 to 0.9"),
        (("train", "p", "t.safetensors", "--learning-rate", "nan"), "'nan' was given, but it must be a number"),
        (("train", "p", "t.safetensors", "--limit", "0"), "a whole number from 1 up"),
        (("detect-dataset", "p", "o", "--tokens", "t", "--cpus", "nan"), "a number above 0"),
        (("detect-dataset", "p", "o", "--tokens", "t", "--part-rows", "0"), "a whole number from 1 up"),
        (("evaluate", "--dataset", "dolls", "--workers", "0"), "a whole number from 1 up"),
        (("smooth", "k.json", ""), "an empty name was given"),
        (("apply-landmarks", "k.json", "m", ""), "an empty name was given"),
        (("fit-landmarks", "k.json", "l.json", ""), "an empty name was given"),
        (("detect", "p", "--tokens", "t", "--output", ""), "an empty name was given"),
    ],
)
def test_what_cannot_be_is_refused_by_its_type(capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    err = capsys.readouterr().err
    assert end.value.code == 2 and said in " ".join(err.split())


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KeypointTokens(torch.randn(8, 6), (0, 1, 2, 3)).save(tmp_path / "t.safetensors")
    return tmp_path


def test_edits_in_other_encodings(place, capsys):
    (place / "edits.txt").write_bytes("drop 3\r\n".encode("utf-16"))
    assert main(["edit", "t.safetensors", "edits.txt", "--output", "e.safetensors"]) == 0
    assert KeypointTokens.load(place / "e.safetensors").num_keypoints == 3
    (place / "edits.txt").write_bytes("rename 0 Flügel\n".encode("cp1252"))
    for arguments in (("t.safetensors", "edits.txt"), ("drop 0", "t.safetensors"), ("t.safetensors", "t.safetensors")):
        capsys.readouterr()
        assert main(["edit", *arguments, "--output", "f.safetensors"]) == 1
        assert "Traceback" not in capsys.readouterr().err
    assert not (place / "f.safetensors").exists()


def test_names_that_the_terminal_cannot_show(place, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["edit", "t.safetensors", "rename 0 Flügel", "--output", "é.safetensors"]) == 0
    out.flush()
    assert b"Fl\\xfcgel" in out.buffer.getvalue()


def test_categories_can_be_chosen_by_every_command_that_reads_labels(place, capsys):
    xy = np.random.default_rng(0).uniform(10, 90, (8, 3, 2))
    found = Keypoints(xy, np.ones((8, 3)), [(100, 100)] * 8, images=[f"{i}.png" for i in range(8)])
    data = found.to_coco()
    data["categories"].append({"id": 2, "name": "box", "keypoints": ["lid"]})
    data["annotations"].append({"id": 99, "image_id": 1, "category_id": 2, "keypoints": [10, 10, 2]})
    (place / "two.json").write_text(json.dumps(data))
    (place / "one.json").write_text(found.to_json())
    (place / "pics").mkdir()
    for i in range(8):
        Image.new("RGB", (100, 100)).save(place / "pics" / f"{i}.png")
    commands = [
        ["fit-landmarks", "one.json", "two.json", "m.safetensors"],
        ["apply-landmarks", "two.json", "m.safetensors", "named.json"],
        ["smooth", "two.json", "s.json"],
        ["skeleton", "two.json", "--output", "sk.json"],
        ["report", "two.json"],
        ["draw", "pics", "two.json", "d"],
        ["export-controlnet-dataset", "pics", "two.json", "e", "--size", "64", "--style", "keypoints"],
    ]
    for command in commands:
        assert main(command) == 1
        assert "several categories (object, box); say which one" in capsys.readouterr().err
        assert main([*command, "--category", "object"]) == 0, capsys.readouterr().err
        capsys.readouterr()


def test_the_order_of_the_shell_is_put_right_and_told(place, capsys, caplog):
    from stablekp_core.cli.reading import natural_notice, open_images

    (place / "frames").mkdir()
    for i in range(1, 13):
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(place / "frames" / f"frame{i}.png")
    files = sorted((place / "frames").iterdir())
    assert open_images(files).names[:3] == ("frame1.png", "frame2.png", "frame3.png")
    assert "frame2 before frame10" in caplog.text
    own = [files[5], files[0], files[11]]  # an order that somebody chose
    assert open_images(own).names == tuple(f.name for f in own)
    caplog.clear()
    shell = Keypoints(np.zeros((12, 1, 2)), np.ones((12, 1)), [(32, 32)] * 12, images=[f.name for f in files])
    natural_notice(shell)
    assert "alphabetical order (frame1.png, frame10.png" in caplog.text


def test_folders_with_images_of_one_name(place):
    from stablekp_core.cli.reading import open_images

    for folder in ("a", "b"):
        (place / folder).mkdir()
        Image.new("RGB", (32, 32)).save(place / folder / "1.png")
    assert open_images([place / "a", place / "b"]).names == ("a/1.png", "b/1.png")


def test_files_that_are_not_read_are_named(place, caplog, capsys):
    (place / "pics").mkdir()
    for name in ("a.png", "b.jfif", "c.jpe"):
        Image.new("RGB", (32, 32)).save(place / "pics" / name, "PNG" if name.endswith("png") else "JPEG")
    for name in ("d.HEIC", "e.gif", "._f.png", ".DS_Store"):
        (place / "pics" / name).write_bytes(b"x")
    (place / "pics" / "gone.jpg").symlink_to("nowhere.jpg")
    from stablekp_core.images.image_set import load_folder

    skipped = {}
    assert load_folder(place / "pics", on_skip=skipped.__setitem__).names == ("a.png", "b.jfif", "c.jpe")
    assert set(skipped) == {"d.HEIC", "e.gif", "gone.jpg"} and skipped["gone.jpg"] == "a broken link"
    assert "save it as png or jpg" in skipped["e.gif"]
    for folder, said in (
        ("phone", "3 other files, such as IMG_0.gif (this kind of image is not read"),
        ("annex", "broken link"),
    ):
        (place / folder).mkdir()
        if folder == "phone":
            [(place / folder / f"IMG_{i}.gif").write_bytes(b"x") for i in range(3)]
        else:
            (place / folder / "a.jpg").symlink_to("nowhere.jpg")
        capsys.readouterr()
        assert main(["detect", folder, "--tokens", "t.safetensors"]) == 1
        assert said in capsys.readouterr().err
    (place / "outer" / "inner").mkdir(parents=True)
    assert main(["detect", "outer", "--tokens", "t.safetensors"]) == 1
    assert "not looked for in its folders (inner)" in capsys.readouterr().err
    assert main(["detect", "nosuch.jpg", "--tokens", "t.safetensors"]) == 1
    assert "nosuch.jpg" in capsys.readouterr().err
    assert main(["heatmaps", "pics", "--tokens", "t.safetensors"]) == 1
    assert "pics cannot be read as an image (is a directory)" in capsys.readouterr().err


def test_published_tokens_on_the_command_line(place, capsys):
    torch.save(torch.randn(1, 30, 768), place / "embedding.pt")
    torch.save(torch.tensor([3, 1, 2]), place / "indices.pt")
    torch.save(torch.randn(6, 10), place / "regressor.pt")
    command = ["import-tokens", "embedding.pt", "face", "--indices", "indices.pt"]
    assert main([*command, "--regressor", "regressor.pt", "--dataset", "celeba_wild"]) == 0
    assert "--preset reference" in capsys.readouterr().out
    assert KeypointTokens.load(place / "face.safetensors").chosen == (3, 1, 2)
    assert main(["info", "face_landmarks.safetensors"]) == 0
    assert "landmark map of keypoints kp0, kp1, kp2" in capsys.readouterr().out
    assert main([*command, "--dataset", "taichi"]) == 1
    assert "give --regressor with it" in capsys.readouterr().err


def test_info_tells_files_apart(place, capsys):
    Image.new("RGB", (32, 20)).save(place / "a.png")
    (place / "k.json").write_text(Keypoints([[[1, 2]]], [[1]], [(9, 9)]).to_json())
    (place / "x.json").write_text("[1]")
    for name, said in (("a.png", "image: 32x20"), ("k.json", "1 figures on 1 images"), ("t.safetensors", "tokens: 8")):
        assert main(["info", name]) == 0
        assert said in capsys.readouterr().out
    assert main(["info", "x.json"]) == 1
    assert "x.json is JSON, but holds no keypoints" in capsys.readouterr().err
