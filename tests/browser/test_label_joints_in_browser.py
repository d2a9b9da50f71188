"""Label Joints in the real page: five dolls labelled by clicks give the map that the same labels give as a file."""

from __future__ import annotations

import numpy as np
import pytest

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.landmark_map import LandmarkMap
from stablekp_core.synthetic.figures import DOLL_JOINTS
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 512, 8
OWN = "\n".join([*DOLL_JOINTS, "neck - left shoulder", "neck - right shoulder"])


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
def test_five_labelled_dolls_give_the_map_of_the_same_labels_in_a_file(open_page, server, shot, vue):
    page = open_page(vue=vue)
    page.open()
    nodes = [
        ["TestDolls", {"count": COUNT, "side": SIDE, "named": False}, [0, 0]],
        ["StableKPLabelJoints", {"joints": "own joints", "own_joints": OWN, "save_as": "made"}, [320, 0]],
    ]
    wires = [[0, 0, 1, "keypoints"], [0, 1, 1, "images"], [0, 2, 1, "names"]]
    _, label = page.build(nodes, wires)
    assert page.run()["kind"] == "execution_success"
    shot(page, "label_graph")
    editor = page.press_button(label, "Label joints")
    truth = np.stack([render("dolls", seed, 256).joints for seed in range(COUNT)]) * (SIDE / 256)
    for image in range(3):
        for k in range(len(DOLL_JOINTS)):  # the next joint is chosen by itself
            page.page.mouse.click(*editor.on_screen(*truth[image, k], SIDE))
            if (image, k) == (0, 7):
                shot(page, "labelling")
        editor.key("PageDown")
    editor.press("run")
    editor.frame.locator('.list button:has-text("guess")').first.wait_for(timeout=60000)
    assert "4 / 8" in editor.frame.locator(".where").inner_text()
    shot(page, "guessed")
    for image in (3, 4):  # labelling is correcting: drag what is wrong, accept the rest
        editor.choose(7)
        x, y = (float(number) for number in editor.status.split(": ")[1].split(", ")[:2])
        editor.drag((x, y), tuple(truth[image, 7]), SIDE)
        editor.key("Escape")
        editor.key("Enter")
    shot(page, "labelled")
    editor.press("apply")
    page.page.wait_for_timeout(300)
    assert page.run()["kind"] == "execution_success"
    placed = Keypoints.load(server.base / "input" / "made.json")
    assert placed.images == tuple(f"doll{i}.png" for i in range(5)) and (placed.confidence == 1).all()
    assert np.linalg.norm(placed.xy[:3] - truth[:3], axis=-1).max() < 0.75
    assert np.linalg.norm(placed.xy[3:, 7] - truth[3:5, 7], axis=-1).max() < 0.75

    text = next(n for n in page.serialized()["nodes"] if n["type"] == "StableKPLabelJoints")["widgets_values"][0]
    maps = [fitted(server, text, wire) for wire in (True, False)]
    np.testing.assert_array_equal(maps[0].weights, maps[1].weights)
    np.testing.assert_array_equal(maps[0].bias, maps[1].bias)
    assert maps[0].images == 5 and maps[0].names == DOLL_JOINTS


def fitted(server, labels: str, wire: bool) -> LandmarkMap:
    """The map of the labels, over the wire or from the file that Label Joints wrote."""
    name = "wire" if wire else "file"
    prompt = {
        "1": node("TestDolls", count=COUNT, side=SIDE, noise=4.0, named=False),
        "2": node(
            "StableKPLabelJoints",
            images=["1", 1],
            labels=labels,
            joints="own joints",
            own_joints=OWN,
            save_as="",
            keypoints=["1", 0],
            names=["1", 2],
        ),
        "3": node(
            "StableKPFitLandmarks",
            keypoints=["1", 0],
            labels_file="" if wire else "made.json",
            mode="auto",
            ridge=-1.0,
            components=-1,
            **({"labels": ["2", 0]} if wire else {}),
        ),
        "4": node("StableKPSaveLandmarks", landmark_map=["3", 0], name=name, overwrite=True),
    }
    server.run(prompt)
    return LandmarkMap.load(server.base / "models" / "keypoint_landmarks" / f"{name}.safetensors")
