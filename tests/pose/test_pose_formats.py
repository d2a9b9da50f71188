import json

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import AP10K, COCO17, OPENPOSE, joint_name, mirrored, side_pairs
from stablekp_core.pose.writing import (
    map_by_hand,
    parse_mapping,
    read_pose,
    to_ap10k,
    to_named_coco,
    to_pose,
    to_pose_keypoint,
)

# The order of the two formats, written out here by hand from their definitions.
OPENPOSE_ORDER = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip "
    "right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
).split()
AP10K_ORDER = (
    "left_eye right_eye nose neck tail_root left_shoulder left_elbow left_front_paw right_shoulder "
    "right_elbow right_front_paw left_hip left_knee left_back_paw right_hip right_knee right_back_paw"
).split()


def person(seed=0, rows=1, names=OPENPOSE_ORDER, size=(640, 480), **changes):
    rng = np.random.default_rng(seed)
    count = len(names)
    values = {
        "xy": rng.uniform(5, 470, (rows, count, 2)),
        "confidence": rng.uniform(0.5, 1.0, (rows, count)),
        "sizes": np.full((rows, 2), size),
        "names": tuple(names),
    }
    return Keypoints(**{**values, **changes})


def test_joint_orders_and_edges():
    assert list(OPENPOSE.joints) == OPENPOSE_ORDER
    assert list(AP10K.joints) == AP10K_ORDER
    for pose in (OPENPOSE, AP10K, COCO17):
        assert len(set(pose.joints)) == len(pose.joints)
        assert {i for edge in pose.skeleton for i in edge} == set(range(len(pose.joints)))


@pytest.mark.parametrize(
    ("text", "joint"),
    [
        ("Left Wrist", "left_wrist"),
        ("leftWrist", "left_wrist"),
        ("Lwri", "left_wrist"),
        ("wrist.L", "left_wrist"),
        ("R_Sho", "right_shoulder"),
        ("Root of tail", "tail_root"),
        ("L_F_Paw", "left_front_paw"),
        ("rbpaw", "right_back_paw"),
        ("reye", "right_eye"),
        ("lip", "lip"),
        ("nose", "nose"),
    ],
)
def test_joint_names(text, joint):
    assert joint_name(text) == joint


def test_sides():
    assert mirrored("Left Ear") == "right_ear" and mirrored("nose") == "nose"
    assert side_pairs(("nose", "right eye", "left eye", "left ear")) == ((2, 1),)


def test_pose_keypoint_is_the_safe_form():
    kp = person(rows=3, image_index=np.array([0, 0, 2]))
    confidence = kp.confidence.copy()
    confidence[0, 4] = 0.1
    kp = Keypoints(kp.xy, confidence, kp.sizes, kp.names, image_index=kp.image_index)
    frames = to_pose_keypoint(kp, threshold=0.3)
    assert [len(f["people"]) for f in frames] == [2, 0, 1]
    json.dumps(frames)
    for frame in frames:
        assert (frame["canvas_width"], frame["canvas_height"]) == (640, 480)
        assert type(frame["canvas_width"]) is int
        for p in frame["people"]:
            lengths = {k: len(v) for k, v in p.items()}
            assert lengths == {
                "pose_keypoints_2d": 54,
                "face_keypoints_2d": 210,
                "hand_left_keypoints_2d": 63,
                "hand_right_keypoints_2d": 63,
                "foot_keypoints_2d": 18,
            }
            assert all(type(v) is float for values in p.values() for v in values)
            assert set(p["pose_keypoints_2d"][2::3]) <= {0.0, 1.0}
            assert not any(p["face_keypoints_2d"] + p["hand_left_keypoints_2d"] + p["hand_right_keypoints_2d"])
    body = np.array(frames[0]["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    assert body[4].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(np.delete(body, 4, 0)[:, :2], np.delete(kp.xy[0], 4, 0))


def test_pose_keypoint_round_trip():
    kp = person(rows=2)
    back = read_pose(json.dumps(to_pose_keypoint(kp)))
    np.testing.assert_array_equal(back.xy, kp.xy)
    assert back.names == kp.names and (back.confidence == 1).all()
    assert back.image_index.tolist() == [0, 1] and back.sizes.tolist() == [[640, 480]] * 2


def test_people_without_joints_are_left_out_but_their_image_stays():
    kp = person(rows=1, confidence=np.zeros((1, 18)))
    assert to_pose_keypoint(kp) == [{"people": [], "canvas_width": 640, "canvas_height": 480}]
    frames = to_pose_keypoint(kp, canvas_sizes=[(64, 32), (10, 20)])
    assert [(f["canvas_width"], f["canvas_height"]) for f in frames] == [(64, 32), (10, 20)]
    with pytest.raises(KeypointError, match="canvas sizes"):
        to_pose_keypoint(person(rows=3), canvas_sizes=[(64, 32)])


def test_ap10k_round_trip():
    kp = person(rows=2, names=AP10K_ORDER)
    frames = to_ap10k(kp)
    assert frames[0]["version"] == "ap10k"
    assert np.shape(frames[0]["animals"]) == (1, 17, 3)
    back = read_pose(frames, images=("a.png", "b.png"))
    np.testing.assert_array_equal(back.xy, kp.xy)
    assert list(back.names) == AP10K_ORDER and back.images == ("a.png", "b.png")


def test_coco_people_become_openpose_with_a_neck():
    kp = person(names=COCO17.joints, confidence=np.linspace(0.4, 1, 17)[None], occluded=np.linspace(0, 0.8, 17)[None])
    pose = to_pose(kp, "openpose")
    index = {name: i for i, name in enumerate(kp.names)}
    for j, name in enumerate(OPENPOSE_ORDER):
        if name != "neck":
            np.testing.assert_array_equal(pose.xy[0, j], kp.xy[0, index[name]])
    left, right = kp.xy[0, index["left_shoulder"]], kp.xy[0, index["right_shoulder"]]
    np.testing.assert_allclose(pose.xy[0, 1], (left + right) / 2, rtol=1e-6)
    assert pose.confidence[0, 1] == kp.confidence[0, [5, 6]].min() and pose.occluded[0, 1] == kp.occluded[0, 6]
    back = to_pose(pose, "coco17")
    np.testing.assert_array_equal(back.xy, kp.xy)


def test_missing_joints_are_zero_and_foreign_names_are_refused():
    kp = person(names=("Nose", "L Shoulder", "left elbow"))
    pose = to_pose(kp, "openpose")
    assert sorted(np.flatnonzero(pose.confidence[0])) == [0, 5, 6]
    assert not pose.xy[0, 1].any()
    with pytest.raises(KeypointError, match="landmark map"):
        to_pose(person(names=("kp0", "kp1", "nose", "kp3")), "openpose")
    with pytest.raises(KeypointError, match="no pose 'cocoa'"):
        to_pose(kp, "cocoa")


def test_named_coco_can_be_read_as_labels():
    kp = person(rows=2, names=COCO17.joints)
    assert read_pose(to_named_coco(kp)).names == COCO17.joints
    data = to_named_coco(kp, "openpose")
    assert data["categories"][0]["keypoints"] == OPENPOSE_ORDER


def test_map_by_hand():
    kp = Keypoints(
        np.array([[[10, 20], [30, 40], [50, 60], [70, 80]]]),
        np.array([[0.9, 0.8, 0.0, 0.7]]),
        np.array([[100, 100]]),
        names=("kp0", "paw", "kp2", "kp3"),
    )
    pose = map_by_hand(kp, "nose = 0   # the tip\n\nLeft Wrist = paw, neck = 0 + 3\n4 = kp2\n")
    assert pose.xy[0, 0].tolist() == [10, 20]
    assert pose.xy[0, 7].tolist() == [30, 40]
    assert pose.xy[0, 1].tolist() == [40, 50] and pose.confidence[0, 1] == np.float32(0.7)
    assert pose.confidence[0, 4] == 0 and not pose.xy[0, 4].any()  # kp2 was not seen
    assert (pose.confidence > 0).sum() == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nose 0", "line 1.*form"),
        ("nose = 0\ntrunk = 1", "line 2: 'trunk' is no joint"),
        ("nose = 9", "line 1: '9' is no keypoint"),
        ("nose = 0\nneck = 1\nNose = 2", "line 3 maps nose a second time"),
        ("# nothing\n", "no joint is mapped"),
        ("99 = 0", "'99' is no joint"),
    ],
)
def test_bad_mappings_name_the_line(text, message):
    with pytest.raises(KeypointError, match=message):
        parse_mapping(text, ("kp0", "kp1", "kp2"))


def test_reading_what_other_programs_write(tmp_path):
    body = np.column_stack([np.arange(18) + 10.0, np.arange(18) + 30.0, np.ones(18)])
    body[3] = 0
    frame = {
        "people": [{"pose_keypoints_2d": body.reshape(-1).tolist(), "face_keypoints_2d": None}],
        "canvas_width": 100,
        "canvas_height": 200,
    }
    path = tmp_path / "pose.json"
    path.write_text(json.dumps(frame), encoding="utf-8")
    kp = read_pose(path)
    np.testing.assert_array_equal(kp.xy[0], body[:, :2])
    assert kp.confidence[0].tolist() == body[:, 2].tolist()
    np.testing.assert_array_equal(read_pose(str(path)).xy, kp.xy)

    shares = body * [1 / 100, 1 / 200, 1]
    frame["people"][0]["pose_keypoints_2d"] = shares.reshape(-1).tolist()
    np.testing.assert_allclose(read_pose([frame]).xy[0], body[:, :2], rtol=1e-6)

    body25 = np.zeros((25, 3))
    for theirs, ours in zip([*range(8), *range(9, 19)], range(18), strict=True):
        body25[theirs] = body[ours]
    body25[[8, *range(19, 25)]] = [5, 5, 1]
    frame["people"][0]["pose_keypoints_2d"] = body25.reshape(-1).tolist()
    np.testing.assert_array_equal(read_pose([frame]).xy[0], body[:, :2])

    animal = [[float(i), float(i + 50), 1.0] for i in range(2, 19)]
    animal[4] = None
    frame = {"version": "ap10k", "animals": [animal], "canvas_width": 100, "canvas_height": 100}
    kp = read_pose([frame])
    assert kp.confidence[0, 4] == 0 and kp.xy[0, 5].tolist() == [7, 57]


def test_frames_without_people_leave_gaps():
    frame = to_pose_keypoint(person())[0]
    empty = {**frame, "people": []}
    kp = read_pose([empty, frame, empty, frame])
    assert kp.image_index.tolist() == [1, 3]
    assert len(read_pose([empty])) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not JSON"),
        ([], "no poses"),
        ([{"canvas_width": 1, "canvas_height": 1}], "neither people nor animals"),
        ([{"people": [], "canvas_width": 64}], "canvas_height"),
        ([{"people": [], "canvas_width": 64, "canvas_height": 0}], "64x0"),
        (
            [{"people": [{"pose_keypoints_2d": [1.0] * 30}], "canvas_width": 9, "canvas_height": 9}],
            "30 numbers, but 54",
        ),
        (
            [{"people": [{"pose_keypoints_2d": ["a"] * 54}], "canvas_width": 9, "canvas_height": 9}],
            "not a list of numbers",
        ),
        ("/nowhere/pose.json", "cannot be read"),
    ],
)
def test_broken_poses(data, message):
    with pytest.raises(KeypointError, match=message):
        read_pose(data)


def test_wrong_number_of_image_names():
    with pytest.raises(KeypointError, match="2 image names"):
        read_pose(to_pose_keypoint(person()), images=("a", "b"))
