"""The metrics on numbers worked out by hand."""

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.evaluation import metrics
from stablekp_core.evaluation.datasets.human36m import SWAP

TRUTH = np.array([[[0.2, 0.2], [0.6, 0.2], [0.4, 0.8]], [[0.5, 0.5], [0.5, 0.7], [0.1, 0.1]]])
#: Distances: 0.05, 0, 0.1 in the first image; 0.2, 0.1, 0 in the second.
GUESS = TRUTH + np.array([[[0.03, 0.04], [0, 0], [-0.06, 0.08]], [[0.2, 0], [0, -0.1], [0, 0]]])
VISIBLE = np.array([[True, True, False], [True, False, False]])


def test_mean_l2_percent():
    assert metrics.mean_l2_percent(GUESS, TRUTH) == pytest.approx(100 * 0.45 / 6)
    assert metrics.mean_l2_percent(GUESS, TRUTH, VISIBLE) == pytest.approx(100 * (0.05 + 0 + 0.2) / 3)


def test_per_image_and_micro_means_differ():
    per_image = ((0.05 + 0) / 2 + 0.2 / 1) / 2
    assert metrics.visible_mean_image(GUESS, TRUTH, VISIBLE) == pytest.approx(100 * per_image)
    assert metrics.visible_mean_micro(GUESS, TRUTH, VISIBLE) == pytest.approx(100 * 0.25 / 3)
    nothing = VISIBLE.copy()
    nothing[0] = False  # an image that shows no landmark counts for nothing
    assert metrics.visible_mean_image(GUESS, TRUTH, nothing) == pytest.approx(20)


def test_inter_ocular_divides_by_each_images_own_eyes():
    first, second = (0.05 + 0 + 0.1) / 3 / 0.4, (0.2 + 0.1 + 0) / 3 / 0.2
    assert metrics.inter_ocular(GUESS, TRUTH) == pytest.approx(100 * (first + second) / 2)


def test_inter_ocular_counts_visible_landmarks_of_images_with_two_eyes():
    seen = np.array([[True, True, False], [True, True, True]])
    first, second = (0.05 + 0) / 2 / 0.4, (0.2 + 0.1 + 0) / 3 / 0.2
    assert metrics.inter_ocular(GUESS, TRUTH, seen) == pytest.approx(100 * (first + second) / 2)
    assert metrics.inter_ocular(GUESS, TRUTH, VISIBLE) == pytest.approx(100 * first)  # one eye is no measure
    assert metrics.inter_ocular(GUESS, TRUTH, eyes=(0, 2)) == pytest.approx(
        50 * (0.05 / np.hypot(0.2, 0.6) + 0.1 / np.hypot(0.4, 0.4))
    )
    with pytest.raises(KeypointError, match="two eyes apart"):
        metrics.inter_ocular(GUESS, TRUTH, np.zeros((2, 3), bool))
    with pytest.raises(KeypointError, match="two eyes apart"):
        metrics.inter_ocular(GUESS, TRUTH[:, [0, 0, 2]])


def test_both_tai_chi_metrics():
    # Standard: mean |error| of a coordinate over the images that show it; joint 0: x (0.03 + 0.2) / 2, ...
    standard = 256 * ((0.03 + 0.2) / 2 + (0.04 + 0) / 2 + 0 + 0)
    assert metrics.taichi_standard(256 * GUESS, 256 * TRUTH, VISIBLE) == pytest.approx(standard)
    reference = 256 * ((0.05 + 0) + 0.2) / 2
    assert metrics.taichi_reference(256 * GUESS, 256 * TRUTH, VISIBLE) == pytest.approx(reference)


def test_pck_counts_what_is_closer():
    truth = np.zeros((1, 4, 2))
    guess = np.array([[[5.99, 0], [0, 6.0], [6.01, 0], [0, 0]]]) / 256
    assert metrics.METRICS["pck_6"].measure(guess, truth, np.ones((1, 4), bool), metrics.Roles()) == 50
    seen = np.array([[True, True, False, False]])
    assert metrics.pck(guess, truth, 6 / 256, seen) == 50 and metrics.pck(guess, truth, 1, seen) == 100
    assert metrics.METRICS["pck_5_percent"].measure(
        GUESS, TRUTH, np.ones((2, 3), bool), metrics.Roles()
    ) == pytest.approx(100 / 3)
    assert metrics.METRICS["pck_10_percent"].measure(GUESS, TRUTH, VISIBLE, metrics.Roles()) == pytest.approx(200 / 3)


def test_l2_at_a_size():
    assert metrics.l2_at(GUESS, TRUTH, 128) == pytest.approx(128 * 0.45 / 6)
    assert metrics.METRICS["l2_128"].measure(GUESS, TRUTH, VISIBLE, metrics.Roles()) == pytest.approx(128 * 0.25 / 3)


def test_the_tai_chi_relation_of_the_paper():
    """Every pair of the paper's tables has the ratio 33.46 = 2 x 16.73 visible joints."""
    assert metrics.taichi_reference(256 * GUESS, 256 * TRUTH, VISIBLE) / metrics.l2_at(GUESS, TRUTH, 128, VISIBLE) == (
        pytest.approx(2 * VISIBLE.sum() / len(VISIBLE))
    )


def test_swap_invariant_takes_the_better_reading_per_image():
    swap = [1, 0, 2]
    guess = TRUTH.copy()
    guess[1] = guess[1][swap]
    assert metrics.swap_invariant(guess, TRUTH, swap) == pytest.approx(0)
    straight = [np.mean([0.05, 0, 0.1]), np.mean([0.2, 0.1, 0])]
    exchanged = [np.linalg.norm(GUESS[i] - TRUTH[i][swap], axis=1).mean() for i in range(2)]
    expected = 128 * np.mean([min(pair) for pair in zip(straight, exchanged, strict=True)])
    assert metrics.swap_invariant(GUESS, TRUTH, swap) == pytest.approx(expected)


def test_swap_invariant_counts_the_landmarks_that_the_image_shows():
    swap, seen = [1, 0, 2], np.array([[True, False, True], [False, False, False]])
    guess = TRUTH.copy()
    guess[0] = guess[0][swap] + [[0, 0.3], [0.06, 0.08], [0, 0.02]]  # the second reading is off 0.1 and 0.02
    expected = 128 * (0.1 + 0.02) / 2  # the image that shows nothing counts for nothing
    assert metrics.swap_invariant(guess, TRUTH, swap, visible=seen) == pytest.approx(expected)


def test_a_table_that_is_no_swap_is_refused():
    broken = list(SWAP)
    broken[21] = 28  # 20 and 21 both on 28
    with pytest.raises(KeypointError, match="not a swap"):
        metrics.swap_invariant(np.zeros((1, 32, 2)), np.zeros((1, 32, 2)), broken)


def test_mean_baseline_is_the_mean_of_what_is_visible():
    guess = metrics.mean_baseline(TRUTH, 3, np.array([[True, True, True], [True, False, True]]))
    assert guess.shape == (3, 3, 2)
    np.testing.assert_allclose(guess[2], [[0.35, 0.35], [0.6, 0.2], [0.25, 0.45]])


def test_names_and_shapes_are_checked():
    with pytest.raises(KeypointError, match="inter_ocular, visible_mean_image"):
        metrics.metric("l3")
    assert metrics.metric("taichi_standard").intercept and not metrics.metric("taichi_reference").intercept
    with pytest.raises(KeypointError, match="give the same"):
        metrics.distances(TRUTH, TRUTH[:1])
