import json

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.point_edits import FigureEdits, KeypointEdits, PointEdit
from stablekp_core.pose.fitting import fit_landmark_map
from stablekp_core.pose.labelling import joint_list, label_images
from stablekp_core.synthetic.figures import DOLL_BONES, DOLL_JOINTS
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 128, 12
FILES = tuple(f"doll{i}.png" for i in range(COUNT))


def truth():
    return np.stack([render("dolls", seed, SIDE).joints for seed in range(COUNT)]).astype(float)


def detected(xy, seed=0):
    """Unnamed keypoints that move with the figure: means of joints with some noise, as a detector might find."""
    rng = np.random.default_rng(seed)
    mix = rng.dirichlet(np.full(xy.shape[1], 0.3), 10)  # [10, L]
    points = np.einsum("kl,bld->bkd", mix, xy) + rng.normal(0, 0.5, (len(xy), 10, 2))
    return Keypoints(points, np.full(points.shape[:2], 0.9), np.full((len(xy), 2), SIDE), images=FILES)


def labels(xy, images, joints=DOLL_JOINTS):
    figures = [
        FigureEdits(FILES[i], 0, (SIDE, SIDE), {n: PointEdit("visible", tuple(xy[i, k])) for k, n in enumerate(joints)})
        for i in images
    ]
    return KeypointEdits(tuple(figures), tuple(joints))


def label(edits, keypoints=None, **more):
    return label_images(edits, [(SIDE, SIDE)] * COUNT, DOLL_JOINTS, images=FILES, keypoints=keypoints, **more)


def test_five_labelled_images_give_the_map_that_the_same_labels_in_coco_give():
    xy = truth()
    keypoints = detected(xy)
    done = label(labels(xy, range(5)), keypoints, skeleton=DOLL_BONES)
    coco = Keypoints.from_coco(json.loads(json.dumps(done.labels.to_coco())))
    assert coco.images == FILES[:5] and coco.names == DOLL_JOINTS
    ours, theirs = fit_landmark_map(keypoints, done.labels), fit_landmark_map(keypoints, coco)
    np.testing.assert_array_equal(ours.weights, theirs.weights)
    np.testing.assert_array_equal(ours.bias, theirs.bias)
    np.testing.assert_array_equal(done.landmarks.weights, ours.weights)


def test_the_other_images_are_guessed_from_three_labelled_ones_on():
    xy = truth()
    keypoints = detected(xy)
    assert label(labels(xy, range(2)), keypoints).landmarks is None
    assert (label(labels(xy, range(2)), keypoints).suggested.confidence == 0).all()
    done = label(labels(xy, range(4)), keypoints)
    error = np.linalg.norm(done.suggested.xy[4:] - xy[4:], axis=-1).mean() / SIDE
    usual = np.linalg.norm(xy[4:] - xy[:4].mean(axis=0), axis=-1).mean() / SIDE
    assert error < 0.5 * usual, (error, usual)
    assert "60 joints labelled in 4 of 12 images" in done.report() and "leave-one-out" in done.report()
    assert label(labels(xy, range(4))).landmarks is None  # nothing was detected to guess from


def test_only_what_was_placed_is_a_label():
    xy = truth()
    edits = labels(xy, [0, 1, 2], DOLL_JOINTS[:2])
    changed = {"left eye": PointEdit("deleted"), "neck": PointEdit("occluded", (5.0, 6.0))}
    figure = FigureEdits(FILES[3], 0, (SIDE, SIDE), changed)
    done = label(KeypointEdits((*edits.figures, figure), DOLL_JOINTS), detected(xy))
    assert done.labels.images == FILES[:4]
    assert (done.labels.confidence > 0).sum(axis=1).tolist() == [2, 2, 2, 1]
    assert done.labels.is_occluded[3, 2] and (done.suggested.confidence[:, 3:] == 0).all()


def test_own_joints():
    assert joint_list("head, tail # a comment\nleft-fin\nhead - tail") == (("head", "tail", "left-fin"), ((0, 1),))
    with pytest.raises(KeypointError, match="each named once"):
        joint_list("head\nhead")
    with pytest.raises(KeypointError, match="each named once"):
        joint_list(" \n")
    with pytest.raises(KeypointError, match="0 images"):
        label_images(KeypointEdits(), [], ("nose",))
