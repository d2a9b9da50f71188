"""ControlNet hint images, pixel by pixel against renderings that share no code or table with the drawer."""

import math

import cv2
import numpy as np
import pytest

from stablekp_core.drawing.hints import draw_ap10k, draw_openpose, draw_scribble
from stablekp_core.drawing.raster import fill_disc, fill_ellipse, thick_line
from stablekp_core.errors import KeypointError

# The published tables as text: pairs of points, then the colour.
OPENPOSE = """
1-2 255,0,0 · 1-5 255,85,0 · 2-3 255,170,0 · 3-4 255,255,0 · 5-6 170,255,0 · 6-7 85,255,0
1-8 0,255,0 · 8-9 0,255,85 · 9-10 0,255,170 · 1-11 0,255,255 · 11-12 0,170,255 · 12-13 0,85,255
1-0 0,0,255 · 0-14 85,0,255 · 14-16 170,0,255 · 0-15 255,0,255 · 15-17 255,0,170
"""
AP10K = """
1-2 255,255,255 · 2-3 100,255,100 · 1-3 150,255,255 · 3-4 100,50,255 · 4-9 50,150,200 · 9-10 0,255,255
10-11 0,150,0 · 4-6 0,0,255 · 6-7 0,0,150 · 7-8 255,50,255 · 4-5 255,0,255 · 5-15 255,0,0
15-16 150,0,0 · 16-17 255,255,100 · 5-12 0,150,0 · 12-13 255,255,0 · 13-14 150,150,150
"""


def table(text, base):
    for entry in text.strip().replace("\n", " · ").split(" · "):
        pair, color = entry.split(" ")
        a, b = (int(i) - base for i in pair.split("-"))
        yield a, b, tuple(int(c) for c in color.split(","))


def grid(width, height):
    return np.meshgrid(np.arange(width), np.arange(height))


def inside_ellipse(a, b, half_width, width, height):
    """About the distance in pixels to the ellipse between two points, negative inside.

    As in the training images its centre and half length are cut to whole pixels, its angle to whole
    degrees.
    """
    cols, rows = grid(width, height)
    cx, cy = int((a[0] + b[0]) / 2), int((a[1] + b[1]) / 2)
    half = max(int(math.dist(a, b) / 2), 1e-6)
    angle = math.radians(math.trunc(math.degrees(math.atan2(a[1] - b[1], a[0] - b[0]))))
    ux, uy = math.cos(angle), math.sin(angle)
    along, across = (cols - cx) * ux + (rows - cy) * uy, (cols - cx) * uy - (rows - cy) * ux
    radius = np.hypot(along / half, across / half_width)
    slope = np.hypot(along / half**2, across / half_width**2)
    # OpenCV fills every pixel that the outline touches: half a pixel more on all sides.
    return (radius - 1) * radius / np.maximum(slope, 1e-9) - 0.5


def inside_segment(a, b, half_width, width, height):
    cols, rows = grid(width, height)
    d = np.array([b[0] - a[0], b[1] - a[1]], dtype=float)
    t = np.clip(((cols - a[0]) * d[0] + (rows - a[1]) * d[1]) / max(d @ d, 1e-9), 0, 1)
    return np.hypot(cols - a[0] - t * d[0], rows - a[1] - t * d[1]) - half_width


def inside_disc(p, radius, width, height):
    cols, rows = grid(width, height)
    return np.hypot(cols - p[0], rows - p[1]) - radius


def compare(result, layers, tolerance):
    """Every pixel has the colour of the top layer there; pixels within `tolerance` of any edge may differ."""
    expected = np.zeros_like(result)
    sure = np.ones(result.shape[:2], dtype=bool)
    for distance, color in layers:
        expected[distance <= 0] = color
        sure &= np.abs(distance) > tolerance
    assert np.array_equal(result[sure], expected[sure])
    assert (expected[sure] > 0).any(axis=1).sum() > 300  # the comparison is not about empty ground
    touched = (result > 0).any(axis=2)
    assert abs(int(touched.sum()) - int((expected > 0).any(axis=2).sum())) < 0.05 * touched.sum()


def person(seed, points=18, size=480):
    """Points apart from each other, so that every limb shows."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(20, size - 20, (points, 2))
    return np.column_stack([xy, np.ones(points)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("missing", [(), (1,), (0, 4, 17)])
def test_openpose_pixels(seed, missing):
    pose = person(seed)
    pose[list(missing)] = 0
    pixels = np.floor(pose[:, :2]).astype(int)
    limbs = list(table(OPENPOSE, 0))
    layers = [
        (inside_ellipse(pose[a, :2], pose[b, :2], 4, 480, 480), [int(c * 0.6) for c in color])
        for a, b, color in limbs
        if a not in missing and b not in missing
    ]
    colors = [color for _, _, color in limbs] + [(255, 0, 85)]
    layers += [(inside_disc(pixels[j], 4, 480, 480), colors[j]) for j in range(18) if j not in missing]
    compare(draw_openpose([pose], 480, 480), layers, 1.2)


def drawn_by_others(pose, width, height):
    """What ComfyUI's SDPose Draw Keypoints and comfyui_controlnet_aux cover, where nothing lies outside."""
    canvas = np.zeros((height, width), np.uint8)
    for a, b, _ in table(OPENPOSE, 0):
        (xa, ya, ca), (xb, yb, cb) = pose[a], pose[b]
        if ca and cb:
            length, angle = math.sqrt((xa - xb) ** 2 + (ya - yb) ** 2), math.degrees(math.atan2(ya - yb, xa - xb))
            centre = int((xa + xb) / 2), int((ya + yb) / 2)
            cv2.fillConvexPoly(canvas, cv2.ellipse2Poly(centre, (int(length / 2), 4), int(angle), 0, 360, 1), 255)
    for x, y, c in pose:
        if c:
            cv2.circle(canvas, (int(x), int(y)), 4, 255, thickness=-1)
    return canvas > 0


@pytest.mark.parametrize("side", [128, 480])
def test_openpose_covers_the_pixels_that_other_programs_draw(side):
    for seed in range(8):
        pose = person(seed, size=side)
        assert np.array_equal(draw_openpose([pose], side, side).any(axis=2), drawn_by_others(pose, side, side))


@pytest.mark.parametrize("seed", range(20))
def test_shapes_cover_the_pixels_that_opencv_fills(seed):
    rng = np.random.default_rng(seed)
    theirs, ours = np.zeros((2, 200, 240, 3), np.uint8)
    (x, y), axes, degrees = (
        rng.integers(-20, 220, 2).tolist(),
        rng.integers(0, 90, 2).tolist(),
        int(rng.integers(-180, 181)),
    )
    cv2.fillConvexPoly(theirs, cv2.ellipse2Poly((x, y), axes, degrees, 0, 360, 1), (9, 8, 7))
    fill_ellipse(ours, (x, y), axes, degrees, (9, 8, 7))
    assert (theirs != ours).any(axis=2).sum() <= 2  # where an edge runs just between two pixels
    assert (theirs > 0).any()
    a, b = rng.integers(10, 190, (2, 2)).tolist()
    cv2.line(theirs, a, b, (1, 2, 3), thickness=5)
    thick_line(ours, a, b, (1, 2, 3), 5)
    cv2.circle(theirs, (x, y), 4, (200, 100, 0), thickness=-1)
    fill_disc(ours, (x, y), 4, (200, 100, 0))
    assert (theirs != ours).any(axis=2).sum() <= 3


def test_openpose_limb_is_exact_where_nothing_is_rounded():
    pose = np.zeros((18, 3))
    pose[2], pose[3] = (100.7, 50.2, 1), (200.1, 50.9, 1)
    result = draw_openpose([pose], 300, 100)
    column = result[:, 150]
    assert [tuple(c) for c in column[46:55]] == [(153, 102, 0)] * 9  # half-width 4 around row 50
    assert (column[:46] == 0).all() and (column[55:] == 0).all()
    assert tuple(result[50, 100]) == (255, 170, 0) != tuple(result[50, 110])
    dot = (result == (255, 170, 0)).all(axis=2)
    rows, cols = np.nonzero(dot)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (46, 54, 96, 104)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("missing", [(), (3,), (0, 10)])
def test_ap10k_pixels(seed, missing):
    animal = person(seed + 10, 17)
    animal[list(missing)] = 0
    pixels = np.floor(animal[:, :2]).astype(int)
    layers = [
        (inside_segment(pixels[a], pixels[b], 3.5, 480, 480), color)
        for a, b, color in table(AP10K, 1)
        if a not in missing and b not in missing
    ]
    compare(draw_ap10k([animal], 480, 480), layers, 1.0)


def test_ap10k_line_has_opencvs_thickness_five_and_no_dots():
    animal = np.zeros((17, 3))
    animal[0], animal[1] = (50.5, 40.5, 1), (150.5, 40.5, 1)
    result = draw_ap10k([animal], 200, 80)
    assert np.flatnonzero(result[:, 100].any(axis=1)).tolist() == [37, 38, 39, 40, 41, 42, 43]
    assert (result[result.any(axis=2)] == 255).all()
    animal[1] = 0
    assert not draw_ap10k([animal], 200, 80).any()


def test_all_accepted_shapes_are_the_same_image():
    a, b = person(0), person(1)
    expected = draw_openpose([a, b], 480, 480)
    for people in (np.stack([a, b]), [a.ravel().tolist(), b.ravel().tolist()], np.stack([a, b]).tolist()):
        assert np.array_equal(draw_openpose(people, 480, 480), expected)
    assert np.array_equal(draw_openpose(a, 480, 480), draw_openpose([a], 480, 480))
    assert np.array_equal(draw_openpose(a.ravel(), 480, 480), draw_openpose([a], 480, 480))
    later = draw_openpose([b, a], 480, 480)
    assert not np.array_equal(later, expected)  # the last person lies on top


@pytest.mark.parametrize("draw", [draw_openpose, draw_ap10k])
def test_empty_and_bad_poses(draw):
    assert draw([], 64, 32).shape == (32, 64, 3) and not draw([], 64, 32).any()
    points = 18 if draw is draw_openpose else 17
    far = np.full((points, 3), 1e12)
    assert draw([far], 64, 32).dtype == np.uint8
    for bad in (np.ones((1, points - 1, 3)), np.ones((points, 2)), "pose", [[np.nan] * 3 * points]):
        with pytest.raises(KeypointError):
            draw(bad, 64, 32)
    with pytest.raises(KeypointError, match="0x32"):
        draw([], 0, 32)


def test_scribble_is_white_lines_on_black():
    xy = np.array([[20.5, 50.5], [180.5, 50.5], [180.5, 90.5]])
    result = draw_scribble(xy, [(0, 1), (1, 2)], 200, 100, 5)
    assert (result[:, :, 0] == result[:, :, 1]).all() and (result[:, :, 0] == result[:, :, 2]).all()
    core = (inside_segment((20, 50), (180, 50), 1.5, 200, 100) <= 0) | (
        inside_segment((180, 50), (180, 90), 1.5, 200, 100) <= 0
    )
    near = (inside_segment((20, 50), (180, 50), 4.0, 200, 100) <= 0) | (
        inside_segment((180, 50), (180, 90), 4.0, 200, 100) <= 0
    )
    assert (result[core] == 255).all() and (result[~near] == 0).all()
    assert result[:, 100, 0].sum() / 255 == pytest.approx(5, abs=1)


def test_scribble_hides_unsure_points_and_takes_several_figures():
    xy = np.array([[[20, 20], [80, 20]], [[20, 60], [80, 60]]], dtype=float)
    both = draw_scribble(xy, [(0, 1)], 100, 80)
    assert both[20, 50].any() and both[60, 50].any()
    one = draw_scribble(xy, [(0, 1)], 100, 80, confidence=[[1, 1], [1, 0.2]], threshold=0.5)
    assert one[20, 50].any() and not one[60, 50].any()
    gone = draw_scribble(xy, [(0, 1)], 100, 80, confidence=[[1, 1], [1, 0]])
    assert not gone[60, 50].any()
    with pytest.raises(KeypointError, match="needs a skeleton"):
        draw_scribble(xy, [], 100, 80)
