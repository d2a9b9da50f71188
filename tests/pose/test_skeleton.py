import itertools

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.schema import format_skeleton, parse_skeleton
from stablekp_core.pose.skeleton import discover_skeleton, spanning_tree
from stablekp_core.synthetic.figures import DOLL_BONES, DOLL_JOINTS
from stablekp_core.synthetic.generator import render

# Part of each point of `stick_figures`, and which parts are joined at a joint.
PARTS = ("head", "trunk", "trunk", "arm_l", "hand_l", "arm_r", "hand_r", "leg_l", "foot_l", "leg_r", "foot_r")
ADJACENT = {
    frozenset(pair)
    for pair in (
        ("head", "trunk"),
        ("trunk", "arm_l"),
        ("arm_l", "hand_l"),
        ("trunk", "arm_r"),
        ("arm_r", "hand_r"),
        ("trunk", "leg_l"),
        ("leg_l", "foot_l"),
        ("trunk", "leg_r"),
        ("leg_r", "foot_r"),
    )
}


def stick_figures(count, seed, noise=0.02):
    """A point on each part of a figure with swinging limbs [count, 11, 2], turned, scaled and moved."""
    rng = np.random.default_rng(seed)
    points = [
        np.tile([0.0, -1.3], (count, 1)),
        np.tile([0.05, -0.9], (count, 1)),
        np.tile([0.0, -0.2], (count, 1)),
    ]
    for start, lengths, rest in (
        ((-0.35, -1.0), (0.5, 0.45), -0.6),
        ((0.35, -1.0), (0.5, 0.45), 0.6),
        ((-0.2, 0.0), (0.7, 0.6), -0.2),
        ((0.2, 0.0), (0.7, 0.6), 0.2),
    ):
        upper = rest + rng.uniform(-0.7, 0.7, count)
        lower = upper + rng.uniform(-0.8, 0.8, count)
        joint = start + lengths[0] * np.stack([np.sin(upper), np.cos(upper)], -1)
        points += [
            start + 0.6 * (joint - start),
            joint + 0.5 * lengths[1] * np.stack([np.sin(lower), np.cos(lower)], -1),
        ]
    xy = np.stack(points, 1) + rng.normal(0, noise, (count, 11, 2))
    turn, scale = rng.uniform(-0.4, 0.4, count), rng.uniform(20, 60, count)
    z = (xy[..., 0] + 1j * xy[..., 1]) * (scale * np.exp(1j * turn))[:, None]
    return np.stack([z.real, z.imag], -1) + rng.uniform(50, 150, (count, 1, 2))


def as_keypoints(xy, confidence=None, names=()):
    confidence = np.ones(xy.shape[:2]) if confidence is None else confidence
    return Keypoints(xy, confidence, np.full((len(xy), 2), 256), names)


def right_share(edges):
    good = [PARTS[a] == PARTS[b] or frozenset((PARTS[a], PARTS[b])) in ADJACENT for a, b in edges]
    return sum(good) / len(good)


@pytest.mark.parametrize("seed", range(5))
def test_edges_join_neighbouring_parts(seed):
    order = np.random.default_rng(seed).permutation(11)  # order of points must not help
    found = discover_skeleton(as_keypoints(stick_figures(60, seed)[:, order]))
    edges = [(order[a], order[b]) for a, b in found.edges]
    assert right_share(edges) >= 0.8
    assert right_share([(order[a], order[b]) for a, b in found.edges[:10]]) >= 0.8
    chance = right_share(list(itertools.combinations(range(11), 2)))
    assert chance < 0.3


def test_doll_joints():
    """Joints of rendered dolls: nearly every edge is a bone, or joins neighbours of the trunk."""
    xy = np.stack([render("dolls", seed, size=64, variant="plain").joints for seed in range(60)])
    xy = xy + np.random.default_rng(0).normal(0, 0.5, xy.shape)
    trunk = {DOLL_JOINTS.index(n) for n in ("neck", "left shoulder", "right shoulder", "left hip", "right hip")}
    edges = discover_skeleton(as_keypoints(xy), extra=1.0).edges
    bones = {frozenset(bone) for bone in DOLL_BONES}
    assert np.mean([frozenset(edge) in bones or set(edge) <= trunk for edge in edges]) >= 0.85


def test_the_tree_spans_and_is_the_best():
    rng = np.random.default_rng(1)
    for _ in range(20):
        agreement = rng.random((5, 5))
        agreement = agreement + agreement.T
        pairs = list(itertools.combinations(range(5), 2))
        best = 0.0
        for edges in itertools.combinations(pairs, 4):
            reached = {0}
            for _ in range(4):
                reached |= {i for edge in edges if reached & set(edge) for i in edge}
            if len(reached) == 5:
                best = max(best, sum(agreement[edge] for edge in edges))
        assert np.isclose(sum(agreement[edge] for edge in spanning_tree(agreement)), best)


def test_unseen_points_are_not_believed():
    xy = stick_figures(80, 7)
    rng = np.random.default_rng(0)
    lost = rng.random(xy.shape[:2]) < 0.25
    spoiled = np.where(lost[..., None], rng.uniform(0, 256, xy.shape), xy)
    with_confidence = discover_skeleton(as_keypoints(spoiled, np.where(lost, 0.0, 0.8)))
    without = discover_skeleton(as_keypoints(spoiled, np.where(lost, 0.0, 0.8)), use_confidence=False)
    assert right_share(with_confidence.edges) >= 0.8 > right_share(without.edges)


def test_extra_edges_close_a_rigid_triangle():
    rng = np.random.default_rng(0)
    triangle = np.array([[0, 0], [10, 0], [5, 9]])
    far = np.array([40, 40]) + rng.uniform(-20, 20, (50, 1, 2))
    xy = np.concatenate([np.tile(triangle, (50, 1, 1)), far], 1) + rng.uniform(0, 50, (50, 1, 2))
    kp = as_keypoints(xy)
    tree = discover_skeleton(kp, extra=1.0).edges
    more = discover_skeleton(kp, extra=0.7).edges
    assert len(tree) == 3 and more[:3] == tree
    assert {frozenset(e) for e in more} >= {frozenset(e) for e in ((0, 1), (1, 2), (0, 2))}
    assert len(discover_skeleton(kp, extra=0.0).edges) > len(more)


def test_points_on_a_line_get_no_shortcut():
    rng = np.random.default_rng(0)
    line = np.array([[0, 0], [10, 0], [20, 0]]) + rng.uniform(0, 50, (30, 1, 2))
    loose = rng.uniform(0, 200, (30, 1, 2))
    edges = discover_skeleton(as_keypoints(np.concatenate([line, loose], 1)), extra=0.5).edges
    assert {frozenset(e) for e in edges} >= {frozenset((0, 1)), frozenset((1, 2))}
    assert frozenset((0, 2)) not in {frozenset(e) for e in edges}


def test_too_few_images():
    with pytest.raises(KeypointError, match="4 images and 11 points"):
        discover_skeleton(as_keypoints(stick_figures(4, 0)))
    with pytest.raises(KeypointError, match="1 points"):
        discover_skeleton(as_keypoints(stick_figures(9, 0)[:, :1]))


def test_points_never_seen_give_a_tree_all_the_same():
    xy = stick_figures(10, 0)
    confidence = np.ones(xy.shape[:2])
    confidence[:, 4] = 0
    found = discover_skeleton(as_keypoints(xy, confidence))
    assert len({i for edge in found.edges for i in edge}) == 11 and not found.agreement[4].any()
    assert np.isfinite(discover_skeleton(as_keypoints(np.zeros((6, 4, 2)))).agreement).all()


def test_text_round_trip():
    edges = ((0, 1), (1, 2), (10, 3))
    names = ("nose", "left-hip", "right hip", "3", *(f"kp{i}" for i in range(4, 11)))
    assert format_skeleton(edges) == "0-1, 1-2, 10-3"
    assert parse_skeleton("0-1, 1-2, 10-3", 11) == edges
    text = format_skeleton(edges, names)
    assert text == "nose-left-hip, left-hip-right hip, kp10-3"
    assert parse_skeleton(text, 11, names) == edges
    assert parse_skeleton(" 0 - 1 ;\n2–1,, 1-0,1-2\n", 11) == ((0, 1), (2, 1))
    assert parse_skeleton("", 3) == ()
    assert discover_skeleton(as_keypoints(stick_figures(20, 0))).text().count("-") >= 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-1, 1", "'1' is no edge"),
        ("0-3", "'0-3' is no edge.*0 to 2.*nose"),
        ("nose-tail", "'nose-tail' is no edge"),
        ("1-1", "joins a keypoint with itself"),
        ("0--1", "is no edge"),
        ("-1-2", "is no edge"),
    ],
)
def test_bad_text_names_the_part(text, message):
    with pytest.raises(KeypointError, match=message):
        parse_skeleton(text, 3, ("nose", "eye", "ear"))
