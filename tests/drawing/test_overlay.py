"""Drawing: keypoints, sheets, heat maps, plots, palette."""

import subprocess
import sys

import numpy as np
import pytest

from stablekp_core.drawing.label_layout import place_labels
from stablekp_core.drawing.overlay import draw_keypoints
from stablekp_core.drawing.palette import palette
from stablekp_core.drawing.plots import loss_plot
from stablekp_core.drawing.sheets import contact_sheet, heat_maps, heat_overlay
from stablekp_core.drawing.strokes import put_text, text_size
from stablekp_core.errors import KeypointError


def make_image(height=128, width=192, value=None, seed=0):
    if value is not None:
        return np.full((height, width, 3), value, np.uint8)
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed(result, value):
    return (result != value).any(axis=2)


def black(xy, **options):
    return draw_keypoints(None, xy, canvas="black", size=(192, 128), **{"numbers": False, **options})


# Palette


def linear(rgb):
    c = np.asarray(rgb, dtype=float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def dichromat(rgb_linear, missing):
    """Red-green blindness by projection in LMS (Vienot 1999), not the model the palette was made with."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = rgb_linear @ to_lms.T
    if missing == "protan":
        lms[:, 0] = 2.02344 * lms[:, 1] - 2.52581 * lms[:, 2]
    else:
        lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    return np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1)


def lab(rgb_linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = rgb_linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def smallest_distance(colors, missing=None):
    seen = linear(colors)
    points = lab(seen if missing is None else dichromat(seen, missing))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    return distance[~np.eye(len(points), dtype=bool)].min()


@pytest.mark.parametrize("missing", [None, "protan", "deutan"])
def test_palette_stays_distinct_for_colour_blind_readers(missing):
    """In CIE76 units; about 2.3 is just noticeable. A hue wheel of the same sizes fails by far."""
    import colorsys

    assert smallest_distance(palette(10), missing) > 15
    assert smallest_distance(palette(20), missing) > 7
    assert smallest_distance(palette(32), missing) > 6
    wheel = [tuple(255 * c for c in colorsys.hsv_to_rgb(i / 32, 1, 1)) for i in range(32)]
    if missing is not None:
        assert smallest_distance(wheel, missing) < 2


def test_palette_sizes():
    assert len(set(palette(32))) == 32 and palette(5) == palette(32)[:5] and palette(0) == ()
    assert palette(33)[32] == palette(1)[0]
    with pytest.raises(KeypointError):
        palette(-1)


# Keypoints


def test_the_result_is_a_new_image_of_the_same_size():
    image = make_image()
    before = image.copy()
    result = draw_keypoints(image, [[50, 60]])
    assert result.shape == image.shape and result.dtype == np.uint8
    assert np.array_equal(image, before) and not np.array_equal(result, image)


@pytest.mark.parametrize("x", [20.0, 20.25, 20.5, 33.9])
@pytest.mark.parametrize("y", [40.5, 41.1])
def test_dots_sit_exactly_on_their_points(x, y):
    result = black([[x, y]], colors=[(0, 255, 0)], outline=False, width=4)
    weight = result[:, :, 1] / 255.0
    rows, cols = np.mgrid[:128, :192] + 0.5  # centres of pixels
    assert abs((weight * cols).sum() / weight.sum() - x) < 0.05
    assert abs((weight * rows).sum() / weight.sum() - y) < 0.05
    assert abs(weight.sum() - np.pi * 5.4**2) < 3


def test_lines_run_between_pixel_coordinates():
    result = black([[20.5, 30.5], [120.5, 30.5]], skeleton=[(0, 1)], dots=False, outline=False, width=1)
    weight = result.max(axis=2).astype(float)
    rows, cols = np.nonzero(weight > 100)
    assert set(rows) == {30} and abs(cols.min() - 20) <= 1 and abs(cols.max() - 120) <= 1
    assert abs((weight.sum(axis=1) * (np.arange(128) + 0.5)).sum() / weight.sum() - 30.5) < 0.05
    assert abs((weight.sum(axis=0) * (np.arange(192) + 0.5)).sum() / weight.sum() - 70.5) < 0.05


@pytest.mark.parametrize("width", [2, 3, 4.5, 5, 8])
@pytest.mark.parametrize("end", [(150, 40), (120, 80), (40.2, 110)])
def test_lines_are_as_wide_as_asked(width, end):
    start = (40.3, 40.7)
    result = black([start, end], skeleton=[(0, 1)], dots=False, outline=False, width=width, colors=[(255,) * 3] * 2)
    length = np.hypot(end[0] - start[0], end[1] - start[1])
    area = length * width + np.pi * width**2 / 4  # with round ends
    assert abs(result[:, :, 0].sum() / 255 - area) < 0.35 * length + 2


def test_strokes_are_antialiased():
    levels = black([[20.3, 30.7], [120, 97]], skeleton=[(0, 1)], outline=False, colors=[(255, 255, 255)] * 2)
    assert len(np.unique(levels)) > 20


def test_threshold_missing_points_and_which_hide_points_and_their_lines():
    xy = np.array([[20, 20], [100, 20], [20, 100], [100, 100]], dtype=float)
    skeleton = [(0, 1), (1, 3), (2, 3)]

    def shown(result):
        return [bool(changed(result, 0)[int(y), int(x)]) for x, y in xy]

    confidence = [0.9, 0.2, 0.5, 0.0]
    assert shown(black(xy)) == [True] * 4
    assert shown(black(xy, confidence=confidence)) == [True, True, True, False]
    assert shown(black(xy, confidence=confidence, threshold=0.5)) == [True, False, True, False]
    assert shown(black(xy, which=[3])) == [False, False, False, True]
    assert not changed(black(xy, which=[]), 0).any()
    occluded = changed(black(xy, skeleton=skeleton, confidence=[1, 1, 1, 0]), 0)
    assert occluded[20, 60] and not occluded[60, 100] and not occluded[100, 60]
    assert not changed(black(xy, skeleton=skeleton, lines=False), 0)[20, 60]


def test_dots_of_hidden_points_have_a_dark_middle():
    xy = [[20, 20], [100, 100]]
    plain, marked = black(xy, width=6), black(xy, width=6, occluded=[False, True])
    assert (plain[:60] == marked[:60]).all()
    assert tuple(plain[100, 100]) == palette(2)[1] and max(marked[100, 100]) < 40
    assert tuple(marked[100, 106]) == palette(2)[1]  # the ring
    two = np.array([xy, xy]) + np.array([0, 4])[:, None, None]
    several = black(two, width=6, occluded=[[True, False], [False, True]])
    assert max(several[104, 104]) < 40 and tuple(several[24, 24]) == palette(2)[0]


def test_canvases_and_sizes():
    image = make_image(100, 200)
    xy = [[50.0, 25.0]]
    assert (draw_keypoints(image, xy, canvas="white")[-1, -1] == 255).all()
    assert (draw_keypoints(image, xy, canvas="black")[-1, -1] == 0).all()
    result = draw_keypoints(image, xy, canvas="black", size=(400, 400), numbers=False)
    rows, cols = np.nonzero(changed(result, 0))
    assert result.shape == (400, 400, 3)
    assert abs(cols.mean() + 0.5 - 100) < 0.5 and abs(rows.mean() + 0.5 - 100) < 0.5
    plain = draw_keypoints(image, np.zeros((0, 2)), size=(100, 50))
    assert plain.shape == (50, 100, 3) and abs(plain.mean() - image.mean()) < 2


def test_sizes_follow_the_shorter_side():
    areas = []
    for side in (256, 512, 1024):
        result = draw_keypoints(None, [[side / 2, side / 2]], canvas="black", size=(2 * side, side), numbers=False)
        areas.append(changed(result, 0).sum() / side**2)
    assert max(areas) / min(areas) < 1.35


def test_default_colours_are_the_palette_and_keep_their_keypoint():
    xy = [[20, 20], [60, 60], [100, 100]]
    result = black(xy, which=[2], width=4)
    assert tuple(result[100, 100]) == palette(3)[2]
    assert tuple(black(xy, colors=[(9, 8, 7)] * 3, width=4)[60, 60]) == (9, 8, 7)


def test_several_figures():
    xy = np.array([[[20, 20], [60, 20]], [[20, 90], [60, 90]]], dtype=float)
    lit = changed(black(xy, skeleton=[(0, 1)], confidence=[[1, 1], [1, 0]]), 0)
    assert lit[20, 40] and lit[90, 20] and not lit[90, 60] and not lit[90, 40]


@pytest.mark.parametrize("value", [0, 90, 127, 180, 255])
def test_numbers_are_readable_on_any_background(value):
    """Light ink inside a dark rim: whatever is behind, one of the two stands out and both are there."""
    result = draw_keypoints(make_image(value=value), [[60, 60]], dots=False, labels=["8"])
    ink = (result.min(axis=2) > 225).sum() if value < 225 else 1
    rim = (result.max(axis=2) < 60).sum() if value > 60 else 1
    assert ink and rim
    region = changed(result, value)
    inside = result[region].mean(axis=1)
    assert inside.max() - inside.min() > 150


def test_labels_replace_numbers_and_empty_ones_are_left_out():
    xy = [[60, 60], [120, 60]]
    bare = black(xy)
    assert np.array_equal(black(xy, numbers=True, labels=["", ""]), bare)
    assert not np.array_equal(black(xy, numbers=True, labels=["nose", ""]), bare)


def test_points_outside_and_far_away_are_harmless():
    inside = black([[60, 60]])
    both = black([[60, 60], [-1e12, 5e11]], numbers=False)
    assert np.array_equal(inside, both)
    assert changed(black([[60, 60], [1e9, 60]], skeleton=[(0, 1)]), 0)[60, 190]
    assert np.array_equal(black([[60, 60], [500, 60]], numbers=True), black([[60, 60]], numbers=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_keypoints(make_image().astype(float), [[1, 1]]), "uint8"),
        (lambda: draw_keypoints(make_image()[:, :, 0], [[1, 1]]), "uint8"),
        (lambda: draw_keypoints(make_image(), [1, 1]), "shape"),
        (lambda: draw_keypoints(make_image(), [[1, np.nan]]), "not finite"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], [1, 1]), "confidence of shape"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], occluded=[True, False]), "1 figures of 1 keypoints"),
        (lambda: draw_keypoints(None, [[1, 1]]), "no image"),
        (lambda: draw_keypoints(None, [[1, 1]], canvas="black"), "no image"),
        (lambda: draw_keypoints(None, [[1, 1]], canvas="black", size=(0, 5)), "0x5"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], canvas="blue"), "image, black, white"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], which=[1]), "keypoint 1"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], skeleton=[(0, 1)]), "skeleton joins"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], colors=[(1, 1, 1)] * 2), "2 colours"),
        (lambda: draw_keypoints(make_image(), [[1, 1]], labels=["a", "b"]), "2 labels"),
    ],
)
def test_bad_input_to_draw(call, message):
    with pytest.raises(KeypointError, match=message):
        call()


def test_nothing_is_drawn_with_opencv():
    """Its wheels overwrite each other in one folder: to ask for one breaks what another node pack has installed."""
    code = (
        "import sys; sys.modules['cv2'] = None; import numpy as np; xy = [[9, 9], [50, 40]]\n"
        "from stablekp_core.drawing import hints, overlay, plots, sheets\n"
        "image = overlay.draw_keypoints(np.zeros((64, 64, 3), np.uint8), xy, skeleton=[(0, 1)], size=(90, 80))\n"
        "sheets.heat_maps(image, np.random.rand(2, 8, 8)); plots.loss_plot({'loss': [2, 1]})\n"
        "hints.draw_openpose(np.full((18, 3), 20.0), 64, 64); hints.draw_ap10k(np.full((17, 3), 20.0), 64, 64)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Labels


def total_overlap(corners, sizes):
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    total = 0.0
    for i in range(len(boxes)):
        for j in range(i):
            w = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            h = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            total += max(w, 0) * max(h, 0)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_crowded_points_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    anchors = np.concatenate([rng.uniform(30, 226, (20, 2)), rng.normal(128, 6, (6, 2))])
    sizes = np.tile([[14.0, 11.0]], (26, 1))
    corners, _ = place_labels(anchors, sizes, 5.0, (256, 256))
    naive = anchors + [5, -16]
    assert total_overlap(corners, sizes) < 0.5 and total_overlap(naive, sizes) > 100  # square pixels
    assert (corners >= 0).all() and (corners + sizes <= 256).all()
    gap = np.maximum(np.maximum(corners - anchors, anchors - corners - sizes), 0).max(axis=1)
    assert (gap < 45).all()  # never far from its point


def test_a_lone_label_is_up_right_and_near_and_edges_push_it_in():
    size = np.array([[10.0, 8.0]])
    corner, far = place_labels(np.array([[50.0, 50.0]]), size, 4.0, (100, 100))
    assert 50 < corner[0, 0] < 56 and 36 < corner[0, 1] < 42.1 and not far[0]
    for point in ([99.0, 1.0], [1.0, 1.0], [1.0, 99.0], [99.0, 99.0]):
        corner, _ = place_labels(np.array([point]), size, 4.0, (100, 100))
        assert (corner >= 0).all() and (corner + size <= 100).all()


def test_labels_keep_off_lines_and_dots():
    size = np.array([[10.0, 8.0]])
    wall = [np.stack([np.linspace(50, 90, 60), np.linspace(50, 10, 60)], axis=1)]
    free, _ = place_labels(np.array([[50.0, 50.0]]), size, 4.0, (100, 100))
    moved, _ = place_labels(np.array([[50.0, 50.0]]), size, 4.0, (100, 100), wall)
    hits = [((wall[0] > c) & (wall[0] < c + size[0])).all(axis=1).sum() for c in (free[0], moved[0])]
    assert hits[0] > 0 == hits[1]


def test_text_covers_what_it_says(monkeypatch):
    width, height = text_size("Ag8", 20, outline=True)
    canvas = make_image(80, 160, 128)
    put_text(canvas, "Ag8", (30, 20), 20, (255, 255, 255), outline=True)
    rows, cols = np.nonzero(changed(canvas, 128))
    assert rows.min() >= 20 and rows.max() < 20 + height and cols.min() >= 30 and cols.max() < 30 + width
    assert cols.max() - cols.min() > 0.7 * width
    zero = make_image(80, 160, 0)
    put_text(zero, "0", (30, 20), 20, (255, 255, 255))
    assert abs(np.ptp(np.nonzero(zero[:, :, 0] > 127)[0]) + 1 - 20) <= 3  # digits are as tall as asked for


def test_text_is_cut_off_at_the_edges():
    canvas = make_image(20, 20, 0)
    for corner in ((-30, -30), (-3, -3), (15, 15), (500, 5)):
        put_text(canvas, "88", corner, 12, (255, 255, 255), outline=True)
    assert canvas.max() == 255


# Sheets


def test_contact_sheet_holds_every_image_at_its_place():
    images = [make_image(60, 60, 40 * i) for i in range(5)]
    sheet = contact_sheet(images, columns=3, cell=64)
    gap = 4
    assert sheet.shape == (gap + 2 * (64 + gap), gap + 3 * (64 + gap), 3)
    for i in range(5):
        row, col = divmod(i, 3)
        y, x = gap + row * (64 + gap), gap + col * (64 + gap)
        assert (sheet[y : y + 64, x : x + 64] == 40 * i).all()
    assert (sheet[-30, -30] == 250).all()  # the empty place


def test_contact_sheet_keeps_aspect_and_moves_points_along():
    wide = make_image(50, 100, 0)
    sheet = contact_sheet([wide], [[[75.0, 25.0]]], cell=200, numbers=False, colors=[(0, 255, 0)])
    dark = (sheet == 0).all(axis=2)
    assert np.ptp(np.nonzero(dark)[0]) + 1 == 100 and np.ptp(np.nonzero(dark)[1]) + 1 == 200
    rows, cols = np.nonzero((sheet == (0, 255, 0)).all(axis=2))
    assert abs(cols.mean() + 0.5 - (5 + 150)) < 0.6 and abs(rows.mean() + 0.5 - (5 + 50 + 50)) < 0.6


def test_contact_sheet_titles_are_kept_inside_their_cells():
    images = [make_image(64, 64, 0)] * 2
    plain = contact_sheet(images, cell=100)
    titled = contact_sheet(
        images, titles=["a name that is much too long for its cell.png", ""], cell=100, heading="All"
    )
    assert titled.shape[0] > plain.shape[0] and titled.shape[1] == plain.shape[1]
    ink = np.nonzero((titled[-20:] < 200).any(axis=2).any(axis=0))[0]
    assert len(ink) and ink.min() >= 4 and ink.max() < 4 + 100


@pytest.mark.parametrize(
    "options",
    [{"xy": []}, {"titles": ["a"]}, {"confidence": [[1]]}, {"cell": 8}, {"columns": 0}, {"canvas": "blue"}],
)
def test_contact_sheet_bad_input(options):
    options = {"xy": [[[1, 1]]] * 2, **options}
    with pytest.raises(KeypointError):
        contact_sheet([make_image()] * 2, **options)
    with pytest.raises(KeypointError, match="no images"):
        contact_sheet([])


def test_heat_overlay_is_brightest_at_the_peak_and_keeps_the_image_elsewhere():
    heat = np.zeros((16, 16))
    heat[4, 12] = 3.0
    result = heat_overlay(make_image(160, 320, 100), heat).astype(int).sum(axis=2)
    y, x = np.unravel_index(result.argmax(), result.shape)
    assert abs(y + 0.5 - 45) <= 6 and abs(x + 0.5 - 250) <= 11
    assert result[100, 100] == 3 * 55
    ranked = heat_overlay(make_image(16, 16, 100), np.arange(256.0).reshape(16, 16)).astype(int).sum(axis=2).ravel()
    assert (np.diff(ranked[64:]) >= -6).mean() > 0.97  # brightness alone tells the order
    assert np.array_equal(heat_overlay(make_image(), heat), heat_overlay(make_image(), heat * 1e-6))


def test_heat_maps_shows_the_chosen_keypoints():
    maps = np.zeros((4, 8, 8))
    maps[2, 1, 1] = maps[3, 6, 6] = 1
    image = make_image(64, 64, 0)
    sheet = heat_maps(image, maps, which=[3, 2], columns=2, cell=80)
    assert sheet[4 + 65, 4 + 65].sum() > 400 and sheet[4 + 15, 4 + 84 + 15].sum() > 400
    assert sheet[4 + 15, 4 + 15].sum() < 30
    marked = heat_maps(image, maps, which=[2], xy=[[1, 1], [2, 2], [40, 40], [3, 3]], cell=80)
    assert tuple(marked[4 + 50, 4 + 50]) == palette(4)[2]
    assert (heat_overlay(image, np.zeros((8, 8))) == 0).all()
    for bad in (lambda: heat_maps(image, maps[0]), lambda: heat_maps(image, maps, which=[4]),
                lambda: heat_overlay(image, np.full((8, 8), np.nan))):  # fmt: skip
        with pytest.raises(KeypointError):
            bad()


# Plots


def curve_rows(plot):
    """For each column the mean row of the strong line, nan where there is none."""
    strong = np.abs(plot.astype(int) - (0, 51, 255)).sum(axis=2) < 40
    rows = np.arange(len(plot))[:, None]
    with np.errstate(invalid="ignore"):
        return (strong * rows).sum(axis=0) / strong.sum(axis=0)


def test_loss_plot_follows_the_values():
    steps = np.arange(600)
    rows = curve_rows(loss_plot({"a": steps * 2.0}, width=400))
    there = np.flatnonzero(np.isfinite(rows))
    slope, offset = np.polyfit(there, rows[there], 1)
    assert slope < -0.3 and np.abs(rows[there] - slope * there - offset).max() < 2.5
    falling = curve_rows(loss_plot({"a": np.exp(-steps / 100)}, width=400))
    falling = falling[np.isfinite(falling)]
    assert (np.diff(falling) > -1.5).all() and falling[-1] - falling[0] > 150


def test_loss_plot_has_a_panel_for_each_series_on_its_own_scale():
    a = np.linspace(1, 0, 50)
    plot = loss_plot({"x": a, "y": a * 1e-6}, width=300, height=200)
    assert plot.shape == (200, 600, 3) and plot.dtype == np.uint8
    left, right = curve_rows(plot[:, :300]), curve_rows(plot[:, 300:])
    assert np.nanmin(left) == np.nanmin(right) and np.nanmax(left) == np.nanmax(right)


def test_loss_plot_is_not_flattened_by_one_wild_step():
    values = np.linspace(2, 1, 1000)
    values[500] = 1e6
    rows = curve_rows(loss_plot({"a": values}))
    assert np.nanmax(rows) - np.nanmin(rows) > 150


def test_loss_plot_leaves_gaps_and_takes_odd_series():
    gap = curve_rows(loss_plot({"a": [3, 2, np.nan, np.inf, 1.5, 1]}, width=400))
    inner = np.isfinite(gap)[60:370]
    assert not inner[100:180].any() and inner[:40].any() and inner[-40:].any()
    for values in ([], [0.5], [1, 1, 1], [0, 0], [np.nan], [-3, 1e8], [1e-300, 2e-300], np.full(500, 7.0)):
        assert loss_plot({"odd": values}).shape == (300, 420, 3)
    with pytest.raises(KeypointError):
        loss_plot({})
    with pytest.raises(KeypointError):
        loss_plot({"a": [1]}, width=10)
