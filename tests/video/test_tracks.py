"""Tracks go by image, not by row."""

import json

import numpy as np

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.video.smoothing import smooth_keypoints
from stablekp_core.video.tracks import to_track_json, to_tracks

FIGURE = np.array([[0.0, 0], [20, 0], [10, 30]])


def keypoints(places, index, **fields):
    """Rows of one figure at `places`, on images `index`."""
    xy = np.array([FIGURE + place for place in places]).reshape(-1, 3, 2)
    return Keypoints(xy, np.ones(xy.shape[:2]), np.full((len(xy), 2), 400), image_index=index, **fields)


def test_one_figure_is_one_track_of_all_images():
    found = keypoints([(0, 0), (300, 300), (10, 0)], [0, 1, 3], num_images=5)  # it may jump
    tracks = to_tracks(found)
    assert tracks["track_path"].shape == (5, 3, 2) and tracks["track_path"].dtype == np.float32
    assert tracks["track_visibility"].tolist() == [[v] * 3 for v in (True, True, False, True, False)]
    assert (tracks["track_path"][[0, 1, 2, 3, 4]] == found.xy[[0, 1, 1, 2, 2]]).all()  # rests where it was last
    by_track = json.loads(to_track_json(found))
    assert len(by_track) == 3 and len(by_track[0]) == 5 and by_track[2][3] == {"x": 20.0, "y": 30.0}


def test_two_figures_of_one_image_are_two_tracks():
    found = keypoints([(0, 0), (200, 0)], [0, 0])
    tracks = to_tracks(found)
    assert tracks["track_path"].shape == (1, 6, 2)  # not two frames of one figure
    moving = keypoints([(200, 0), (0, 0), (5, 0), (205, 0), (10, 0)], [0, 0, 1, 1, 2])
    tracks = to_tracks(moving, 0.5)
    assert tracks["track_path"][:, 3, 0].tolist() == [0, 5, 10] and tracks["track_path"][:, 0, 0].tolist() == [
        200,
        205,
        205,
    ]
    assert tracks["track_visibility"][:, 0].tolist() == [True, True, False]
    assert to_tracks(found.rows([]))["track_path"].shape == (1, 0, 2)


def test_smoothing_counts_frames_without_a_figure_and_with_two():
    """A steady motion stays steady, through a file too: an image without a row is a moment all the same."""
    times = [t for t in range(24) if t not in (7, 8)]
    steady = keypoints([(4 * t, 0) for t in times], times, num_images=24)
    extra = keypoints([(300, 300)], [10], num_images=24)
    both = Keypoints(
        np.concatenate([steady.xy, extra.xy]),
        np.ones((len(times) + 1, 3)),
        np.full((len(times) + 1, 2), 400),
        image_index=[*times, 10],
        num_images=24,
    )
    for found in (steady, both, Keypoints.from_json(steady.to_json())):
        for method in ("savitzky-golay", "one-euro"):
            done = smooth_keypoints(found, method, beta=50.0).keypoints
            tolerance = 1e-3 if method == "savitzky-golay" else 4.0
            assert np.abs(done.xy[: len(times)] - steady.xy).max() < tolerance


def test_a_swapped_point_takes_all_that_is_known_of_it_along():
    """Whether it is occluded stayed with the wrong point."""
    places = [(3 * t, 0) for t in range(20)]
    found = keypoints(places, range(20))
    occluded = np.tile([0.9, 0.1, 0.2], (20, 1))
    orders = np.tile(np.arange(3), (20, 1))
    orders[8:11] = [1, 0, 2]
    swapped = Keypoints(found.xy, found.confidence, found.sizes, occluded=occluded).reordered(orders)
    done = smooth_keypoints(swapped, "none", identity="all")
    assert done.swaps == 3
    np.testing.assert_allclose(done.keypoints.xy, found.xy)
    np.testing.assert_allclose(done.keypoints.occluded, occluded)
