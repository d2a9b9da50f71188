"""Keypoints to Masks, TRACKS, JSON and Pose, and Map Keypoints by Hand."""

from __future__ import annotations

import json
from dataclasses import replace

import fake_comfy
import numpy as np
import pytest
import torch
from node_data import COUNT, dolls, named, part, points

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import OPENPOSE
from stablekp_core.pose.writing import to_pose_keypoint


def test_masks_are_discs_of_exactly_the_pixels_within_the_radius(pack):
    convert = part("keypoints_to_masks")
    masks = convert.disc_masks(np.array([[3.5, 2.5], [-2.0, 1.0]]), np.array([True, False]), 8, 6, 1.6)
    expected = np.zeros((6, 8))
    for y in range(6):
        for x in range(8):
            expected[y, x] = (x + 0.5 - 3.5) ** 2 + (y + 0.5 - 2.5) ** 2 <= 1.6**2
    np.testing.assert_array_equal(masks[0], expected)
    assert expected.sum() == 9 and masks[1].max() == 0


def test_masks_come_per_keypoint_or_per_image(pack):
    node = part("keypoints_to_masks").KeypointsToMasks
    (each,) = node.execute(points(), "one per keypoint", 3.0)[0]
    (whole,) = node.execute(points(), "one per image", 3.0)[0]
    assert each.shape == (6, 48, 64) and whole.shape == (2, 48, 64)
    torch.testing.assert_close(whole[1], each[3:].amax(0))
    mixed = node.execute(points(sizes=((64, 48), (32, 32))), "one per image", 3.0)[0]
    assert [tuple(mask.shape) for mask in mixed] == [(1, 48, 64), (1, 32, 32)]
    (sure,) = node.execute(points(), "one per keypoint", 3.0, threshold=0.5)[0]
    assert [bool(mask.any()) for mask in sure] == [False, False, True, True, True, True]


def test_tracks_are_the_keypoints_over_time(pack):
    tracks = part("keypoints_to_tracks").KeypointsToTracks.execute(points(), 0.5)[0]
    torch.testing.assert_close(tracks["track_path"], torch.from_numpy(points().xy))
    assert tracks["track_visibility"].tolist() == [[False, False, True], [True, True, True]]


def test_json_in_all_formats(pack):
    node = part("keypoints_to_json").KeypointsToJSON
    again = Keypoints.from_json(node.execute(points(images=("a", "b")), "COCO")[0])
    np.testing.assert_array_equal(again.xy, points().xy)
    assert again.images == ("a", "b")
    first = json.loads(node.execute(points(), "points of the first image")[0])
    assert [(p["x"], p["y"]) for p in first] == [tuple(map(float, p)) for p in points().xy[0]]
    tracks = json.loads(node.execute(points(), "tracks over all images")[0])
    assert len(tracks) == 3 and [p["x"] for p in tracks[1]] == [float(x) for x in points().xy[:, 1, 0]]


def test_of_long_data_the_node_shows_the_beginning(pack):
    """In Nodes 2.0 a node grows to all of its text, over the nodes below."""
    text = part("keypoints_to_json").KeypointsToJSON.execute(points(), "COCO")[0]
    shown = fake_comfy.page().texts[-1][1]
    assert len(text) > 300 > 210 > len(shown) and text.startswith(shown.removesuffix("\n…")) and shown.endswith("…")


def test_the_default_table_maps_by_hand(pack):
    node = part("map_keypoints_by_hand").MapKeypointsByHand
    table = next(i for i in node.define_schema().inputs if i.id == "table").options["default"]
    points = dolls()
    pose = node.execute(points, "openpose (people)", table).args[0]
    assert pose.names == OPENPOSE.joints and (pose.confidence > 0).sum(axis=1).tolist() == [4] * COUNT
    np.testing.assert_allclose(pose.xy[:, 1], points.xy[:, 1:3].mean(axis=1), rtol=1e-6)


def test_poses_come_out_as_data_and_as_text(pack):
    node = part("keypoints_to_pose").KeypointsToPose
    pose, text = node.execute(named(), "openpose (people)", 0.3).args
    assert pose == to_pose_keypoint(named()) == json.loads(text)
    animals = node.execute(named(), "AP-10K (animals)", 0.3).args[0]
    assert len(animals) == COUNT and len(animals[0]["animals"][0]) == 17
    with pytest.raises(KeypointError, match="map them by hand"):
        node.execute(dolls(), "openpose (people)", 0.3)


def test_boxes_lie_around_the_sure_points_of_each_figure(pack):
    keypoints = Keypoints(
        xy=np.array([[[10.0, 10.0], [30.0, 20.0], [63.0, 47.0]], [[2.0, 2.0], [20.0, 40.0], [5.0, 5.0]]] * 2),
        confidence=np.array([[1.0, 0.8, 0.2], [1.0, 0.6, 0.5], [0.1, 0.1, 0.1], [0.9, 0.0, 0.9]]),
        sizes=np.array([[64, 48]] * 4),
        image_index=np.array([0, 0, 1, 2]),
    )
    boxes, each = part("keypoints_to_boxes").KeypointsToBoxes.execute(keypoints, 0.1, 0.5).args
    first, second = boxes[0]
    assert first == {"x": 8, "y": 8, "width": 24, "height": 14} and boxes[1] == []
    assert second == {"x": 0, "y": 0, "width": 24, "height": 44}
    assert each == [first, second, boxes[2][0]]


def test_points_of_a_chosen_image_are_the_visible_ones_of_all_its_figures(pack):
    node, keypoints = part("keypoints_to_json").KeypointsToJSON, points(((64, 48), (64, 48), (64, 48)))
    keypoints = replace(keypoints, image_index=np.array([0, 4, 4]), num_images=None)
    text = node.execute(keypoints, "points of a chosen image", threshold=0.65, image=4)[0]
    assert [(p["x"], p["y"]) for p in json.loads(text)] == [
        tuple(map(float, p)) for p in keypoints.xy[[1, 2, 2, 2], [2, 0, 1, 2]]
    ]
    with pytest.raises(KeypointError, match="asked for image 3"):
        node.execute(keypoints, "points of a chosen image", image=3)


def test_two_figures_of_one_image_are_one_moment_and_one_group_of_masks(pack):
    """Image 0 shows two figures, image 1 none, image 2 one."""
    keypoints = points(((64, 48),) * 3)
    xy = keypoints.xy[[0, 1, 1]]  # the second figure is where it was
    keypoints = replace(keypoints, xy=xy, image_index=np.array([0, 0, 2]), confidence=np.ones((3, 3)))
    tracks = part("keypoints_to_tracks").KeypointsToTracks.execute(keypoints, 0.5)[0]
    assert tracks["track_path"].shape == (3, 6, 2) and tracks["track_visibility"].sum(1).tolist() == [6, 0, 3]
    (each,) = part("keypoints_to_masks").KeypointsToMasks.execute(keypoints, "one per keypoint", 3.0)[0]
    (whole,) = part("keypoints_to_masks").KeypointsToMasks.execute(keypoints, "one per image", 3.0)[0]
    assert each.shape == (9, 48, 64) and whole.shape == (3, 48, 64)
    assert whole[1].max() == 0 and torch.equal(whole[0], each[:3].amax(0))
    assert each[0, 5, 5] == each[0, 23, 23] == 1  # point 0 of both figures
    lists = json.loads(part("keypoints_to_json").KeypointsToJSON.execute(keypoints, "tracks over all images")[0])
    assert len(lists) == 6 and all(len(track) == 3 for track in lists)


def test_tracks_follow_the_size_and_the_centre_crop_of_the_generated_video(pack):
    node, keypoints = part("keypoints_to_tracks").KeypointsToTracks, replace(points(), confidence=np.ones((2, 3)))
    plain = node.execute(keypoints, 0.5)[0]["track_path"]
    cropped = node.execute(keypoints, 0.5, width=96, height=96)[0]  # 64 x 48 -> 128 x 96, of which the middle 96
    torch.testing.assert_close(cropped["track_path"], plain * 2 - torch.tensor([16.0, 0.0]))
    assert not bool(cropped["track_visibility"][0, 0]) and bool(cropped["track_visibility"][0, 1])  # x = 5 is cut off
    contained = node.execute(keypoints, 0.5, fit="contain", size_from=torch.zeros(1, 96, 96, 3))[0]
    torch.testing.assert_close(contained["track_path"], plain * 1.5 + torch.tensor([0.0, 12.0]))
