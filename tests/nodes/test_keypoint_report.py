"""Keypoint Report and Edit Keypoint Tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from node_data import COUNT, SIDE, dolls, part, tokens

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints


def test_the_report_shows_each_image_and_names_useless_points(pack):
    points = dolls()
    xy = np.concatenate([points.xy, points.xy[:, :1]], axis=1)  # the last point doubles the first
    double = Keypoints(xy, np.ones(xy.shape[:2]), points.sizes)
    images = [torch.rand(COUNT, SIDE, SIDE, 3)]
    node = part("keypoint_report").KeypointReport
    image, text = node.execute([double], [4], [0.3], [tokens(xy.shape[1])], images).args
    assert image.shape[0] == 1 and image.shape[1] > 2 * 512 and image.max() <= 1
    assert "same position as 0" in text and f"suggested edit: drop {xy.shape[1] - 1}" in text
    black, same = node.execute([double], [4], [0.3]).args
    assert black.mean() < image.mean() and "same position as 0" in same
    with pytest.raises(KeypointError, match="1 images are connected to Keypoint Report"):
        node.execute([double], [4], [0.3], None, [torch.rand(1, SIDE, SIDE, 3)])


def test_edits_change_the_tokens_and_list_the_points(pack):
    edited, text = part("edit_keypoint_tokens").EditKeypointTokens.execute(tokens(4), "rename 0 nose\ndrop 1").args
    assert edited.names == ("nose", "kp2", "kp3") and text == "0 nose\n1 kp2\n2 kp3"
