import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import WIDTH, write_images

from stablekp_core.cli import main
from stablekp_core.detection.detector import Detector
from stablekp_core.drawing import sheets
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.training import train as training

ROOT = Path(__file__).parents[2]
SMALL = "--tokens 12 --candidates 5 --keypoints 3 --steps 4 --batch-size 2 --map-size 16 --selection-images 2".split()
COMMANDS = ("train", "detect", "detect-dataset", "evaluate", "draw", "heatmaps", "info", "demo")


def run(*arguments) -> int:
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_folder):
    """A folder with images, and tokens that the command trained on them."""
    place = tmp_path_factory.mktemp("cli")
    write_images(place / "pictures", 4, (32, 24))
    (place / "pictures" / "notes.txt").write_text("stray")
    assert run("train", place / "pictures", place / "out" / "t.safetensors", "--model", model_folder, *SMALL) == 0
    return place


@pytest.fixture(scope="module")
def detected(place, model_folder):
    found = place / "found" / "keypoints.json"
    options = ("--tokens", place / "out" / "t.safetensors", "--model", model_folder, "--views", 1)
    assert run("detect", place / "pictures", *options, "--output", found, "--csv", place / "tables" / "k.csv") == 0
    return found


def said(capsys):
    out, err = capsys.readouterr()
    return out, err


def one_line(capsys, *words):
    """The error is one line that starts with the program and holds the words."""
    out, err = said(capsys)
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip() and "it/s" not in line]
    lines = [line for line in lines if not re.match(r"(training|detecting|skipped)", line)]
    assert len(lines) == 1 and lines[0].startswith("python -m stablekp_core "), err
    assert "Traceback" not in err and not out
    for word in words:
        assert word in lines[0], lines[0]


# What works


def test_train_writes_tokens_and_images(place):
    assert sorted(p.name for p in (place / "out").iterdir()) == ["t.safetensors", "t_keypoints.jpg", "t_loss.png"]
    tokens = KeypointTokens.load(place / "out" / "t.safetensors")
    assert (len(tokens.embeddings), tokens.width, tokens.num_keypoints) == (12, WIDTH, 3)
    assert (tokens.config["steps"], tokens.config["map_size"], tokens.model_name) == (4, 16, "tiny")
    assert len(tokens.losses) == 4
    with Image.open(place / "out" / "t_keypoints.jpg") as sheet, Image.open(place / "out" / "t_loss.png") as loss:
        assert min(*sheet.size, *loss.size) > 100


def test_detect_writes_coco_and_a_table(place, detected):
    found = Keypoints.load(detected)
    assert found.images == tuple(f"image{i}.png" for i in range(4))
    assert found.xy.shape == (4, 3, 2) and found.sizes.tolist() == [[32, 24]] * 4
    assert (found.xy >= 0).all() and (found.xy <= (32, 24)).all()
    coco = json.loads(detected.read_text())
    assert [len(coco[key]) for key in ("images", "annotations", "categories")] == [4, 4, 1]
    table = (place / "tables" / "k.csv").read_text().splitlines()
    assert table[0].startswith("image,row,width") and len(table) == 1 + 4 * 3


def test_detect_some_files(place, model_folder, tmp_path, detected, capsys):
    options = ("--tokens", place / "out" / "t.safetensors", "--model", model_folder, "--views", 1)
    files = [place / "pictures" / f"image{i}.png" for i in (2, 0)]
    assert run("detect", *files, *options, "--output", tmp_path / "k.json") == 0
    some, whole = Keypoints.load(tmp_path / "k.json"), Keypoints.load(detected)
    assert some.images == ("image2.png", "image0.png")
    np.testing.assert_allclose(some.xy, whole.xy[[2, 0]], atol=1e-2)
    assert "2 images, 3 keypoints each" in said(capsys)[0]
    write_images(tmp_path / "more", 2, seed=5)
    (tmp_path / "more" / "image1.png").rename(tmp_path / "more" / "else.png")
    (tmp_path / "more" / "image0.png").unlink()
    assert run("detect", tmp_path / "more", files[0], *options, "--output", tmp_path / "k.json") == 0
    assert Keypoints.load(tmp_path / "k.json").images == ("else.png", "image2.png")
    said(capsys)
    assert run("detect", place / "pictures", files[0], *options, "--output", tmp_path / "k.json") == 1
    one_line(capsys, "image2.png was given 2 times", "give each image once")


def test_draw(place, detected, tmp_path, capsys):
    assert run("draw", place / "pictures", detected, tmp_path / "drawn") == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == [f"image{i}.png" for i in range(4)]
    original, drawn = (np.asarray(Image.open(f / "image1.png")) for f in (place / "pictures", tmp_path / "drawn"))
    assert drawn.shape == original.shape and (drawn != original).any()
    assert "4 images" in said(capsys)[0]
    before = [p.read_bytes() for p in sorted((place / "pictures").iterdir())]
    assert run("draw", place / "pictures", detected, place / "pictures") == 1
    one_line(capsys, "holds the images themselves", "another folder")
    assert [p.read_bytes() for p in sorted((place / "pictures").iterdir())] == before
    assert run("draw", place / "pictures", detected, tmp_path / "black", "--canvas", "black", "--no-dots") == 0
    bare = np.asarray(Image.open(tmp_path / "black" / "image1.png"))
    assert (bare == 0).mean() > 0.5
    assert run("draw", place / "pictures", detected, tmp_path / "sheet", "--sheet", "--which", 0, 2) == 0
    assert [p.name for p in (tmp_path / "sheet").iterdir()] == ["sheet.jpg"]


def test_draw_marks_hidden_points_on_images(place, tmp_path):
    name = "image1.png"
    side = Image.open(place / "pictures" / name).size
    found = Keypoints(np.array([[[10.0, 10.0]]]), np.ones((1, 1)), np.array([side]), images=(name,))
    for occluded in (0.0, 0.9):
        (tmp_path / "k.json").write_text(replace(found, occluded=np.array([[occluded]])).to_json())
        for canvas in ("image", "black"):
            out = tmp_path / f"{canvas}{occluded}"
            assert run("draw", place / "pictures", tmp_path / "k.json", out, "--canvas", canvas) == 0
    for canvas, marked in (("image", True), ("black", False)):
        plain, other = ((tmp_path / f"{canvas}{h}" / name).read_bytes() for h in (0.0, 0.9))
        assert (plain != other) == marked


def write_keypoints(path, images, rows_of_image=None):
    """One keypoint per row, the k-th at (5 + 4k, 8)."""
    n = len(images)
    xy = np.stack([np.array([[5.0 + 4 * i, 8.0]]) for i in range(n)])
    index = np.arange(n) if rows_of_image is None else np.array(rows_of_image)
    found = Keypoints(xy, np.ones((n, 1)), np.full((n, 2), 32), ("a",), (), tuple(images), image_index=index)
    path.write_text(found.to_json())


def drawn_at(path):
    """Columns of a drawing on black where there is something."""
    return np.flatnonzero((np.asarray(Image.open(path)).max(2) > 60).any(0))


def test_draw_leaves_broken_images_out_and_keeps_the_others_in_step(tmp_path, capsys):
    write_images(tmp_path / "p", 3, (32, 32))
    file = tmp_path / "p" / "image1.png"
    file.write_bytes(file.read_bytes()[:-60])
    write_keypoints(tmp_path / "k.json", [f"image{i}.png" for i in range(3)])
    options = ("--canvas", "black", "--no-numbers")
    assert run("draw", tmp_path / "p", tmp_path / "k.json", tmp_path / "o", *options) == 0
    out, err = said(capsys)
    assert "2 images" in out and "skipped image1.png" in err
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["image0.png", "image2.png"]
    assert abs(drawn_at(tmp_path / "o" / "image0.png").mean() + 0.5 - 5) < 1
    assert abs(drawn_at(tmp_path / "o" / "image2.png").mean() + 0.5 - 13) < 1
    assert run("draw", tmp_path / "p", tmp_path / "k.json", tmp_path / "s", "--sheet") == 0
    said(capsys)
    for name in ("image0.png", "image2.png"):
        (tmp_path / "p" / name).write_bytes(file.read_bytes())
    assert run("draw", tmp_path / "p", tmp_path / "k.json", tmp_path / "o", *options) == 1
    one_line(capsys, "None of the images can be read")


def test_draw_keeps_images_of_the_same_stem_apart_and_instances_together(tmp_path):
    write_images(tmp_path / "p", 1, (32, 32))
    Image.open(tmp_path / "p" / "image0.png").save(tmp_path / "p" / "image0.bmp")
    write_keypoints(tmp_path / "k.json", ["image0.png", "image0.bmp"])
    options = ("--canvas", "black", "--no-numbers")
    assert run("draw", tmp_path / "p", tmp_path / "k.json", tmp_path / "o", *options) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["image0.bmp.png", "image0.png.png"]
    write_keypoints(tmp_path / "k.json", ["image0.png"] * 3, [0, 0, 0])
    assert run("draw", tmp_path / "p", tmp_path / "k.json", tmp_path / "two", *options) == 0
    columns = drawn_at(tmp_path / "two" / "image0.png")
    assert all(np.abs(columns + 0.5 - x).min() < 1 for x in (5, 9, 13)) and columns.max() < 18


def test_heatmaps_and_info(place, model_folder, tmp_path, capsys):
    image, tokens = place / "pictures" / "image0.png", place / "out" / "t.safetensors"
    options = ("--tokens", tokens, "--model", model_folder, "--views", 1)
    assert run("heatmaps", image, *options, "--output", tmp_path / "deep" / "heat.png") == 0
    assert run("heatmaps", image, *options, "--output", tmp_path / "one.png", "--which", 1) == 0
    whole, one = (Image.open(tmp_path / name).size for name in ("deep/heat.png", "one.png"))
    assert whole[0] * whole[1] > 1.5 * one[0] * one[1]
    said(capsys)
    assert run("heatmaps", image, *options, "--output", tmp_path / "heat") == 1
    one_line(capsys, "heat", ".png")
    assert run("heatmaps", image, *options, "--which", 3) == 1
    one_line(capsys, "3", "counted from 0")
    assert run("info", tokens) == 0
    text = said(capsys)[0]
    assert "tokens: 12 of width 16, 3 chosen" in text and "model: tiny" in text and '"map_size": 16' in text
    assert run("info", model_folder) == 0
    text = said(capsys)[0]
    assert "model: tiny" in text and f"token width: {WIDTH}" in text and "torch.float32" in text
    assert KeypointTokens.load(tokens).model_hash in text


def test_heatmaps_of_a_padded_image_lie_on_the_image(place, model_folder, tmp_path, monkeypatch):
    tokens = KeypointTokens.load(place / "out" / "t.safetensors")
    padded = KeypointTokens(tokens.embeddings, tokens.chosen, config={**tokens.config, "resize": "pad"})
    padded.save(tmp_path / "pad.safetensors")
    seen = []
    monkeypatch.setattr(sheets, "heat_maps", lambda image, maps, *a, **k: seen.append(maps) or image)
    Image.new("RGB", (64, 16), (255, 0, 0)).save(tmp_path / "wide.png")
    real = Detector.maps
    bar = torch.zeros(1, 3, 16, 16)
    bar[:, :, :5] = 1  # all of it in the upper bar
    monkeypatch.setattr(Detector, "maps", lambda self, squares: (bar, *real(self, squares)[1:]))
    options = ("--tokens", tmp_path / "pad.safetensors", "--model", model_folder, "--output", tmp_path / "h.png")
    assert run("heatmaps", tmp_path / "wide.png", *options) == 0
    assert seen[0].shape == (3, 16, 16) and seen[0].max() < 1e-6


def test_flags_lie_over_the_preset(place, model_folder, tmp_path):
    options = ("--model", model_folder, *SMALL, "--preset", "reference", "--scale", 0.7, 0.9, "--coverage-mask")
    assert run("train", place / "pictures", tmp_path / "t.safetensors", *options, "--steps", 0, "--limit", 2) == 0
    config = KeypointTokens.load(tmp_path / "t.safetensors").config
    assert (config["border"], config["selection"]) == ("penalized", "votes")  # of the preset
    assert (config["scale"], config["coverage_mask"], config["steps"]) == ([0.7, 0.9], True, 0)
    assert not (tmp_path / "t_loss.png").exists()  # nothing was lost yet


def test_train_from_tokens(place, model_folder, tmp_path, capsys):
    start = place / "out" / "t.safetensors"
    options = ("--model", model_folder, *SMALL, "--steps", 0)
    assert run("train", place / "pictures", tmp_path / "t.safetensors", *options, "--from", start) == 0
    assert torch.equal(
        KeypointTokens.load(tmp_path / "t.safetensors").embeddings, KeypointTokens.load(start).embeddings
    )
    said(capsys)
    assert run("train", place / "pictures", tmp_path / "u.safetensors", *options, "--tokens", 20, "--from", start) == 1
    one_line(capsys, "hold 12 tokens, but 20 were asked for")


def test_interrupt_saves_and_resume_goes_on(place, model_folder, tmp_path, monkeypatch, capsys):
    path, real = tmp_path / "t.safetensors", training.train
    command = ("train", place / "pictures", path, "--model", model_folder, *SMALL)

    def interrupted(*args, on_step, **options):
        def stop(info):
            on_step(info)
            if info.step == 2:
                raise KeyboardInterrupt

        return real(*args, on_step=stop, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted)
        assert run(*command) == 130
        out, err = said(capsys)
        assert "Go on with --resume" in err and "Traceback" not in err
        assert [p.name for p in tmp_path.iterdir()] == ["t.checkpoint"]
    assert run(*command) == 1  # and not from the beginning, over what was learned
    one_line(capsys, "holds an interrupted run", "--resume")
    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(
            training,
            "train",
            lambda *a, on_step, **k: real(*a, on_step=lambda i: steps.append(i.step) or on_step(i), **k),
        )
        assert run(*command, "--resume") == 0
    assert steps == [3, 4]
    assert not (tmp_path / "t.checkpoint").exists()
    whole = KeypointTokens.load(place / "out" / "t.safetensors")
    assert torch.equal(KeypointTokens.load(path).embeddings, whole.embeddings)
    assert KeypointTokens.load(path).chosen == whole.chosen


def test_diverged_training_keeps_the_last_good_tokens(place, model_folder, tmp_path, monkeypatch, capsys):
    from stablekp_core.training import trainer

    step, calls = trainer.training_step, []

    def poisoned(*args):
        calls.append(1)
        out = step(*args)
        return trainer.StepOutput(
            out.maps,
            out.view_maps,
            out.chosen,
            out.localization,
            out.equivariance,
            out.total * (float("nan") if len(calls) == 3 else 1),
        )

    monkeypatch.setattr(trainer, "training_step", poisoned)
    path = tmp_path / "t.safetensors"
    assert run("train", place / "pictures", path, "--model", model_folder, *SMALL) == 1
    one_line(capsys, "not a finite number at step 3", "last good tokens were kept")
    assert len(KeypointTokens.load(path).losses) == 2


# What does not


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        assert run(command, "--help") == 0
        assert len(said(capsys)[0]) > 150
    assert run("--help") == 0
    text = said(capsys)[0]
    assert all(command in text for command in COMMANDS)
    run("train", "--help")
    text = " ".join(said(capsys)[0].split())
    assert "--learning-rate X Adam, no schedule (0.005)" in text and "--scale LOW HIGH" in text
    assert "{auto,squash,pad}" in text and "--no-coverage-mask" in text and "(auto)" in text


def test_the_command_line_starts_without_torch():
    code = (
        "import sys; from stablekp_core.cli import program; program.build_parser();"
        "print([m for m in ('torch', 'diffusers', 'cv2', 'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train"],
        ["train", "pictures"],
        ["detect", "pictures"],
        ["train", "p", "t.safetensors", "--steps", "many"],
        ["train", "p", "t.safetensors", "--resize", "stretch"],
        ["train", "p", "t.safetensors", "--preset", "mine"],
        ["train", "p", "t.safetensors", "--scale", "0.5"],
        ["train", "p", "t.safetensors", "--dtype", "fp8"],
        ["draw", "p", "k.json", "o", "--canvas", "pink"],
        ["detect", "p", "--tokens", "t", "--wings"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert run(*arguments) == 2
    assert "usage:" in said(capsys)[1]


def test_settings_out_of_range(place, tmp_path, capsys):
    for flags, words in (
        (["--steps", -1], "steps is -1, but it must be a whole number from 0"),
        (["--keypoints", 30, "--candidates", 5], "it takes keypoints <= candidates <= tokens"),
        (["--scale", 2, 1], "scale is (2.0, 1.0)"),
    ):
        assert run("train", place / "pictures", tmp_path / "t.safetensors", *flags) == 1
        one_line(capsys, words)
    assert run("train", place / "pictures", tmp_path / "t.pt") == 1
    one_line(capsys, "t.pt is not a .safetensors name")
    tokens = place / "out" / "t.safetensors"
    assert run("detect", place / "pictures", "--tokens", tokens, "--views", 0, "--no-identity") == 1
    one_line(capsys, "leave no map to average")
    assert list(tmp_path.iterdir()) == []


def test_bad_image_folders(model_folder, tmp_path, capsys):
    command = (tmp_path / "t.safetensors", "--model", model_folder, *SMALL)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    write_images(tmp_path / "small", 1, (15, 40))
    write_images(tmp_path / "broken", 1)
    (tmp_path / "broken" / "image0.png").write_bytes(b"no image")
    for folder, words in (
        ("absent", ["absent does not exist, but a folder of images is needed"]),
        ("texts/a.txt", ["is a file, but a folder"]),
        ("empty", ["empty has no images", "jpg"]),
        ("texts", ["texts has no images"]),
        ("small", ["image0.png is 15x40 pixels", "at least 16"]),
        ("broken", ["0 readable images found", "image0.png"]),
    ):
        assert run("train", tmp_path / folder, *command) == 1
        one_line(capsys, *words)
    write_images(tmp_path / "late", 1)
    file = tmp_path / "late" / "image0.png"
    file.write_bytes(file.read_bytes()[:-60])  # its header is fine
    assert run("train", tmp_path / "late", *command) == 1
    one_line(capsys, "image0.png", "no image of the set can be read")
    assert run("detect", tmp_path / "absent.png", "--tokens", "no.safetensors") == 1
    one_line(capsys, "no.safetensors does not exist")


def test_stray_and_broken_images_are_skipped_and_named(place, model_folder, tmp_path, capsys):
    write_images(tmp_path / "p", 3)
    (tmp_path / "p" / "notes.txt").write_text("stray")
    (tmp_path / "p" / "image0.png").write_bytes(b"no image")
    file = tmp_path / "p" / "image1.png"
    file.write_bytes(file.read_bytes()[:-60])
    options = ("--tokens", place / "out" / "t.safetensors", "--model", model_folder, "--views", 0)
    assert run("detect", tmp_path / "p", *options, "--output", tmp_path / "k.json") == 0
    err = said(capsys)[1]
    assert all(f"skipped {name}" in err for name in ("notes.txt", "image0.png", "image1.png"))
    assert Keypoints.load(tmp_path / "k.json").images == ("image2.png",)
    assert run("train", tmp_path / "p", tmp_path / "t.safetensors", "--model", model_folder, *SMALL) == 0
    assert said(capsys)[1].count("skipped image1.png") == 1


def test_bad_models(place, model_folder, tmp_path, capsys):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for model, words in (
        ("model.ckpt", ["is a pickle file", "safetensors"]),
        ("folder", ["has no unet/ folder"]),
        ("cut.safetensors", ["cut.safetensors"]),
        ("absent.safetensors", ["There is no file or folder"]),
    ):
        assert run("train", place / "pictures", tmp_path / "t.safetensors", "--model", tmp_path / model) == 1
        one_line(capsys, *words)
    command = ("train", place / "pictures", tmp_path / "t.safetensors", "--model", model_folder, *SMALL)
    assert run(*command, "--image-size", 18) == 1
    one_line(capsys, "image_size is 18, but tiny needs a multiple of 4")
    assert run(*command, "--device", "toaster") == 1
    one_line(capsys, "'toaster' cannot be used here")


def test_bad_tokens(place, model_folder, tmp_path, capsys):
    good = KeypointTokens.load(place / "out" / "t.safetensors")
    (tmp_path / "t.pt").write_bytes(b"x")
    (tmp_path / "cut.safetensors").write_bytes((place / "out" / "t.safetensors").read_bytes()[:200])
    KeypointTokens(torch.zeros(5, WIDTH + 1), (0, 1)).save(tmp_path / "wide.safetensors")
    for name, words in (
        ("t.pt", ["is a pickle file"]),
        ("cut.safetensors", ["not a complete safetensors file"]),
        ("wide.safetensors", ["17 wide but the model takes 16"]),
    ):
        assert run("detect", place / "pictures", "--tokens", tmp_path / name, "--model", model_folder) == 1
        one_line(capsys, *words)
    KeypointTokens(good.embeddings, good.chosen, config=good.config, model_hash="f" * 64, model_name="else").save(
        tmp_path / "other.safetensors"
    )
    options = ("--model", model_folder, "--views", 0, "--output", tmp_path / "k.json")
    with pytest.warns(UserWarning, match="trained with other weights"):
        assert run("detect", place / "pictures", "--tokens", tmp_path / "other.safetensors", *options) == 0


def test_bad_files_to_draw(place, detected, tmp_path, capsys):
    assert run("draw", tmp_path, detected, tmp_path / "o") == 1
    one_line(capsys, "image0.png is named by keypoints.json but is not there")
    (tmp_path / "k.json").write_text("{")
    assert run("draw", place / "pictures", tmp_path / "k.json", tmp_path / "o") == 1
    one_line(capsys, "k.json")
    assert run("draw", place / "pictures", detected, tmp_path / "o", "--which", 9) == 1
    one_line(capsys, "9")
    assert run("info", tmp_path / "k.json") == 1
    one_line(capsys, "k.json")


def test_debug_shows_where_it_failed(tmp_path):
    from stablekp_core.errors import KeypointError

    for arguments in (["--debug", "info", "absent"], ["info", "absent", "--debug"]):
        with pytest.raises(KeypointError, match="There is no file or folder absent"):
            main(arguments)
    command = [sys.executable, "-m", "stablekp_core", "info", "absent"]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert plain.returncode == 1 and "Traceback" not in plain.stderr
    assert len(plain.stderr.strip().splitlines()) == 1
