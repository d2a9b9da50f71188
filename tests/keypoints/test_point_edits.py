"""Edits made by hand: their JSON, and what they do to keypoints."""

import json

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.point_edits import FigureEdits, KeypointEdits, PointEdit, apply_edits, image_keys

NAMES = ("nose", "tail", "paw")


def detected(rows=2, images=("a.png", "b.png"), **more):
    rng = np.random.default_rng(0)
    images = images or ("",) * rows
    values = dict(confidence=np.full((rows, 3), 0.4), sizes=np.tile([100, 80], (rows, 1)), names=NAMES, images=images)
    return Keypoints(**{"xy": rng.uniform(0, 80, (rows, 3, 2)), **values, **more})


def edits(*figures, names=NAMES):
    return KeypointEdits(tuple(figures), names)


def on(image, figure=0, size=(100, 80), **points):
    return FigureEdits(image, figure, size, {name: PointEdit(*value) for name, value in points.items()})


def test_edited_points_move_are_occluded_and_go_and_all_others_stay():
    before = detected()
    done = apply_edits(
        before, edits(on("b.png", nose=("visible", (12.5, 70.25)), tail=("occluded",), paw=("deleted",)))
    ).keypoints
    assert done.xy[1, 0].tolist() == [12.5, 70.25]
    assert done.confidence[1].tolist() == [1, 1, 0] and done.is_occluded[1].tolist() == [False, True, False]
    np.testing.assert_array_equal(done.xy[1, 1:], before.xy[1, 1:])
    np.testing.assert_array_equal(done.xy[0], before.xy[0])
    np.testing.assert_array_equal(done.confidence[0], before.confidence[0])


def test_json_comes_back_the_same():
    one = edits(on("a.png", nose=("visible", (1.25, 2.0)), tail=("deleted",)), on(3, 1, (640, 480), paw=("occluded",)))
    assert KeypointEdits.from_json(one.to_json()) == one
    assert KeypointEdits.from_json(" \n") == KeypointEdits() and KeypointEdits().to_json() == ""


def test_edits_follow_the_image_and_the_figure():
    rows = detected(3, ("a.png", "a.png", "b.png"), image_index=np.array([4, 4, 7]))
    assert image_keys(rows) == ["a.png", "a.png", "b.png"]
    second = apply_edits(rows, edits(on("a.png", 1, nose=("visible", (1.0, 2.0)))))
    assert second.edited.sum(axis=1).tolist() == [0, 1, 0]
    by_number = apply_edits(rows, edits(on(7, nose=("deleted",))))
    assert by_number.edited.sum(axis=1).tolist() == [0, 0, 1]
    assert image_keys(detected(2, None)) == [0, 1]
    assert image_keys(detected(2, ("same.png", "same.png"))) == [0, 1]  # a name that two images have is no name


def test_an_image_of_another_size_scales_them():
    done = apply_edits(detected(sizes=np.array([[200, 240]] * 2)), edits(on("a.png", nose=("visible", (10.0, 20.0)))))
    assert done.keypoints.xy[0, 0].tolist() == [20.0, 60.0]


def test_what_matches_nothing_is_said_and_the_rest_is_applied():
    figures = on("a.png", nose=("deleted",), horn=("deleted",)), on("gone.png", nose=("deleted",))
    done = apply_edits(detected(), edits(*figures, names=(*NAMES, "horn")))
    assert done.edited.sum() == 1
    report = done.report()
    assert report.startswith("1 points edited in 1 of 2 images")
    assert "4 keypoints, but 3 arrive" in report and "horn" in report and "gone.png" in report


def moving(frames=11):
    """Points that move steadily to the right, with a little tremble."""
    rng = np.random.default_rng(1)
    xy = np.stack([np.full((3, 2), 20.0) + [2.0 * t, 0] for t in range(frames)]) + rng.normal(0, 0.3, (frames, 3, 2))
    return Keypoints(
        xy,
        np.full((frames, 3), 0.6),
        np.tile([100, 80], (frames, 1)),
        NAMES,
        images=[f"{t}.png" for t in range(frames)],
    )


def test_edits_are_spread_smoothly_between_edited_frames_and_nowhere_else():
    before = moving()
    moves = {2: (6.0, 0.0), 5: (6.0, 3.0), 8: (0.0, 0.0)}
    figures = [on(f"{t}.png", nose=("visible", tuple((before.xy[t, 0] + d).tolist()))) for t, d in moves.items()]
    done = apply_edits(before, edits(*figures), spread=True)
    offset = done.keypoints.xy - before.xy
    assert (offset[:2] == 0).all() and (offset[9:] == 0).all() and (offset[:, 1:] == 0).all()
    np.testing.assert_allclose(offset[[2, 5, 8], 0], list(moves.values()), atol=1e-4)
    assert (np.diff(offset[2:9, 0, 0]) <= 1e-4).all() and abs(np.diff(offset[2:9, 0], axis=0)).max() < 3
    assert np.flatnonzero(done.spread[:, 0]).tolist() == [3, 4, 6, 7]
    np.testing.assert_allclose(done.keypoints.confidence[3, 0], 0.6)
    assert apply_edits(before, edits(*figures)).spread.sum() == 0


def test_where_the_detection_between_is_bad_the_edits_own_path_is_followed():
    before = moving()
    before.xy[4, 0], before.confidence[4, 0] = [90.0, 70.0], 0.1
    before.xy[5, 0], before.confidence[5, 0] = [0.0, 0.0], 0.0
    figures = [on(f"{t}.png", nose=("visible", (10.0 + 2 * t, 40.0))) for t in (2, 8)]
    done = apply_edits(before, edits(*figures), spread=True, threshold=0.3).keypoints
    np.testing.assert_allclose(done.xy[[4, 5], 0], [[18, 40], [20, 40]], atol=1e-3)
    assert done.confidence[[4, 5], 0].tolist() == [0.5, 0.5]


def test_deleted_and_occluded_runs_spread_too():
    before = moving()
    figures = [
        on("1.png", nose=("deleted",), tail=("occluded",), paw=("deleted",)),
        on("4.png", nose=("deleted",), tail=("occluded",), paw=("visible", (5.0, 5.0))),
    ]
    done = apply_edits(before, edits(*figures), spread=True).keypoints
    assert (done.confidence[1:5, 0] == 0).all() and done.confidence[5, 0] > 0
    assert done.is_occluded[1:5, 1].all() and not done.is_occluded[5:, 1].any()
    np.testing.assert_array_equal(done.xy[2:4, 2], before.xy[2:4, 2])  # from gone to there is no way between


def good():
    return json.loads(edits(on("a.png", nose=("visible", (1.0, 2.0)))).to_json())


def with_point(**values):
    data = good()
    data["images"][0]["points"]["nose"].update(values)
    return data


def with_image(**values):
    data = good()
    data["images"][0].update(values)
    return data


@pytest.mark.parametrize(
    "data, sentence",
    [
        ("{", "not JSON"),
        ([], "no list of images"),
        ({**good(), "version": 9}, "version 9"),
        ({**good(), "names": "nose"}, "not a list of texts"),
        (with_image(image=None), "file name or a number"),
        (with_image(image=-1), "file name or a number"),
        (with_image(figure="1"), "figure"),
        (with_image(size=[0, 10]), "width, height"),
        (with_image(points=[]), "no points by name"),
        (with_point(state="here"), "visible, occluded, deleted"),
        (with_point(x="1"), "two numbers"),
        (with_point(y=None), "two numbers"),
        (with_point(x=float("nan")), "two numbers"),
        (with_point(x=10**400), "two numbers"),
        (with_point(x=True), "two numbers"),
        ("[" * 100000, "not JSON"),
        ("1" * 5000, "not JSON"),
    ],
)
def test_bad_json_is_one_sentence(data, sentence):
    text = data if isinstance(data, str) else json.dumps(data)
    with pytest.raises(KeypointError, match=sentence) as caught:
        KeypointEdits.from_json(text)
    assert "\n" not in str(caught.value)
