"""POSE_KEYPOINT in the hands of others, in a real ComfyUI: its own pose drawing, and comfyui_controlnet_aux. Keypoints
are those of the built-in model and its tokens.

The second needs AUX_DIR, a checkout of comfyui_controlnet_aux; AUX_PYTHONPATH may add folders with what that
needs.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from comfy_server import ComfyServer, NodeError
from PIL import Image

from stablekp_core.drawing.hints import draw_openpose
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.fitting import LandmarkMap
from stablekp_core.pose.writing import read_pose
from stablekp_core.synthetic.figures import landmark_names
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 128, 8
TABLE = "nose=0, neck=1, right shoulder=2, left shoulder=3, right hip=4, left knee=5"
AUX = os.environ.get("AUX_DIR")


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture(scope="module")
def aux_server(tmp_path_factory):
    """A second ComfyUI, with comfyui_controlnet_aux beside this pack where AUX_DIR names it."""
    base = tmp_path_factory.mktemp("comfyui_poses")
    (base / "custom_nodes").mkdir(parents=True)
    if AUX:
        (base / "custom_nodes" / "comfyui_controlnet_aux").symlink_to(AUX, target_is_directory=True)
    running = ComfyServer(
        Path(os.environ["COMFYUI_DIR"]).expanduser(),
        os.environ.get("COMFYUI_PYTHON", sys.executable),
        base,
        {"PYTHONPATH": os.environ.get("AUX_PYTHONPATH", "")},
    )
    try:
        running.wait_until_ready()
        prepare(running)
        yield running
    finally:
        running.close()


def prepare(server) -> None:
    """Images of dolls with a label file, in the folders of the server."""
    folder = server.base / "input" / "dolls"
    folder.mkdir()
    samples = [render("dolls", seed, SIDE) for seed in range(COUNT)]
    for number, sample in enumerate(samples):
        Image.fromarray(sample.image).save(folder / f"doll{number}.png")
    xy = np.stack([sample.joints for sample in samples])
    labels = Keypoints(
        xy,
        np.ones(xy.shape[:2]),
        np.full((COUNT, 2), SIDE),
        landmark_names("dolls"),
        images=tuple(f"doll{number}.png" for number in range(COUNT)),
    )
    (server.base / "input" / "labels.json").write_text(labels.to_json())


def detection(**more) -> dict:
    """Nodes 1 to 4: keypoints of the dolls at node 4."""
    values = dict(views=0, batch_size=2, sub_pixel=True, heat_maps="off", **more)
    return {
        "1": node("StableKPLoadBackbone", model="demo model (built in)"),
        "2": node("StableKPLoadImageSet", folder="dolls", max_images=COUNT, order="by name"),
        "3": node("StableKPLoadTokens", tokens_file="built in: paper dolls"),
        "4": node(
            "StableKPDetect",
            backbone=["1", 0],
            tokens=["3", 0],
            images=["2", 0],
            names=["2", 1],
            **values,
        ),
    }


def fitted() -> dict:
    """Nodes 1 to 7: a pose of the dolls at node 7, by a landmark map at node 5."""
    values = dict(labels_file="labels.json", mode="auto", ridge=-1.0, components=-1)
    return {
        **detection(),
        "5": node("StableKPFitLandmarks", keypoints=["4", 0], **values),
        "6": node("StableKPApplyLandmarks", keypoints=["4", 0], landmark_map=["5", 0]),
        "7": node("StableKPToPose", landmarks=["6", 0], format="openpose (people)", threshold=0.0),
        **SHOWN,
    }


#: A node runs only when something shows what it gives.
SHOWN = {"70": node("PreviewAny", source=["7", 1])}


def pose_of(entry: dict) -> list:
    """The pose of node 7, by the text that `SHOWN` shows."""
    return json.loads(entry["outputs"]["70"]["text"][0])


def make_image(server, entry: dict, number: str, index: int = 0) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(server.images(entry, number)[index])).convert("RGB"))


def inside(pose: dict) -> bool:
    """Whether every point that is there lies in the image."""
    points = np.reshape([person["pose_keypoints_2d"] for person in pose["people"]], (-1, 3))
    xy = points[points[:, 2] > 0, :2]
    return bool((xy >= 0).all() and (xy < (pose["canvas_width"], pose["canvas_height"])).all())


def agreement(theirs: np.ndarray, pose: dict) -> float:
    """Overlap (intersection over union) of what they drew with our own OpenPose drawing of the same pose."""
    people = [np.reshape(person["pose_keypoints_2d"], (18, 3)) for person in pose["people"]]
    ours = draw_openpose(np.array(people), pose["canvas_width"], pose["canvas_height"]).any(-1)
    drawn = theirs.astype(int).max(-1) > 0
    return (ours & drawn).sum() / (ours | drawn).sum()


def test_a_pose_is_fitted_and_comes_out_in_pixels_of_the_images(aux_server):
    prompt = {**fitted(), "8": node("StableKPSaveLandmarks", landmark_map=["5", 0], name="dolls")}
    entry = aux_server.run(prompt)
    pose = pose_of(entry)
    assert len(pose) == COUNT
    points = read_pose(pose)
    assert points.sizes.tolist() == [[SIDE, SIDE]] * COUNT
    # Shoulders, hips and knees are labelled, and a map of 8 labels puts them near the labels' mean at least.
    body = np.array([2, 5, 8, 11, 9, 12])
    truth = np.stack([render("dolls", seed, SIDE).joints for seed in range(COUNT)])
    names = landmark_names("dolls")
    order = ["right shoulder", "left shoulder", "right hip", "left hip", "right knee", "left knee"]
    right = truth[:, [names.index(name) for name in order]]
    assert (points.confidence[:, body] == 1).all()
    assert np.linalg.norm(points.xy[:, body] - right, axis=-1).mean() < 0.25 * SIDE
    saved = LandmarkMap.load(entry["outputs"]["8"]["text"][0].removeprefix("saved "))
    assert saved.images == COUNT
    again = {
        **fitted(),
        "5": node("StableKPLoadLandmarks", landmarks_file="dolls.safetensors"),
    }
    assert pose_of(aux_server.run(again)) == pose


def test_comfyuis_own_pose_drawing_takes_it(aux_server):
    if "SDPoseDrawKeypoints" not in aux_server.get("/object_info"):
        pytest.skip("this ComfyUI has no SDPoseDrawKeypoints")
    switches = dict(draw_body=True, draw_hands=True, draw_face=True, draw_feet=True, draw_head=True)
    sizes = dict(stick_width=4, face_point_size=3, score_threshold=0.3)
    entry = aux_server.run(
        {
            **fitted(),
            "8": node("SDPoseDrawKeypoints", keypoints=["7", 0], **switches, **sizes),
            "9": node("PreviewImage", images=["8", 0]),
        }
    )
    pose = pose_of(entry)
    # Without OpenCV, ComfyUI draws with formulas of its own, whose limbs are a little thinner.
    least = 1 if subprocess.run([aux_server.python, "-c", "import cv2"], capture_output=True).returncode == 0 else 0.85
    for index in range(COUNT):
        assert inside(pose[index])  # its points outside of the image are left out, ours are cut by the border
        assert agreement(make_image(aux_server, entry, "9", index), pose[index]) >= least


def test_comfyuis_boxes_give_several_people(aux_server):
    """A MASK for each figure; boxes are tested without ComfyUI, because no core node makes them on a CPU."""
    prompt = {
        **detection(),
        "20": node("SolidMask", value=1.0, width=SIDE // 2, height=SIDE),
        "21": node("SolidMask", value=0.0, width=SIDE, height=SIDE),
        "22": node("MaskComposite", destination=["21", 0], source=["20", 0], x=0, y=0, operation="add"),
        "23": node("MaskComposite", destination=["21", 0], source=["20", 0], x=SIDE // 2, y=0, operation="add"),
        "24": node("MaskToImage", mask=["22", 0]),
        "25": node("MaskToImage", mask=["23", 0]),
        "26": node("ImageBatch", image1=["24", 0], image2=["25", 0]),
        "27": node("ImageToMask", image=["26", 0], channel="red"),
        "5": node(
            "StableKPMapByHand",
            keypoints=["4", 0],
            pose="openpose (people)",
            table="nose=0, neck=1, right shoulder=2",
        ),
        "7": node("StableKPToPose", landmarks=["5", 0], format="openpose (people)", threshold=0.0),
        **SHOWN,
    }
    prompt["2"]["inputs"]["max_images"] = 1
    prompt["4"]["inputs"]["masks"] = ["27", 0]
    pose = pose_of(aux_server.run(prompt))
    assert len(pose) == 1 and len(pose[0]["people"]) == 2


def test_animals_smoothing_skeleton_report_edits_and_export_run(aux_server):
    prompt = {
        **detection(),
        "5": node(
            "StableKPMapByHand",
            keypoints=["4", 0],
            pose="AP-10K (animals)",
            table="left eye = 0\nright eye = 1\nnose = 2",
        ),
        "7": node("StableKPToPose", landmarks=["5", 0], format="AP-10K (animals)", threshold=0.0),
        **SHOWN,
        "8": node(
            "StableKPSmooth",
            keypoints=["4", 0],
            method="savitzky-golay",
            **{"method.window": 5, "method.order": 2},
            fill=5,
            threshold=0.0,
        ),
        "9": node("StableKPSkeleton", keypoints=["8", 0], tokens=["3", 0], extra_lines=1.0, edges=""),
        "10": node(
            "StableKPReport",
            keypoints=["4", 0],
            max_pictures=4,
            threshold=0.3,
            tokens=["9", 0],
            images=["2", 0],
        ),
        "11": node("PreviewImage", images=["10", 0]),
        "12": node("StableKPEditTokens", tokens=["9", 0], edits="rename 0 nose\ndrop 5"),
        "13": node("StableKPSaveTokens", tokens=["12", 0], name="edited"),
        "14": node(
            "StableKPExportControlNet",
            images=["2", 0],
            keypoints=["9", 1],
            names=["2", 1],
            name="dolls",
            style="scribble",
            size=64,
            fit="crop",
            threshold=0.0,
            validation=0.25,
            caption="a doll",
        ),
    }
    heard = aux_server.hear(prompt)
    entry = heard.entry
    animals = pose_of(entry)
    assert [len(image["animals"][0]) for image in animals] == [17] * COUNT
    assert "jitter" in heard.texts["8"][-1]
    assert heard.texts["9"][-1].count("-") == 9  # a tree over 10 points
    assert make_image(aux_server, entry, "11").std() > 10
    folder = aux_server.base / "output" / "controlnet_datasets" / "dolls"
    rows = [line for split in ("train", "validation") for line in _lines(folder / split)]
    assert len(rows) == COUNT and {row["text"] for row in rows} == {"a doll"}
    with pytest.raises(NodeError, match="leaves? |stays inside"):
        # The only output: with others in the graph ComfyUI runs those and leaves this one out.
        outside = {**prompt["14"]["inputs"], "keypoints": ["4", 0], "name": "../x"}
        aux_server.run({**detection(), "14": {**prompt["14"], "inputs": outside}})
    assert not (aux_server.base / "output" / "x").exists()


def _lines(folder: Path) -> list[dict]:
    path = folder / "metadata.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_edits_and_another_body_reach_the_pose(aux_server):
    """Edit Keypoints and Retarget Pose behind a landmark map; the first doll's nose is put at (5, 6) by hand."""
    point = {"nose": {"x": 5, "y": 6, "state": "visible"}, "left_knee": {"state": "deleted"}}
    edits = json.dumps({"version": 1, "images": [{"image": "doll0.png", "size": [SIDE, SIDE], "points": point}]})
    prompt = {
        **fitted(),
        "60": node("StableKPMapByHand", keypoints=["4", 0], pose="openpose (people)", table=TABLE),
        "61": node(
            "StableKPEditKeypoints",
            keypoints=["60", 0],
            edits=edits,
            between_edits="as detected",
            threshold=0.3,
            images=["2", 0],
        ),
        "7": node("StableKPToPose", landmarks=["61", 0], format="openpose (people)", threshold=0.0),
        "62": node(
            "StableKPRetargetPose",
            drive=["7", 0],
            target=["60", 0],
            skeleton="openpose",
            place="target",
            scale=1.0,
            offset_x=0.0,
            offset_y=0.0,
        ),
        "63": node("StableKPToPose", landmarks=["62", 0], format="openpose (people)", threshold=0.0),
        "64": node("PreviewAny", source=["63", 1]),
        "65": node("PreviewImage", images=["61", 1]),
    }
    entry = aux_server.run(prompt)
    first = np.reshape(pose_of(entry)[0]["people"][0]["pose_keypoints_2d"], (18, 3))
    assert first[0].tolist() == [5, 6, 1] and first[12, 2] == 0
    assert make_image(aux_server, entry, "65").shape == (SIDE, SIDE, 3)
    (file,) = entry["outputs"]["61"]["stablekp_editor"]
    shown = aux_server.get(f"/view?filename={file['filename']}&type={file['type']}&subfolder=")
    assert [image["key"] for image in shown["images"]] == [f"doll{i}.png" for i in range(COUNT)]
    moved = json.loads(entry["outputs"]["64"]["text"][0])
    assert len(moved) == COUNT and np.reshape(moved[0]["people"][0]["pose_keypoints_2d"], (18, 3))[12, 2] == 0


def test_wrong_wiring_is_said_in_one_sentence(aux_server):
    free = {
        **fitted(),
        "7": node("StableKPToPose", landmarks=["4", 0], format="openpose (people)", threshold=0.3),
    }
    with pytest.raises(NodeError, match="fit and apply a landmark map, or map them by hand"):
        aux_server.run(free)
    missing = fitted()
    missing["5"]["inputs"]["labels_file"] = "nowhere.json"
    missing["8"] = node("PreviewAny", source=["5", 1])
    with pytest.raises(NodeError, match="nowhere.json"):
        aux_server.run(missing)


@pytest.mark.skipif(not AUX, reason="AUX_DIR does not name a checkout of comfyui_controlnet_aux")
def test_controlnet_aux_renders_and_saves_it(aux_server):
    entry = aux_server.run(
        {
            **fitted(),
            "8": node("RenderPeopleKps", kps=["7", 0], render_body=True, render_hand=True, render_face=True),
            "9": node("PreviewImage", images=["8", 0]),
            "10": node("SavePoseKpsAsJsonFile", pose_kps=["7", 0], filename_prefix="aux"),
        }
    )
    pose = pose_of(entry)
    assert agreement(make_image(aux_server, entry, "9"), pose[0]) == 1
    (saved,) = (aux_server.base / "output").glob("aux*.json")
    assert json.loads(saved.read_text()) == pose
