"""fit-guidance and generate, from images to images."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_models import CONFIG, write_images, write_text_encoder

from stablekp_core.cli import main
from stablekp_core.guidance.readers import KeypointGuidance
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_folder):
    """A folder with images, tokens, guidance fitted for them, and a pose of two images."""
    folder = tmp_path_factory.mktemp("guidance")
    write_images(folder / "images", 8)
    write_text_encoder(folder, 16)
    small = {"keypoints", "tokens", "candidates", "steps", "batch_size", "map_size", "selection_images"}
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in CONFIG.to_dict().items() if k in small]
    model = ["--model", str(model_folder), "--device", "cpu"]
    assert main(["train", str(folder / "images"), str(folder / "t.safetensors"), *flags, *model]) == 0
    tokens = ["--tokens", str(folder / "t.safetensors")]
    files = sorted((folder / "images").iterdir())[:2]
    pose = ["--output", str(folder / "pose.json"), "--views", "0"]
    assert main(["detect", *map(str, files), *tokens, *pose, *model]) == 0
    assert main(["fit-guidance", str(folder / "images"), str(folder / "g"), *tokens, *model]) == 0
    return folder


def generate(made, model_folder, *more: str) -> int:
    out = ["generate", str(made / "out"), "--prompt", "a cat", "--steps", "3", "--text", str(made)]
    return main([*out, "--model", str(model_folder), "--device", "cpu", *more])


def given(made, pose="pose.json", guidance="g.guidance.safetensors") -> list[str]:
    return ["--pose", str(made / pose), "--guidance", str(made / guidance)]


def test_the_guidance_file_belongs_to_its_tokens(made):
    guidance = KeypointGuidance.load(made / "g.guidance.safetensors")
    tokens = KeypointTokens.load(made / "t.safetensors")
    guidance.check_tokens(tokens.digest)
    assert guidance.num_keypoints == tokens.num_keypoints == 3 and len(guidance.timesteps) == 10
    assert guidance.names == tokens.names and all(error > 0 for error in guidance.errors)


def test_images_of_every_pose_and_their_error_come_out(made, model_folder, capsys):
    tokens = ["--tokens", str(made / "t.safetensors")]
    assert generate(made, model_folder, *given(made), *tokens, "--count", "2", "--points", "0, 1") == 0
    said = capsys.readouterr().out
    assert "4 images" in said and "mean distance" in said and "image 3:" in said
    images = [np.asarray(Image.open(made / "out" / f"0000{i}.png")) for i in range(4)]
    assert all(image.shape == (16, 16, 3) for image in images)
    assert len(Keypoints.load(made / "out" / "keypoints.json")) == 4 and (made / "out" / "sheet.jpg").is_file()


def test_without_a_pose_nothing_steers(made, model_folder, capsys):
    assert generate(made, model_folder, "--count", "2") == 0
    assert "2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--pose", "pose.json"], "A pose needs guidance"),
        (["--pose", "pose.json", "--guidance", "t.safetensors"], "t.safetensors is not a guidance file"),
        (["--pose", "pose.json", "--guidance", "g.guidance.safetensors", "--strength", "-1"], "strength is -1.0"),
        (["--pose", "pose.json", "--guidance", "g.guidance.safetensors", "--points", "9"], "there is no keypoint '9'"),
        (["--pose", "nothing.json", "--guidance", "g.guidance.safetensors"], "nothing.json"),
    ],
)
def test_one_sentence_for_what_is_wrong(made, model_folder, capsys, more, words):
    files = [str(made / word) if word.endswith((".json", ".safetensors")) else word for word in more]
    assert generate(made, model_folder, *files) == 1
    assert words in capsys.readouterr().err


def changed_pose(made, **changes) -> str:
    """The pose's file after a change, as the name of a file beside it."""
    pose = Keypoints.load(made / "pose.json")
    pose = changes.pop("of", lambda pose: pose)(pose)
    (made / "changed.json").write_text(dataclasses.replace(pose, **changes).to_json())
    return "changed.json"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(of=lambda pose: pose.select([0, 1])), "the pose has 2 keypoints but the guidance reads 3"),
        (dict(of=lambda pose: pose.rows([])), "keypoints"),
        (dict(confidence=np.zeros((2, 3))), "leaves every keypoint free"),
    ],
)
def test_poses_that_do_not_fit_are_told_in_a_sentence(made, model_folder, capsys, changes, words):
    assert generate(made, model_folder, *given(made, changed_pose(made, **changes))) == 1
    said = capsys.readouterr().err.strip()
    assert words in said and said.count("\n") == 0


def test_models_it_was_not_made_for_are_refused_by_name(made, model_folder, tmp_path, capsys):
    guidance = KeypointGuidance.load(made / "g.guidance.safetensors")
    dataclasses.replace(guidance, model_hash="f" * 64, model_name="sd15-other").save(made / "of_other")
    assert generate(made, model_folder, *given(made, guidance="of_other.guidance.safetensors")) == 1
    assert "this guidance was fitted to sd15-other (ffffffffffff), but the model in use is" in capsys.readouterr().err
    shutil.copytree(model_folder, tmp_path / "xl")
    config = tmp_path / "xl" / "unet" / "config.json"
    sdxl = {"cross_attention_dim": 2048, "addition_embed_type": "text_time"}
    config.write_text(json.dumps(json.loads(config.read_text()) | sdxl))
    files = ["--tokens", str(made / "t.safetensors"), "--model", str(tmp_path / "xl"), "--device", "cpu"]
    for command in (["fit-guidance", str(made / "images"), str(tmp_path / "g")], ["generate", str(tmp_path / "out")]):
        more = ["--prompt", "a cat", *given(made)] if command[0] == "generate" else []
        assert main([*command, *more, *files]) == 1
        said = capsys.readouterr().err.strip()
        assert "an SDXL model" in said and said.count("\n") == 0


def test_tokens_of_others_are_refused_before_anything_is_generated(made, model_folder, capsys):
    other = KeypointTokens.load(made / "t.safetensors").drop([2]).save(made / "other.safetensors")
    assert generate(made, model_folder, *given(made), "--tokens", str(other)) == 1
    assert "other tokens" in capsys.readouterr().err
