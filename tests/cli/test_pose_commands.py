"""The pose commands on files, end to end, through the command line's entry point."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.cli import main
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.fitting import LandmarkMap
from stablekp_core.pose.retarget import retarget_pose
from stablekp_core.synthetic.figures import landmark_names, landmark_skeleton
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 64, 24


def joints(count: int = COUNT) -> np.ndarray:
    return np.stack([render("dolls", seed, SIDE, "plain").joints for seed in range(count)])


def write(path, xy: np.ndarray, names=(), **more) -> str:
    """Keypoints of images 0.png, 1.png, … as COCO."""
    rows = len(xy)
    images = tuple(f"{number}.png" for number in range(rows))
    points = Keypoints(xy, np.ones(xy.shape[:2]), np.full((rows, 2), SIDE), names, images=images, **more)
    path.write_text(points.to_json())
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Keypoints that are shuffled joints with a little noise, labels of eight of them, and the images."""
    xy, rng = joints(), np.random.default_rng(0)
    order = rng.permutation(xy.shape[1])
    found = write(tmp_path / "found.json", xy[:, order] + rng.normal(0, 0.3, xy.shape))
    labels = write(tmp_path / "labels.json", xy[:8], landmark_names("dolls"))
    for number in range(COUNT):
        Image.fromarray(render("dolls", number, SIDE, "plain").image).save(tmp_path / f"{number}.png")
    return tmp_path, found, labels, xy


def tokens(path, count: int) -> str:
    KeypointTokens(torch.randn(20, 6), tuple(range(count))).save(path)
    return str(path)


def test_the_command_line_stays_light():
    code = (
        "import sys; from stablekp_core.cli.program import build_parser; build_parser(); "
        "print([m for m in ('torch', 'cv2', 'numpy', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fit_and_apply_give_the_joints_in_every_format(files, capsys):
    folder, found, labels, xy = files
    output = folder / "map" / "people.safetensors"
    assert main(["fit-landmarks", found, labels, str(output)]) == 0
    printed = capsys.readouterr().out
    assert "leave-one-out error" in printed and "8 labelled images" in printed
    assert LandmarkMap.load(output).names == landmark_names("dolls")
    for form in ("coco", "openpose", "ap10k"):
        path = folder / f"{form}.json"
        assert main(["apply-landmarks", found, str(output), str(path), "--format", form]) == 0
    named = Keypoints.load(folder / "coco.json")
    assert named.names == landmark_names("dolls")
    # The keypoints of eight labelled images are the joints up to noise: images without labels follow.
    assert np.linalg.norm(named.xy[8:] - xy[8:], axis=-1).mean() < 0.08 * SIDE
    people = json.loads((folder / "openpose.json").read_text())
    assert len(people) == COUNT and len(people[0]["people"][0]["pose_keypoints_2d"]) == 54
    animals = json.loads((folder / "ap10k.json").read_text())
    assert len(animals[3]["animals"][0]) == 17


def test_fit_passes_its_settings_on(files):
    folder, found, labels, _ = files
    output = str(folder / "map.safetensors")
    assert main(["fit-landmarks", found, labels, output, "--mode", "affine", "--ridge", "0.5", "--rank", "3"]) == 0
    landmarks = LandmarkMap.load(output)
    assert (landmarks.mode, landmarks.ridge, landmarks.rank) == ("affine", 0.5, 3)


def test_too_few_labels_are_refused_by_number(files, capsys):
    folder, found, _, xy = files
    few = write(folder / "few.json", xy[:2], landmark_names("dolls"))
    assert main(["fit-landmarks", found, few, str(folder / "map.safetensors")]) == 1
    assert "at least 3 labelled images" in capsys.readouterr().err
    assert not (folder / "map.safetensors").exists()


@pytest.mark.parametrize("method", ["savitzky-golay", "one-euro"])
def test_smooth_takes_jitter_out(tmp_path, capsys, method):
    time = np.linspace(0, 3, 60)[:, None]
    way = np.stack([32 + 15 * np.sin(time + np.arange(5)), 32 + 15 * np.cos(time - np.arange(5))], -1)
    noise = np.random.default_rng(1).normal(0, 0.6, way.shape)
    found, output = write(tmp_path / "found.json", way + noise), tmp_path / "smooth.json"
    assert main(["smooth", found, str(output), "--method", method, "--swaps", "none"]) == 0
    assert "jitter" in capsys.readouterr().out
    smooth = Keypoints.load(output)
    assert np.abs(np.diff(smooth.xy, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(way + noise, 2, axis=0)).mean()


def test_smoothing_nothing_leaves_the_output_alone(tmp_path, capsys):
    output = tmp_path / "smooth.json"
    output.write_text("[1]")
    assert main(["smooth", write(tmp_path / "none.json", np.zeros((0, 5, 2))), str(output)]) == 1
    assert "no frames" in capsys.readouterr().err and output.read_text() == "[1]"


def test_skeleton_goes_into_tokens_or_keypoints(files, capsys):
    folder, found, _, xy = files
    count = xy.shape[1]
    path = tokens(folder / "tokens.safetensors", count)
    assert main(["skeleton", found, "--tokens", path, "--extra", "1"]) == 0
    edges = KeypointTokens.load(path).skeleton
    assert len(edges) == count - 1
    assert capsys.readouterr().out.splitlines()[0] == ", ".join(f"{a}-{b}" for a, b in edges)
    named = folder / "named.json"
    assert main(["skeleton", found, "--edges", "0-1; 1-2", "--output", str(named)]) == 0
    assert Keypoints.load(named).skeleton == ((0, 1), (1, 2))
    other = tokens(folder / "other.safetensors", 3)
    assert main(["skeleton", found, "--tokens", other]) == 1
    assert "has 3 keypoints" in capsys.readouterr().err


def test_report_prints_a_table_and_draws(files, capsys):
    folder, found, _, xy = files
    image = folder / "report" / "image.png"
    arguments = ["report", found, "--images", str(folder), "--picture", str(image), "--max-pictures", "4"]
    assert main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert "consistency" in table[0] and len([line for line in table if line[:1].isdigit()]) == xy.shape[1]
    assert np.asarray(Image.open(image)).shape[0] > 2 * 500
    assert main(["report", found, "--picture", str(image)]) == 1
    assert "--images" in capsys.readouterr().err


def test_edit_takes_lines_and_files(tmp_path, capsys):
    path = tokens(tmp_path / "tokens.safetensors", 4)
    (tmp_path / "more.txt").write_text("drop 3\nskeleton 0-1\n")
    output = tmp_path / "edited.safetensors"
    arguments = ["edit", path, "rename 0 nose", str(tmp_path / "more.txt"), "reorder 2", "--output", str(output)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["0 kp2", "1 nose", "2 kp1"]
    edited = KeypointTokens.load(output)
    assert edited.names == ("kp2", "nose", "kp1") and edited.skeleton == ((1, 2),)
    assert KeypointTokens.load(path).num_keypoints == 4
    assert main(["edit", path, "paint it"]) == 1
    assert "'paint' is no edit" in capsys.readouterr().err


def test_export_writes_pairs_and_goes_on(files, capsys):
    folder, found, labels, _ = files
    landmarks, output = folder / "map.safetensors", folder / "dataset"
    main(["fit-landmarks", found, labels, str(landmarks)])
    (folder / "captions.json").write_text(json.dumps({"0": "the first"}))
    arguments = ["export-controlnet-dataset", str(folder), found, str(output), "--style", "openpose"]
    arguments += ["--size", "64", "--landmarks", str(landmarks), "--captions", str(folder / "captions.json")]
    arguments += ["--caption", "a doll", "--validation", "0.2", "--threshold", "0"]
    capsys.readouterr()
    assert main(arguments) == 0
    assert f"({COUNT} new, 0 already there)" in capsys.readouterr().out
    assert main(arguments) == 0
    assert f"(0 new, {COUNT} already there)" in capsys.readouterr().out
    rows = [
        json.loads(line)
        for split in ("train", "validation")
        for line in (output / split / "metadata.jsonl").read_text().splitlines()
    ]
    assert {row["source"]: row["text"] for row in rows}["0.png"] == "the first"
    assert sum(row["text"] == "a doll" for row in rows) == COUNT - 1
    assert main([*arguments, "--size", "128"]) == 1
    assert "other settings (size)" in capsys.readouterr().err


def test_images_that_are_gone_are_named(files, capsys):
    folder, found, _, _ = files
    (folder / "5.png").unlink()
    arguments = ["export-controlnet-dataset", str(folder), found, str(folder / "d"), "--style", "keypoints"]
    assert main([*arguments, "--size", "64"]) == 1
    assert "5.png is named by found.json" in capsys.readouterr().err


def test_edits_made_by_hand_are_applied(tmp_path, capsys):
    found, output = write(tmp_path / "found.json", joints(3), landmark_names("dolls")), tmp_path / "edited.json"
    point = {"left eye": {"x": 1.5, "y": 2.5, "state": "visible"}}
    edits = {"version": 1, "images": [{"image": "1.png", "size": [SIDE, SIDE], "points": point}]}
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    assert main(["edit-keypoints", found, str(tmp_path / "edits.json"), str(output), "--spread"]) == 0
    assert "1 points edited in 1 of 3 images" in capsys.readouterr().out
    assert Keypoints.load(output).xy[1, 0].tolist() == [1.5, 2.5]
    assert main(["edit-keypoints", found, str(tmp_path / "nothing.json"), str(output)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_retarget_writes_the_poses_of_another_body(tmp_path, capsys):
    names, bones = landmark_names("dolls"), landmark_skeleton("dolls")
    drive, target = (
        write(tmp_path / f"{name}.json", xy, names, skeleton=bones)
        for name, xy in (("drive", joints(3)), ("target", joints(5)[4:]))
    )
    output = tmp_path / "out.json"
    assert main(["retarget", drive, target, str(output), "--offset", "0.1", "0"]) == 0
    assert "3 figures, 15 points each" in capsys.readouterr().out
    wanted = retarget_pose(Keypoints.load(drive), Keypoints.load(target), offset=(0.1, 0.0))
    np.testing.assert_array_equal(Keypoints.load(output).xy, wanted.xy)
    assert main(["retarget", drive, target, str(output), "--skeleton", "neck-left shoulder, 3-5"]) == 0
    assert main(["retarget", drive, target, str(output), "--skeleton", "neck-tail"]) == 1
    assert "is no edge" in capsys.readouterr().err
