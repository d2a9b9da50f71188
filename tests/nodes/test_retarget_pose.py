"""Retarget Pose without ComfyUI: both kinds of input, and the options reach the core."""

from __future__ import annotations

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import OPENPOSE
from stablekp_core.pose.retarget import retarget_pose
from stablekp_core.pose.writing import to_pose_keypoint

VALUES = {"skeleton": "of the keypoints", "place": "target", "scale": 1.0, "offset_x": 0.0, "offset_y": 0.0}


def pose(rows, seed):
    xy = np.random.default_rng(seed).uniform(20, 200, (rows, 18, 2)).astype(np.float32)
    sizes = np.full((rows, 2), 256)
    return Keypoints(xy, np.ones((rows, 18)), sizes, OPENPOSE.joints, OPENPOSE.skeleton)


def test_keypoints_and_pose_keypoint_give_the_same(pack):
    drive, target = pose(3, 0), pose(1, 1)
    wanted = retarget_pose(drive, target)
    run = pack.nodes.RetargetPose.execute
    np.testing.assert_allclose(run(drive, target, **VALUES)[0].xy, wanted.xy)
    values = {**VALUES, "skeleton": "openpose"}
    done = run(to_pose_keypoint(drive), to_pose_keypoint(target), **values)[0]
    np.testing.assert_allclose(done.xy, wanted.xy, atol=1e-3)


def test_options_reach_the_core(pack):
    drive, target = pose(2, 0), pose(1, 1)
    values = {**VALUES, "place": "drive", "scale": 0.5, "offset_x": 0.1, "offset_y": 0.2, "root": "nose"}
    wanted = retarget_pose(drive, target, place="drive", scale=0.5, offset=(0.1, 0.2), root="nose")
    np.testing.assert_array_equal(pack.nodes.RetargetPose.execute(drive, target, **values)[0].xy, wanted.xy)
    with pytest.raises(KeypointError, match="no keypoint"):
        pack.nodes.RetargetPose.execute(drive, target, **{**values, "root": "wing"})
