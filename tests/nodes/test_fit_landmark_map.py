"""Fit, Apply, Save and Load Landmark Map."""

from __future__ import annotations

import numpy as np
import pytest
from node_data import SIDE, dolls, named, part

from stablekp_core.errors import KeypointError
from stablekp_core.pose.formats import OPENPOSE
from stablekp_core.pose.writing import to_pose, to_pose_keypoint


def fit(keypoints, labels=None, labels_file=""):
    return part("fit_landmark_map").FitLandmarkMap.execute(keypoints, labels_file, "auto", -1.0, -1, labels)


def test_a_pose_of_the_first_images_labels_them(pack):
    pose = to_pose_keypoint(named(8))
    landmarks, report = fit(dolls(), pose).args
    assert landmarks.images == 8 and landmarks.names == OPENPOSE.joints and "leave-one-out" in report
    (found,) = part("apply_landmark_map").ApplyLandmarkMap.execute(dolls(), landmarks).args
    right = to_pose(named(), "openpose")
    there = right.confidence[8:] > 0
    assert np.linalg.norm(found.xy[8:] - right.xy[8:], axis=-1)[there].mean() < 0.05 * SIDE


def test_labels_come_from_a_file_below_input_and_pair_by_name(pack, tmp_path):
    labels = named(10).rows(range(3, 10))  # other pictures than the first: only names can pair them
    (tmp_path / "input" / "labels.json").write_text(labels.to_json())
    landmarks = fit(dolls(), labels_file="labels.json").args[0]
    assert landmarks.images == 7 and np.nanmean(landmarks.error) < 2
    node = part("fit_landmark_map").FitLandmarkMap
    assert node.validate_inputs(labels_file="labels.json") is True
    before = node.fingerprint_inputs(labels_file="labels.json")
    (tmp_path / "input" / "labels.json").write_text(named(5).to_json())
    assert node.fingerprint_inputs(labels_file="labels.json") != before


@pytest.mark.parametrize("name", ["nowhere.json", "../secret.json", "/etc/passwd"])
def test_a_labels_file_elsewhere_is_refused(pack, tmp_path, name):
    (tmp_path / "secret.json").write_text("{}")
    assert "input folder" in part("fit_landmark_map").FitLandmarkMap.validate_inputs(labels_file=name)


def test_no_labels_and_two_kinds_of_labels_are_refused(pack):
    with pytest.raises(KeypointError, match="no labels"):
        fit(dolls())
    with pytest.raises(KeypointError, match="use one of them"):
        fit(dolls(), to_pose_keypoint(named(8)), "labels.json")


def test_settings_of_minus_one_are_chosen_and_others_are_kept(pack):
    node, pose = part("fit_landmark_map").FitLandmarkMap, to_pose_keypoint(named(8))
    landmarks = node.execute(dolls(), "", "linear", 0.25, 4, pose).args[0]
    assert (landmarks.mode, landmarks.ridge, landmarks.rank) == ("linear", 0.25, 4)


def test_maps_are_saved_numbered_and_loaded(pack, tmp_path):
    save, load = part("save_landmark_map").SaveLandmarkMap, part("load_landmark_map").LoadLandmarkMap
    landmarks = fit(dolls(), to_pose_keypoint(named(8))).args[0]
    paths = [save.execute(landmarks, "pets/cat").args[0] for _ in range(2)]
    assert [path[len(str(tmp_path)) :] for path in paths] == [
        "/models/keypoint_landmarks/pets/cat.safetensors",
        "/models/keypoint_landmarks/pets/cat_00002.safetensors",
    ]
    assert "pets/cat.safetensors" in part("comfy.folders").landmark_files()
    loaded = load.execute("pets/cat.safetensors").args[0]
    np.testing.assert_array_equal(loaded.weights, landmarks.weights)
    assert "stays inside" in save.validate_inputs("../cat")
    assert "there is no landmark map" in load.validate_inputs("dog.safetensors")
