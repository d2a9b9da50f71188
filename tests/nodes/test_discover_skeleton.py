"""Discover Skeleton."""

from __future__ import annotations

import pytest
from node_data import dolls, part, tokens

from stablekp_core.errors import KeypointError


def test_the_skeleton_goes_into_tokens_and_keypoints(pack):
    node, points = part("discover_skeleton").DiscoverSkeleton, dolls(40)
    count = points.num_keypoints
    found, same, text = node.execute(points, tokens(count), 1.0, "").args
    assert len(found.skeleton) == count - 1 and same.skeleton == found.skeleton
    again = node.execute(points, tokens(count), 1.0, text).args
    assert again[0].skeleton == found.skeleton and again[2] == text
    edited = node.execute(points, tokens(count), 1.0, "0-1\n2-3").args[0]
    assert edited.skeleton == ((0, 1), (2, 3))
    with pytest.raises(KeypointError, match="tokens have 3"):
        node.execute(points, tokens(3), 1.0, "")
