"""The self-check in words."""

from dataclasses import replace

import pytest

from stablekp_core.config import TrainConfig
from stablekp_core.keypoints.self_check import ReadoutCheck, SelfCheck, better_readout, ratio, report, verdict

GOOD = ReadoutCheck(0.018, 0.14, 0.031, 0.12, 0.4, 0.05)
POOR = ReadoutCheck(0.12, 0.14, 0.11, 0.12, 1.1, 0.7)
DEFAULT, PAPER = TrainConfig().to_dict(), TrainConfig.preset("paper").to_dict()


def check(learned=POOR, refined=GOOD, images=8, **fields):
    used = better_readout(learned, refined, 10)
    return SelfCheck(images, "left out", used, learned, refined, ("b.png", "d.png"), 10, **fields)


def test_a_good_result_is_said_with_its_chance_levels():
    text = report(check(), DEFAULT)
    assert text.splitlines()[0] == "self-check on 8 images that were left out: good"
    assert "refined tokens are read: steady within 1.8 % of the side (chance 14 %)" in text
    assert "3.1 % from their expected positions (chance 12 %)" in text and "learned ones are not: steady" in text
    assert "Try" not in text


def test_a_poor_result_of_default_names_the_preset_paper():
    both = replace(POOR, duplicate=(3,), dead=(1, 2))
    poor = check(both, both, images=4)
    assert poor.verdict == "poor"
    text = report(poor, DEFAULT)
    assert "--preset paper --steps 2000" in text and "More images" in text and "(1, 2, 3)" in text
    assert "keypoints with flat maps: 1, 2" in text and "keypoints that double others: 3" in text
    of_paper = report(SelfCheck(25, "seen", "learned", POOR, keypoints=10), PAPER)
    assert "preset default" in of_paper and "images that training saw too" in of_paper


@pytest.mark.parametrize("useless, verdict", [((), "good"), ((1, 2), "good"), ((1, 2, 3), "usable")])
def test_keypoints_of_no_use_lower_the_verdict(useless, verdict):
    assert check(refined=replace(GOOD, stuck=useless)).verdict == verdict


@pytest.mark.parametrize(
    "steady, predicted, expected",
    [(0.34, 0.64, "good"), (0.36, 0.1, "usable"), (0.1, 0.66, "usable"), (0.46, 0.1, "poor"), (0.1, 0.91, "poor")],
)
def test_the_worse_of_steadiness_and_predictability_decides(steady, predicted, expected):
    """Features that know nothing follow colours and edges: half as steady as chance, now and then predictable."""
    assert verdict(replace(GOOD, steadiness=0.14 * steady, predictability=0.12 * predicted)) == expected


def test_the_readout_is_taken_whose_points_tell_of_each_other():
    assert better_readout(POOR, GOOD) == "refined" and better_readout(GOOD, POOR) == "learned"
    assert better_readout(POOR) == "learned" and better_readout(GOOD, GOOD) == "refined"
    jumping = replace(GOOD, steadiness=0.03)  # where points move independently, all are predicted alike
    assert better_readout(GOOD, jumping) == "learned" and better_readout(jumping, GOOD) == "refined"
    still = replace(GOOD, predictability=0.001, predictability_chance=0.002, stuck=tuple(range(10)))
    assert better_readout(still, replace(GOOD, predictability=0.09), 10) == "refined"  # predicted for nothing
    assert better_readout(GOOD, replace(GOOD, predictability=0.03, duplicate=(1,)), 10) == "learned"


def test_the_ratio_is_error_by_chance():
    assert ratio(GOOD) == pytest.approx((0.018 / 0.14 + 0.031 / 0.12) / 2)
    assert ratio(replace(GOOD, steadiness_chance=0.0)) > 1  # nothing moves: chance is as good


def test_left_out_images_are_found_by_name():
    assert check().indices(["a.png", "b.png", "c.png", "d.png"]) == [1, 3]
    assert "left out of training" in check().heading([1]) and "GOOD" in check().heading()
