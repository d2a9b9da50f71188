import math

import numpy as np
import pytest

from benchmarks.retarget import measure
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import AP10K, OPENPOSE
from stablekp_core.pose.reading import read_pose
from stablekp_core.pose.retarget import bone_tree, retarget_pose
from stablekp_core.pose.writing import to_ap10k, to_pose_keypoint

SIDE = 512
TREE = ((0, 1), (1, 2), (1, 3), (3, 4))


def placed(xy, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    c, s = math.cos(angle), math.sin(angle)
    return scale * xy @ np.array([[c, -s], [s, c]]).T + np.array(shift)


def points(xy, names=(), skeleton=TREE, sizes=(SIDE, SIDE), confidence=None, **more):
    xy = np.asarray(xy, dtype=float)
    xy = xy if xy.ndim == 3 else xy[None]
    confidence = np.ones(xy.shape[:2]) if confidence is None else confidence
    return Keypoints(xy, confidence, np.tile(sizes, (len(xy), 1)), names, skeleton, **more)


def bone_vectors(keypoints, edges, row=0):
    a, b = np.array(edges).T
    return keypoints.xy[row, b].astype(float) - keypoints.xy[row, a]


def random_figures(count, seed):
    return np.random.default_rng(seed).uniform(50, 450, (count, 5, 2))


def test_directions_are_the_drives_and_lengths_the_targets():
    drive, target = points(random_figures(20, 0)), points(random_figures(1, 1))
    done = retarget_pose(drive, target)
    wanted = np.linalg.norm(bone_vectors(target, TREE), axis=-1)
    for row in range(len(drive)):
        got, led = bone_vectors(done, TREE, row), bone_vectors(drive, TREE, row)
        np.testing.assert_allclose(np.linalg.norm(got, axis=-1), wanted, rtol=1e-4)
        angle = np.degrees(np.abs(np.angle((got @ [1, 1j]) / (led @ [1, 1j]))))
        assert angle.max() < 0.1
    root = 1  # three bones meet there
    np.testing.assert_allclose(done.xy[0, root], target.xy[0, root], atol=1e-3)


@pytest.mark.parametrize("place", ["target", "drive"])
def test_a_turned_drive_gives_a_turned_result(place):
    drive, target = random_figures(4, 2), points(random_figures(1, 3))
    turned = placed(drive, 0.7)
    straight = retarget_pose(points(drive), target, place=place).xy.astype(float)
    twisted = retarget_pose(points(turned), target, place=place).xy.astype(float)
    pivot = straight[0, 1]
    np.testing.assert_allclose(twisted - twisted[0, 1], placed(straight - pivot, 0.7), atol=1e-3)


def test_dolls_of_other_proportions_match_the_truly_rebuilt_doll():
    """Truth is the doll that is built anew with the target's proportions in the drive's pose."""
    retargeted, scaled = measure()
    assert retargeted.mean() < 0.02 and retargeted.max() < 0.02
    assert retargeted.mean() < 0.6 * scaled.mean()  # it is not the size alone that is carried over


def test_missing_points_stay_missing_and_what_hangs_on_them_is_still_placed():
    xy, target = random_figures(3, 5), points(random_figures(1, 6))
    confidence = np.full((3, 5), 0.8)
    confidence[1, 3] = 0  # between 1 and 4
    confidence[2, 1] = 0  # the root
    xy[1, 3] = xy[2, 1] = 0
    drive = points(xy, confidence=confidence)
    done = retarget_pose(drive, target)
    np.testing.assert_allclose(done.confidence, confidence)
    whole = retarget_pose(points(random_figures(3, 5)), target)
    np.testing.assert_allclose(done.xy[1, [0, 2]] - done.xy[1, 1], whole.xy[1, [0, 2]] - whole.xy[1, 1], atol=1e-3)
    step, led = done.xy[1, 4] - done.xy[1, 1], xy[1, 4] - xy[1, 1]
    assert abs(np.angle((step @ [1, 1j]) / (led @ [1, 1j]))) < 1e-4  # in the drive's direction
    lengths = np.linalg.norm(bone_vectors(target, TREE), axis=-1)
    assert np.linalg.norm(bone_vectors(done, [TREE[3]], 2)[0]) == pytest.approx(lengths[3], rel=1e-4)
    assert (done.xy[2, [0, 2, 3, 4]] != 0).all()
    assert done.occluded.tolist() == drive.occluded.tolist()


def test_a_bone_the_target_hides_has_the_length_of_its_mirror_image():
    names = ("neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")
    edges = ((0, 1), (0, 2), (1, 3), (2, 4))
    drive = points(random_figures(1, 7), names, edges)
    xy, confidence = random_figures(1, 8), np.ones((1, 5))
    confidence[0, 4] = 0
    target = points(xy, names, edges, confidence=confidence)
    done = retarget_pose(drive, target)
    left, right = (np.linalg.norm(bone_vectors(done, [edge])[0]) for edge in edges[2:])
    assert right == pytest.approx(left, rel=1e-4)


def test_where_the_result_stands():
    drive = points(random_figures(3, 9), sizes=(640, 360))
    target = points(2.0 * random_figures(1, 9), sizes=(1024, 1024))  # the first frame's body, twice as large
    done = retarget_pose(drive, target)
    assert done.sizes.tolist() == [[1024, 1024]] * 3
    np.testing.assert_allclose(done.xy[0], target.xy[0], atol=1e-3)
    moved = drive.xy[1, 1] - drive.xy[0, 1]
    ratio = (
        np.linalg.norm(bone_vectors(target, TREE), axis=-1).sum()
        / np.median([np.linalg.norm(bone_vectors(drive, TREE, row), axis=-1) for row in range(3)], axis=0).sum()
    )
    np.testing.assert_allclose(done.xy[1, 1] - done.xy[0, 1], ratio * moved, rtol=1e-4)
    shifted = retarget_pose(drive, target, offset=(0.1, -0.05))
    np.testing.assert_allclose(shifted.xy - done.xy, np.broadcast_to([102.4, -51.2], done.xy.shape), atol=1e-2)
    beside = retarget_pose(drive, target, place="drive")
    assert beside.sizes.tolist() == drive.sizes.tolist()
    np.testing.assert_allclose(beside.xy[:, 1], drive.xy[:, 1], atol=1e-3)
    grown = retarget_pose(drive, target, place="drive", scale=1.5)
    np.testing.assert_allclose(
        np.linalg.norm(bone_vectors(grown, TREE, 2), axis=-1),
        1.5 * np.linalg.norm(bone_vectors(beside, TREE, 2), axis=-1),
        rtol=1e-4,
    )


@pytest.mark.parametrize("pose, write", [(OPENPOSE, to_pose_keypoint), (AP10K, to_ap10k)])
def test_pose_files_in_and_out(pose, write):
    rng = np.random.default_rng(3)
    count = len(pose.joints)
    drive, target = (points(rng.uniform(50, 450, (n, count, 2)), pose.joints, pose.skeleton) for n in (3, 1))
    done = read_pose(write(retarget_pose(read_pose(write(drive)), read_pose(write(target)), skeleton=pose)))
    tree = bone_tree(count, pose.skeleton, 1)
    assert done.names == pose.joints and len(tree.bones) == count - 1
    for row in range(3):
        got = np.linalg.norm(bone_vectors(done, retarget_tree(pose), row), axis=-1)
        np.testing.assert_allclose(got, np.linalg.norm(bone_vectors(target, retarget_tree(pose)), axis=-1), rtol=1e-4)


def retarget_tree(pose):
    bones = np.bincount(np.array(pose.skeleton).reshape(-1))
    return bone_tree(len(pose.joints), pose.skeleton, int(bones.argmax())).bones


def test_names_in_another_order_and_spelling_match():
    drive = points(random_figures(2, 4), ("nose", "neck", "Left Wrist", "r_hip", "RKnee"))
    target = points(random_figures(1, 5)[:, ::-1], ("right_knee", "right_hip", "left_wrist", "neck", "nose"), ())
    straight = retarget_pose(drive, points(random_figures(1, 5), drive.names))
    np.testing.assert_allclose(retarget_pose(drive, target).xy, straight.xy, atol=1e-4)


def test_several_figures_and_an_empty_drive():
    xy = random_figures(2, 6)
    two = points(xy, image_index=np.array([0, 0]))
    done = retarget_pose(two, points(random_figures(1, 7)))
    assert done.image_index.tolist() == [0, 0] and len(done) == 2
    with pytest.raises(KeypointError, match="no bone in common"):
        retarget_pose(points(np.zeros((0, 5, 2))), points(random_figures(1, 7)))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"skeleton": ((0, 9),)}, "outside 0..4"),
        ({"root": "tail"}, "no keypoint"),
        ({"place": "moon"}, "target, drive"),
        ({"scale": 0}, "scale"),
        ({"offset": (float("nan"), 0)}, "offset"),
    ],
)
def test_wrong_options_are_said(changes, sentence):
    with pytest.raises(KeypointError, match=sentence):
        retarget_pose(points(random_figures(1, 0)), points(random_figures(1, 1)), **changes)


def test_unlike_names_and_no_skeleton_are_said():
    with pytest.raises(KeypointError, match="no skeleton"):
        retarget_pose(points(random_figures(1, 0), skeleton=()), points(random_figures(1, 1), skeleton=()))
    with pytest.raises(KeypointError, match="other names"):
        retarget_pose(points(random_figures(1, 0)), points(random_figures(1, 1), tuple("abcde")))


def test_a_skeleton_with_circles_and_parts_is_a_tree_for_each_part():
    tree = bone_tree(6, ((0, 1), (1, 2), (2, 0), (3, 4)), 1)
    assert tree.bones == ((1, 0), (1, 2), (3, 4))
