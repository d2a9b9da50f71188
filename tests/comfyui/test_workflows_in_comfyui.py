"""Every example workflow, run through ComfyUI's HTTP API with small random-weight models."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_graph import FRONTEND_ONLY, inputs_of, to_api
from PIL import Image

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.fitting import fit_landmark_map
from stablekp_core.pose.formats import joint_name
from stablekp_core.synthetic.figures import landmark_names
from stablekp_core.synthetic.generator import render

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "example_workflows").glob("*.json"))
#: What the files name that only a user's own installation has, and sizes that one core can wait for.
SMALLER = {
    "StableKPLoadBackbone": {"model": "random_sd15.safetensors"},
    "StableKPTrain": {
        "steps": 3,
        "tokens": 40,
        "batch_size": 2,
        "keypoints": 5,
        "candidates": 10,
        "image_size": 64,
        "map_size": 32,
    },
    "StableKPDetect": {"views": 1},
    "CheckpointLoaderSimple": {"ckpt_name": "random_sd15.safetensors"},
    "ControlNetLoader": {"control_net_name": "random_control.safetensors"},
    "KSampler": {"steps": 2},
    "EmptyLatentImage": {"width": 128, "height": 128},
    "EmptySD3LatentImage": {"width": 128, "height": 128},
}
#: Loaders of a model for which there are no small random weights: what depends on one is not run.
LARGE = {"UNETLoader", "CLIPLoader", "VAELoader", "ModelPatchLoader"}
MADE = {"my_images": 8, "my_frames": 8}


@pytest.fixture(scope="module")
def prepared(server):
    """The folders, the picture and the tokens that the workflows expect."""
    for folder, count in MADE.items():
        path = server.base / "input" / folder
        path.mkdir()
        for number in range(count):
            Image.fromarray(render("dolls", number, 128).image).save(path / f"frame{number + 1}.png")
    Image.fromarray(render("dolls", 99, 160).image[:, 20:140]).save(server.base / "input" / "example.png")
    write_labels(server.base / "input" / "my_labels.json")
    # Templates with a checkpoint do not ask how good the tokens are.
    settings = SMALLER["StableKPTrain"]
    embeddings = torch.randn(settings["tokens"], 768, generator=torch.Generator().manual_seed(0))
    config = {key: value for key, value in settings.items() if key != "batch_size"}
    tokens = KeypointTokens(embeddings, tuple(range(settings["keypoints"])), config=config)
    tokens.save(server.base / "models" / "keypoint_tokens" / "my_keypoints.safetensors")
    labels = Keypoints.load(server.base / "input" / "my_labels.json")
    xy = np.random.default_rng(0).uniform(0, 128, (len(labels), settings["keypoints"], 2))
    found = Keypoints(xy, np.ones(xy.shape[:2]), labels.sizes, images=labels.images)
    fit_landmark_map(found, labels).save(server.base / "models" / "keypoint_landmarks" / "people.safetensors")
    return server


def write_labels(path: Path) -> None:
    """Joints of the dolls in my_images, as a labelling tool would write them."""
    count = MADE["my_images"]
    xy = np.stack([render("dolls", number, 128).joints for number in range(count)])
    images = tuple(f"frame{number + 1}.png" for number in range(count))
    sizes = np.full((count, 2), 128)
    labels = Keypoints(xy, np.ones(xy.shape[:2]), sizes, landmark_names("dolls"), images=images)
    path.write_text(labels.to_json(), encoding="utf-8")


def labels_by_hand() -> str:
    """The same joints, as someone would have placed them in the editor."""
    images = []
    for number in range(MADE["my_images"]):
        places = zip(landmark_names("dolls"), render("dolls", number, 128).joints.tolist(), strict=True)
        points = {joint_name(name): {"x": x, "y": y, "state": "visible"} for name, (x, y) in places}
        images.append({"image": f"frame{number + 1}.png", "size": [128, 128], "points": points})
    return json.dumps({"version": 1, "images": images})


def without_large_models(prompt: dict) -> dict:
    """The prompt without the nodes that load a large model, and without those that need what they give."""
    gone = {number for number, node in prompt.items() if node["class_type"] in LARGE}
    while True:
        more = {
            number
            for number, node in prompt.items()
            if number not in gone and any(isinstance(v, list) and v[0] in gone for v in node["inputs"].values())
        }
        if not more:
            return {number: node for number, node in prompt.items() if number not in gone}
        gone |= more


def known(path: Path, object_info: dict) -> dict:
    """The template; its test is skipped where this version of ComfyUI does not have all its nodes."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    lacking = {node["type"] for node in workflow["nodes"]} - {*object_info, *FRONTEND_ONLY}
    assert not [kind for kind in lacking if kind.startswith("StableKP")]
    if lacking:
        pytest.skip(f"this version of ComfyUI does not have {', '.join(sorted(lacking))}")
    return workflow


def smaller(prompt: dict) -> dict:
    """The prompt with models that are here, and sizes that one core can wait for."""
    ready = any(str(node["inputs"].get("tokens_file")).startswith("built in") for node in prompt.values())
    for node in prompt.values():
        if node["class_type"] == "StableKPLabelJoints":
            node["inputs"]["labels"] = labels_by_hand()
        if ready and node["class_type"] == "StableKPLoadBackbone":
            continue  # these tokens are of the demo model
        node["inputs"].update(
            {
                name: value
                for name, value in SMALLER.get(node["class_type"], {}).items()
                if not isinstance(node["inputs"].get(name), list)
            }
        )
        if node["class_type"] == "StableKPLoadImageSet" and node["inputs"]["folder"] not in MADE:
            node["inputs"]["max_images"] = 6
        if node["class_type"] == "StableKPDraw" and node["inputs"]["out_width"]:
            node["inputs"].update(out_width=128, out_height=128)
    return prompt


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflow_runs_and_shows_something(prepared, object_info, path, stopwatch):
    prompt = without_large_models(smaller(to_api(known(path, object_info), object_info)))
    start = prepared.processor_seconds()
    heard = prepared.hear(prompt, 1800)
    stopwatch(path.stem, prepared.processor_seconds() - start)
    entry = heard.entry
    shown = 0
    for number, output in entry["outputs"].items():
        for image in output.get("images", []):
            if image["filename"].endswith((".mp4", ".webm")):
                assert len(prepared.images(entry, number)[0]) > 1000
            shown += 1
    outputs = [n for n, node in prompt.items() if object_info[node["class_type"]].get("output_node")]
    # Long text is shown on the node and not kept in the history.
    assert set(outputs) <= set(entry["outputs"]) | set(heard.texts), "an output node gave nothing"
    assert len(json.dumps(entry["outputs"])) < 100_000
    assert shown >= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflow_matches_this_versions_nodes(object_info, path):
    prompt = to_api(known(path, object_info), object_info)
    for node in prompt.values():
        info = object_info[node["class_type"]]
        missing = set(info["input"].get("required", {})) - set(node["inputs"])
        assert not missing, (node["class_type"], missing)
        # `choice.input` belongs to the choice of a list that brings inputs of its own.
        assert {name.split(".")[0] for name in node["inputs"]} <= set(inputs_of(info)), node["class_type"]


def test_the_templates_are_offered_with_their_images(server):
    offered = server.get("/workflow_templates")["stable-keypoints"]
    assert sorted(offered) == [path.stem for path in FILES]
    for path in FILES:
        name = path.stem.replace(" ", "%20")
        assert server.get(f"/api/workflow_templates/stable-keypoints/{name}.jpg", raw=True)[:2] == b"\xff\xd8"


@pytest.mark.skipif(not (ROOT / "stablekp_core/assets/tiny_sd/unet").is_dir(), reason="the demo model is not here yet")
def test_try_it_now_with_the_demo_model_as_it_is(server, object_info, stopwatch):
    path = next(path for path in FILES if path.stem.startswith("1 "))
    prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
    start = server.processor_seconds()
    entry = server.run(prompt, 3600)
    stopwatch(f"{path.stem}, with the demo model as it is", server.processor_seconds() - start)
    drawn = next(n for n, node in prompt.items() if node["class_type"] == "StableKPDraw")
    shown = next(
        n
        for n, node in prompt.items()
        if node["class_type"] == "PreviewImage" and node["inputs"]["images"] == [drawn, 0]
    )
    assert len(server.images(entry, shown)) == 12
    if os.environ.get("COMFYUI_KEEP"):
        keep = Path(os.environ["COMFYUI_KEEP"])
        for number, data in enumerate(server.images(entry, shown)):
            (keep / f"try_{number}.png").write_bytes(data)


def test_the_same_training_on_the_command_line_gives_the_same_tokens(prepared, tmp_path):
    """In ComfyUI and by the command line: same pictures, settings and seed, same tokens."""
    settings = {**SMALLER["StableKPTrain"], "learning_rate": 0.01, "seed": 11}
    prompt = {
        "1": {"class_type": "StableKPLoadBackbone", "inputs": {"model": "random_sd15.safetensors"}},
        "2": {
            "class_type": "StableKPLoadImageSet",
            "inputs": {"folder": "my_images", "max_images": 8, "order": "by name"},
        },
        "3": {
            "class_type": "StableKPTrain",
            "inputs": {"backbone": ["1", 0], "images": ["2", 0], **settings},
        },
        "4": {"class_type": "StableKPSaveTokens", "inputs": {"tokens": ["3", 0], "name": "compare"}},
    }
    text = prepared.run(prompt)["outputs"]["4"]["text"][0]
    here = KeypointTokens.load(text.removeprefix("saved "))
    arguments = [item for name, value in settings.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    subprocess.run(
        [
            prepared.python,
            "-m",
            "stablekp_core",
            "train",
            str(prepared.base / "input" / "my_images"),
            str(tmp_path / "cli.safetensors"),
            "--device",
            "cpu",
            "--model",
            str(prepared.base / "models" / "checkpoints" / "random_sd15.safetensors"),
            *arguments,
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    there = KeypointTokens.load(tmp_path / "cli.safetensors")
    assert here.config == there.config and here.chosen == there.chosen and here.model_hash == there.model_hash
    np.testing.assert_array_equal(here.embeddings, there.embeddings)
