import itertools
import tracemalloc

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.video.filters import fill_gaps, jitter, one_euro, savitzky_golay
from stablekp_core.video.smoothing import parse_swaps, smooth_keypoints
from stablekp_core.video.swaps import keep_identity, track_figures

NAMES = (
    "head",
    "neck",
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")),
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")),
)
LEFT, RIGHT = [2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]


def walk(frames=200):
    """A walking stick figure [T, 14, 2] in pixels, about 90 tall, one step in 30 frames; its legs cross."""
    t = np.arange(frames)
    swing = 2 * np.pi * t / 30

    def limb(start, length, angle):
        return start + length * np.stack([np.sin(angle), np.cos(angle)], -1)

    hip = np.stack([40 + 0.6 * t, 70 + 1.5 * np.sin(2 * swing)], -1)
    neck = hip + np.stack([2 * np.sin(swing), np.full(frames, -34.0)], -1)
    points = [neck + [0, -14], neck]
    for side in (1, -1):
        shoulder = neck + [9 * side, 3]
        angle = side * (0.7 * np.sin(swing) + 0.15)
        elbow = limb(shoulder, 16, angle)
        points += [shoulder, elbow, limb(elbow, 15, angle + 0.4 * side + 0.3 * np.sin(swing))]
    for side in (1, -1):
        angle = side * (0.1 - 0.56 * np.sin(swing))
        knee = limb(hip + [6 * side, 0], 21, angle)
        points += [hip + [6 * side, 0], knee, limb(knee, 20, angle - 0.3 + 0.3 * np.cos(swing))]
    return np.stack(points, 1)


def video(xy, confidence=None, **changes):
    confidence = np.full(xy.shape[:2], 0.7) if confidence is None else confidence
    return Keypoints(xy, confidence, np.full((len(xy), 2), (400, 160)), NAMES[: xy.shape[1]], **changes)


def noisy(truth, noise=1.5, seed=0):
    return truth + np.random.default_rng(seed).normal(0, noise, truth.shape)


def mean_error(found, truth):
    return float(np.linalg.norm(found - truth, axis=-1).mean())


def lag(found, truth):
    """Frames by which `found` is behind: the delay of the truth that fits it best."""
    t = np.arange(6, len(truth) - 6)
    delays = np.arange(-4, 4.01, 0.25)

    def delayed(d):
        return [np.interp(t - d, np.arange(len(truth)), column) for column in truth.reshape(len(truth), -1).T]

    flat = found.reshape(len(found), -1)[t].T
    return delays[np.argmin([np.mean((np.array(delayed(d)) - flat) ** 2) for d in delays])]


@pytest.mark.parametrize("noise", [1.0, 3.0])
@pytest.mark.parametrize("method", ["savitzky-golay", "one-euro"])
def test_jitter_halved_without_lag_and_nearer_to_the_truth(method, noise):
    truth = walk()
    kp = video(noisy(truth, noise))
    result = smooth_keypoints(kp, method)
    assert result.jitter_after <= 0.5 * result.jitter_before
    assert abs(lag(result.keypoints.xy, truth)) <= 1
    assert mean_error(result.keypoints.xy, truth) < 0.8 * mean_error(kp.xy, truth)
    assert result.swaps == 0 and result.tracks == 1  # crossing legs are no swap
    assert np.isclose(result.jitter_before, jitter(kp.xy, kp.confidence))
    assert np.isclose(result.jitter_after, jitter(result.keypoints.xy, kp.confidence))
    assert "px/frame^2" in result.report()


def test_causal_one_euro_uses_no_future():
    xy = noisy(walk(60))
    longer = xy.copy()
    longer[40:] += 50
    weights = np.ones(xy.shape[:2])
    a, b = one_euro(xy / 30, weights, causal=True), one_euro(longer / 30, weights, causal=True)
    np.testing.assert_array_equal(a[:40], b[:40])
    assert jitter(a, weights) < 0.5 * jitter(xy / 30, weights)
    assert lag(30 * a, walk(60)) <= 1


def test_one_euro_of_constant_speed_cutoff_is_an_exponential_filter():
    """With beta 0 the filter is x += a (new - x), a = 1 / (1 + fps / (2 pi cutoff))."""
    xy = np.random.default_rng(0).normal(size=(30, 1, 2))
    share, value, expected = 1 / (1 + 10 / (2 * np.pi * 2)), xy[0], []
    for sample in xy:
        value = value + share * (sample - value)
        expected.append(value)
    found = one_euro(xy, np.ones((30, 1)), fps=10, min_cutoff=2, beta=0, causal=True)
    np.testing.assert_allclose(found, expected)


def test_savitzky_golay_against_polynomials_fitted_one_by_one():
    rng = np.random.default_rng(0)
    xy, weights = rng.normal(size=(25, 2, 2)), rng.uniform(0.1, 1, (25, 2))
    weights[7, 0] = 0
    found = savitzky_golay(xy, weights, window=7, order=2)
    for t, k, c in itertools.product(range(25), range(2), range(2)):
        near = np.arange(max(0, t - 3), min(25, t + 4))
        fit = np.polynomial.Polynomial.fit(near - t, xy[near, k, c], 2, w=np.sqrt(weights[near, k]))
        np.testing.assert_allclose(found[t, k, c], fit(0), atol=1e-6)


def test_savitzky_golay_keeps_polynomials_and_survives_lonely_points():
    t = np.arange(20.0)
    parabola = np.stack([t**2, 3 * t], -1)[:, None] + 1e4
    np.testing.assert_allclose(savitzky_golay(parabola, np.ones((20, 1))), parabola, atol=1e-4)
    weights = np.zeros((20, 1))
    np.testing.assert_array_equal(savitzky_golay(parabola, weights), parabola)
    weights[5] = 1
    found = savitzky_golay(parabola, weights)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[5], parabola[5], atol=1e-3)


def test_uncertain_frames_count_less():
    truth = walk(120)
    rng = np.random.default_rng(2)
    bad = rng.random(truth.shape[:2]) < 0.15
    xy = noisy(truth, 0.5) + np.where(bad[..., None], rng.normal(0, 12, truth.shape), 0)
    told = smooth_keypoints(video(xy, np.where(bad, 0.05, 0.8)), identity="none").keypoints.xy
    untold = smooth_keypoints(video(xy), identity="none").keypoints.xy
    assert mean_error(told, truth) < 0.6 * mean_error(untold, truth)


def test_gaps_are_filled_up_to_n_frames():
    truth = walk(60)
    confidence = np.full(truth.shape[:2], 0.8)
    confidence[10:14, 3] = 0  # 4 frames: filled
    confidence[30:36, 4] = 0  # 6 frames: too long
    confidence[:3, 5] = 0  # before the first frame that shows it: unknown
    xy = truth.copy()
    xy[confidence == 0] = 0
    result = smooth_keypoints(video(xy, confidence), fill=5)
    assert result.filled == 4
    assert mean_error(result.keypoints.xy[10:14, 3], truth[10:14, 3]) < 1.0
    assert (result.keypoints.confidence[10:14, 3] == np.float32(0.4)).all()
    assert not result.keypoints.confidence[30:36, 4].any() and not result.keypoints.confidence[:3, 5].any()
    assert smooth_keypoints(video(xy, confidence), fill=3).filled == 0
    low = np.where(confidence == 0, 0.1, confidence)
    assert smooth_keypoints(video(xy, low), fill=5, threshold=0.3).filled == 4


def test_fill_gaps_is_a_straight_line():
    xy = np.array([[0.0, 0], [9, 9], [9, 9], [6, 3]])[:, None]
    filled, where = fill_gaps(xy, np.array([1.0, 0, 0, 1])[:, None], 2)
    np.testing.assert_allclose(filled[:, 0], [[0, 0], [2, 1], [4, 2], [6, 3]])
    assert where[:, 0].tolist() == [False, True, True, False]


def swap_sides(xy, frames):
    out = xy.copy()
    out[np.ix_(frames, LEFT)], out[np.ix_(frames, RIGHT)] = (
        xy[np.ix_(frames, RIGHT)],
        xy[np.ix_(frames, LEFT)],
    )
    return out


@pytest.mark.parametrize("identity", ["auto", "all"])
def test_left_and_right_are_kept(identity):
    """A detector that takes the back for the front in some frames: sides are put back, and nothing else
    moves.
    """
    truth = walk(150)
    truth[..., 0] += 1.5 * (truth[..., 0] - truth[:, 1:2, 0])  # arms spread wide
    frames = np.array([*range(20, 24), 60, *range(90, 120)])
    detected = swap_sides(noisy(truth, 1.0), frames)
    result = smooth_keypoints(video(detected), "none", identity=identity)
    assert mean_error(result.keypoints.xy, truth) < 1.15 * mean_error(noisy(truth, 1.0), truth)
    assert result.swaps == len(frames)
    off = smooth_keypoints(video(detected), "none", identity="none")
    assert off.swaps == 0 and mean_error(off.keypoints.xy, truth) > 3 * mean_error(result.keypoints.xy, truth)


def test_the_minority_of_frames_is_the_swapped_one():
    truth = walk(100)
    truth[:, RIGHT, 0] -= 40
    for frames in (np.arange(30), np.arange(70, 100)):
        found = smooth_keypoints(video(swap_sides(truth, frames)), "none")
        np.testing.assert_allclose(found.keypoints.xy, truth, atol=1e-3)


def test_a_cut_is_no_swap():
    truth = walk(80)
    truth[40:] = truth[40:, ::-1] * [-1, 1] + [500, 30]  # another figure, elsewhere, facing the other way
    order = keep_identity(truth, np.ones(truth.shape[:2]), None)
    assert (order == np.arange(14)).all()


def test_explicit_pairs_carry_confidence_along():
    xy = np.tile(np.array([[0.0, 0], [50, 0], [25, 40]]), (12, 1, 1)) + np.arange(12)[:, None, None]
    confidence = np.tile([0.9, 0.5, 0.7], (12, 1))
    xy[4, [0, 1]], confidence[4, [0, 1]] = xy[4, [1, 0]], confidence[4, [1, 0]]
    result = smooth_keypoints(video(xy, confidence), "none", identity=((0, 1),))
    assert result.swaps == 1
    np.testing.assert_allclose(result.keypoints.confidence, np.tile([0.9, 0.5, 0.7], (12, 1)))
    assert smooth_keypoints(video(xy, confidence), "none", identity=((0, 2),)).swaps == 0


def test_several_figures_are_followed_each_on_its_own():
    truth = np.stack([walk(80), walk(80) + [120, 0]], 1)  # [T, 2, K, 2]
    rng = np.random.default_rng(0)
    rows = noisy(truth, 1.5)
    for t in np.flatnonzero(rng.random(80) < 0.5):
        rows[t], truth[t] = rows[t, ::-1].copy(), truth[t, ::-1].copy()  # the order of figures means nothing
    kp = video(rows.reshape(160, 14, 2), image_index=np.repeat(np.arange(80), 2))
    result = smooth_keypoints(kp)
    assert result.tracks == 2
    assert result.jitter_after < 0.5 * result.jitter_before
    assert mean_error(result.keypoints.xy, truth.reshape(160, 14, 2)) < 0.8 * mean_error(
        kp.xy, truth.reshape(160, 14, 2)
    )
    assert result.keypoints.image_index.tolist() == kp.image_index.tolist()


def test_tracks_end_and_begin():
    one = walk(30)
    kept = [t for t in range(30) if not 8 <= t < 12]  # not found in four frames
    kp = video(one[kept], image_index=np.array(kept))
    assert len(track_figures(kp, patience=5)) == 1
    assert len(track_figures(kp, patience=3)) == 2
    jumped = one.copy()
    jumped[15:] += 200
    assert [len(t) for t in track_figures(video(jumped))] == [15, 15]


def test_memory_does_not_grow_with_the_video():
    """What 2000 frames need beyond their own positions is below 40 times those (chunks of windows)."""
    kp = video(noisy(walk(2000)))
    tracemalloc.start()
    result = smooth_keypoints(kp, identity="none")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.jitter_after < 0.5 * result.jitter_before and result.tracks == 1
    assert peak < 40 * 2000 * 14 * 2 * 8


def test_short_and_empty_videos():
    for frames in (0, 1, 2):
        for method in ("savitzky-golay", "one-euro"):
            result = smooth_keypoints(video(walk(5)[:frames]), method)
            assert len(result.keypoints) == frames and result.jitter_before == 0
    occluded = smooth_keypoints(video(walk(5), np.zeros((5, 14))))
    np.testing.assert_allclose(occluded.keypoints.xy, walk(5), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "kalman"}, "method is 'kalman'"),
        ({"window": 8}, "window of 8 frames"),
        ({"window": 3, "order": 3}, "order 3"),
        ({"method": "one-euro", "fps": 0}, "fps 0"),
        ({"fill": -1}, "fill is -1"),
        ({"identity": "some"}, "identity is 'some'"),
        ({"identity": ((0, 1), (1, 2))}, "must be of different numbers"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(KeypointError, match=message):
        smooth_keypoints(video(walk(20)), **settings)


def test_swaps_as_text():
    kp = video(walk(3))
    assert [parse_swaps(t, kp) for t in ("", " All ", "none")] == ["auto", "all", "none"]
    assert parse_swaps("3-6, left wrist-right wrist", kp) == ((3, 6), (4, 7))
    with pytest.raises(KeypointError, match="no edge"):
        parse_swaps("lots", kp)
