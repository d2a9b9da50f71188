import numpy as np
import pytest
import torch

from stablekp_core.drawing.palette import palette
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.diagnostics import edit_tokens, keypoint_report, report_labels, report_text
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens

NAMES = ("a", "b", "c", "d", "hand", "copy of a", "corner", "ghost")


def batch(count=40, seed=0):
    """Four rigid points, a hand that swings, a copy of point 0, a point stuck in a corner, one never seen."""
    rng = np.random.default_rng(seed)
    body = np.array([[-20, -20], [20, -20], [-15, 20], [15, 20]], float)
    angle, scale = rng.uniform(-0.4, 0.4, count), rng.uniform(0.7, 1.3, count)
    swing = rng.uniform(-1.2, 1.2, count)
    hand = np.array([20, -20]) + 25 * np.stack([np.cos(swing), np.sin(swing)], -1)
    xy = np.concatenate([np.tile(body, (count, 1, 1)), hand[:, None]], 1)
    z = (xy[..., 0] + 1j * xy[..., 1]) * (scale * np.exp(1j * angle))[:, None]
    xy = np.stack([z.real, z.imag], -1) + rng.uniform(60, 140, (count, 1, 2))
    corner = np.tile([198.0, 198.0], (count, 1, 1)) + rng.normal(0, 0.5, (count, 1, 2))
    xy = np.concatenate([xy, xy[:, :1], corner, rng.uniform(0, 200, (count, 1, 2))], 1)
    xy[:, :6] += rng.normal(0, 0.5, (count, 6, 2))
    confidence = np.full((count, 8), 0.8)
    confidence[:, 7] = 0.05
    return Keypoints(xy, confidence, np.full((count, 2), 200), NAMES)


def tokens(count=4, **changes):
    values = {
        "embeddings": torch.randn(10, 3),
        "chosen": tuple(range(count)),
        "votes": tuple(range(100, 100 + count)),
        "names": ("nose", "left eye", "kp2", "kp3")[:count],
        "skeleton": ((0, 1), (1, 2), (2, 3)) if count == 4 else (),
    }
    return KeypointTokens(**{**values, **changes})


def test_useless_points_are_found_and_good_ones_are_not():
    points = keypoint_report(batch())
    assert [p.dead != "" for p in points] == [False] * 6 + [True, True]
    assert "one position" in points[6].dead and "0 %" in points[7].dead
    assert [p.duplicate_of for p in points] == [None] * 5 + [0, None, None]
    assert all(abs(p.confidence - 0.8) < 1e-6 for p in points[:7]) and points[7].seen == 0
    text = report_text(points)
    assert text.splitlines()[-1] == "suggested edit: drop 5 6 7"
    assert len(text.splitlines()) == 10
    labels = report_labels(points)
    assert labels[5].endswith("!") and not labels[0].endswith("!") and labels[3].startswith("3: ")


def test_consistency_is_high_for_rigid_points_and_low_for_a_hand():
    clean = batch().select([0, 1, 2, 3, 4])
    rigid = [p.consistency for p in keypoint_report(clean.select([0, 1, 2, 3]))]
    assert min(rigid) > 0.9
    points = keypoint_report(clean)
    assert points[4].consistency < min(p.consistency for p in points[:4]) - 0.1
    noise = np.random.default_rng(0).uniform(0, 200, (40, 5, 2))
    random = Keypoints(noise, clean.confidence, clean.sizes)
    assert max(p.consistency for p in keypoint_report(random)) < 0.3


def test_aligned_images_have_no_dead_points():
    """Where every point stands still, standing still means nothing."""
    still = np.tile(np.random.default_rng(0).uniform(20, 180, (1, 6, 2)), (20, 1, 1))
    points = keypoint_report(Keypoints(still, np.ones((20, 6)), np.full((20, 2), 200)))
    assert not any(p.dead for p in points) and min(p.consistency for p in points) > 0.99


def test_votes_and_scores_of_the_tokens():
    kp = batch().select([0, 1, 2, 3])
    of_chosen = keypoint_report(kp, tokens(scores=(0.1, 0.2, 0.3, 0.4)))
    assert [p.votes for p in of_chosen] == [100, 101, 102, 103]
    assert [p.score for p in of_chosen] == [0.1, 0.2, 0.3, 0.4]
    of_all = keypoint_report(kp, tokens(chosen=(7, 1, 4, 2), votes=tuple(range(10))))
    assert [p.votes for p in of_all] == [7, 1, 4, 2] and of_all[0].score is None
    assert keypoint_report(kp)[0].votes is None
    with pytest.raises(KeypointError, match="4 keypoints but 8"):
        keypoint_report(batch(), tokens())
    with pytest.raises(KeypointError, match="no keypoints to report on"):
        keypoint_report(kp.rows([]))


def test_one_image_is_enough_for_a_report():
    points = keypoint_report(batch().frame(0))
    assert len(points) == 8 and all(np.isfinite(p.consistency) for p in points)


def test_drop_rename_reorder():
    edited = edit_tokens(tokens(), "drop 1\nrename kp2 = tail\nreorder 3 0\n")
    assert edited.names == ("kp3", "nose", "tail")
    assert edited.chosen == (3, 0, 2) and edited.votes == (103, 100, 102)
    assert edited.skeleton == ((2, 0),)  # kp2-kp3; the other edges went to the dropped point
    assert edited.embeddings.shape == (10, 3)


def test_numbers_mean_the_points_as_they_were():
    a = edit_tokens(tokens(), "drop 0\ndrop 1\nrename 2 x")
    assert a.names == ("x", "kp3")
    b = edit_tokens(tokens(), "rename 2 x\ndrop 1, 0")
    assert a.names == b.names and a.chosen == b.chosen
    swapped = edit_tokens(tokens(), "rename kp2 kp3\nrename kp3 kp2")
    assert swapped.names == ("nose", "left eye", "kp3", "kp2")


def test_names_with_spaces():
    edited = edit_tokens(tokens(), "rename left eye = the left eye\ndrop nose, left eye  # both\n")
    assert edited.names == ("kp2", "kp3")
    assert edit_tokens(tokens(), "rename left eye big eye").names[1] == "big eye"
    assert edit_tokens(tokens(), "drop left eye,").names == ("nose", "kp2", "kp3")


def test_colours():
    edited = edit_tokens(tokens(), "recolour 1 #ff8000\nrecolor kp3 = 1, 2,3\n# a comment")
    usual = palette(4)
    assert edited.colors == (usual[0], (255, 128, 0), usual[2], (1, 2, 3))
    assert edit_tokens(tokens(), "rename 0 x").colors == ()
    assert edit_tokens(edited, "drop 0\nrecolour 2 000000").colors == ((255, 128, 0), (0, 0, 0), (1, 2, 3))


def test_edges():
    edited = edit_tokens(tokens(), "skeleton 0-2, nose-left eye\nreorder 2")
    assert edited.skeleton == ((1, 0), (1, 2))
    assert edit_tokens(tokens(), "skeleton").skeleton == ()


def test_edits_are_saved_in_the_file(tmp_path):
    edited = edit_tokens(tokens(), "drop 0\nrecolour 1 #010203\nskeleton 1-3")
    back = KeypointTokens.load(edited.save(tmp_path / "t"))
    assert (back.names, back.colors, back.skeleton) == (edited.names, edited.colors, edited.skeleton)


def test_no_edits_change_nothing():
    before = tokens()
    after = edit_tokens(before, "\n  \n# only a comment\n")
    assert (after.names, after.chosen, after.skeleton) == (before.names, before.chosen, before.skeleton)
    assert torch.equal(after.embeddings, before.embeddings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("remove 1", "line 1, 'remove 1': 'remove' is no edit"),
        ("drop 1\ndrop 9", "line 2, 'drop 9': there is no keypoint '9'"),
        ("drop", "no keypoint is mentioned"),
        ("drop 0 1 2 3", "all 4 keypoints would be dropped"),
        ("rename 0", "give a keypoint and its name"),
        ("rename 7 x", "no keypoint '7'"),
        ("rename 0 kp2", "names must differ"),
        ("reorder 1 1", "mentioned twice"),
        ("recolour 0 blue", "'blue' is no colour"),
        ("recolour 0 1,2,300", "no colour"),
        ("recolour 0", "give a keypoint and its colour"),
        ("skeleton 0-9", "line 1.*'0-9' is no edge"),
    ],
)
def test_bad_edits_name_the_line(text, message):
    with pytest.raises(KeypointError, match=message):
        edit_tokens(tokens(), text)
