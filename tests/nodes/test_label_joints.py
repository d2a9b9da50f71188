"""Label Joints without ComfyUI: what the page is given, what its labels become, and the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import OPENPOSE
from stablekp_core.synthetic.figures import DOLL_JOINTS
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 64, 6
OWN = "\n".join([*DOLL_JOINTS, "neck - left shoulder"])
FILES = [f"doll{i}.png" for i in range(COUNT)]


def dolls():
    samples = [render("dolls", seed, SIDE) for seed in range(COUNT)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).float() / 255
    joints = np.stack([sample.joints for sample in samples]).astype(float)
    found = Keypoints(joints[:, ::2], np.full((COUNT, 8), 0.9), np.full((COUNT, 2), SIDE), images=FILES)
    return images, joints, found


def labels(joints, images):
    entries = [
        {
            "image": FILES[i],
            "size": [SIDE, SIDE],
            "points": {n: {"x": joints[i, k, 0], "y": joints[i, k, 1]} for k, n in enumerate(DOLL_JOINTS)},
        }
        for i in images
    ]
    return json.dumps({"version": 1, "names": list(DOLL_JOINTS), "images": entries})


def run(pack, images, text="", joints="own joints", own=OWN, save_as="", **more):
    return pack.nodes.LabelJoints.execute([images], [text], [joints], [own], [save_as], names=FILES, **more)


def offered(tmp_path, output):
    return json.loads((tmp_path / "temp" / output.ui["stablekp_editor"][0]["filename"]).read_text())


def test_at_first_all_joints_are_missing(pack, tmp_path):
    images, _, _ = dolls()
    output = run(pack, images, joints="openpose (people)")
    batch = offered(tmp_path, output)
    assert batch["mode"] == "label" and batch["names"] == list(OPENPOSE.joints)
    assert [image["key"] for image in batch["images"]] == FILES
    assert np.array(batch["rows"][0]["points"]).any() == 0
    assert not isinstance(output[0], Keypoints)  # what follows waits for labels


def test_labels_fit_a_map_and_the_other_images_are_guessed(pack, tmp_path):
    images, joints, found = dolls()
    output = run(pack, images, labels(joints, range(4)), keypoints=[found])
    assert output[0].images == tuple(FILES[:4]) and output[0].names == DOLL_JOINTS and output[0].skeleton == ((2, 3),)
    np.testing.assert_allclose(output[0].xy, joints[:4], atol=1e-4)
    guess = np.array(offered(tmp_path, output)["rows"][5]["points"])
    assert (guess[:, 2] > 0).all() and np.linalg.norm(guess[:, :2] - joints[5], axis=-1).mean() < 0.1 * SIDE
    fitted = pack.nodes.FitLandmarkMap.execute(found, "", "auto", -1.0, -1, labels=output[0])
    assert fitted[0].images == 4 and "60 joints labelled in 4 of 6 images" in output[1]


def test_the_file_holds_the_same_labels_and_cannot_leave_the_input_folder(pack, tmp_path):
    images, joints, found = dolls()
    output = run(pack, images, labels(joints, range(5)), save_as="mine/labels", keypoints=[found])
    file = tmp_path / "input" / "mine" / "labels.json"
    read = Keypoints.load(file)
    np.testing.assert_array_equal(read.xy, output[0].xy)
    by_wire, by_file = (
        pack.nodes.FitLandmarkMap.execute(found, name, "auto", -1.0, -1, labels=wire)[0]
        for name, wire in (("", output[0]), ("mine/labels.json", None))
    )
    np.testing.assert_array_equal(by_wire.weights, by_file.weights)
    assert pack.nodes.LabelJoints.validate_inputs("a/b") is True and pack.nodes.LabelJoints.validate_inputs("") is True
    assert "stays inside" in pack.nodes.LabelJoints.validate_inputs("../x")
    with pytest.raises(KeypointError, match="stays inside"):
        run(pack, images, labels(joints, [0]), save_as="../x")
    assert not (tmp_path / "x.json").exists()


def test_wrong_wires_are_said(pack):
    images, joints, _ = dolls()
    with pytest.raises(KeypointError, match="6 names for 2 images"):
        run(pack, images[:2])
    with pytest.raises(KeypointError, match="each named once"):
        run(pack, images, own="a\na")
    with pytest.raises(KeypointError, match="not JSON"):
        run(pack, images, "{")
