"""Draw Keypoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from node_data import named, part, points

from stablekp_core.drawing.hints import draw_ap10k, draw_openpose
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.writing import to_pose


@pytest.mark.parametrize(
    "text, chosen",
    [("", None), (" , ", None), ("0, 2", [0, 2]), ("0-2", [0, 1, 2]), ("nose;1", [2, 1]), ("1,1", [1])],
)
def test_which_points(pack, text, chosen):
    assert part("draw_keypoints").chosen_points(text, ("a", "b", "nose")) == chosen


@pytest.mark.parametrize("text", ["3", "0-3", "2-1", "eye", "-1", "1.5"])
def test_points_that_do_not_exist(pack, text):
    with pytest.raises(KeypointError):
        part("draw_keypoints").chosen_points(text, ("a", "b", "nose"))


def drawn(pack, keypoints, images=None, **changes):
    options = {
        "style": "points",
        "canvas": "black",
        "dots": True,
        "numbers": False,
        "lines": False,
        "line_width": 0.0,
        "threshold": 0.0,
        "which": "",
        "out_width": 0,
        "out_height": 0,
        **changes,
    }
    wires = {} if images is None else {"images": images}
    return part("draw_keypoints").DrawKeypoints.execute(
        keypoints=[keypoints], **wires, **{k: [v] for k, v in options.items()}
    )[0]


def test_points_are_drawn_where_they_are_whatever_the_size(pack):
    keypoints = Keypoints(xy=np.array([[[20.0, 10.0]]]), confidence=np.ones((1, 1)), sizes=np.array([[80, 40]]))
    for images, size in (
        (None, (160, 80)),
        ([torch.zeros(1, 40, 80, 3)], (160, 80)),
        ([torch.zeros(1, 200, 400, 3)], (160, 80)),
        ([torch.zeros(1, 40, 80, 3)], (0, 0)),
    ):
        (batch,) = drawn(pack, keypoints, images, out_width=size[0], out_height=size[1])
        width, height = size if size[0] else (80, 40)
        assert batch.shape == (1, height, width, 3)
        lit = np.argwhere(batch[0].numpy().max(-1) > 0.3) + 0.5  # (y, x)
        np.testing.assert_allclose(lit.mean(0), (height / 4, width / 4), atol=0.6)


def test_each_instance_is_drawn_on_its_image(pack):
    keypoints = Keypoints(
        xy=np.array([[[10.0, 10.0]], [[50.0, 10.0]], [[30.0, 30.0]]]),
        confidence=np.ones((3, 1)),
        sizes=np.array([[64, 48]] * 3),
        image_index=np.array([0, 0, 1]),
    )
    (batch,) = drawn(pack, keypoints)
    lit = batch.numpy().max(-1) > 0.3
    assert batch.shape[0] == 2
    assert lit[0, 10, 10] and lit[0, 10, 50] and not lit[0, 30, 30] and lit[1, 30, 30]


def test_hidden_points_are_marked_on_images_and_not_on_hints(pack):
    where = dict(xy=np.array([[[40.0, 20.0]]]), confidence=np.ones((1, 1)), sizes=np.array([[80, 40]]))
    images = [torch.full((1, 200, 400, 3), 0.5)]
    for canvas, marked in (("image", True), ("black", False)):
        seen, hidden = (
            drawn(pack, Keypoints(**where, occluded=np.array([[h]])), images, canvas=canvas, line_width=6.0)[0]
            for h in (0.4, 0.6)
        )
        assert seen[0, 100, 200].max() > 0.3
        assert (hidden[0, 100, 200].max() < 0.2) == marked and bool((seen != hidden).any()) == marked


def test_hint_styles_are_the_cores_images(pack):
    from stablekp_core.drawing.hints import draw_ap10k, draw_openpose, draw_scribble

    rng = np.random.default_rng(1)
    for style, count, draw in (("openpose", 18, draw_openpose), ("animal openpose", 17, draw_ap10k)):
        keypoints = Keypoints(
            xy=rng.uniform(5, 60, (1, count, 2)), confidence=np.ones((1, count)), sizes=np.array([[64, 64]])
        )
        (batch,) = drawn(pack, keypoints, style=style, out_width=128, out_height=128)
        pose = np.concatenate([keypoints.xy * 2, np.ones((1, count, 1))], -1)
        np.testing.assert_array_equal((batch[0] * 255).round().numpy(), draw(pose, 128, 128))
    keypoints = points(((64, 64),), skeleton=((0, 1), (1, 2)))
    (batch,) = drawn(pack, keypoints, style="scribble", line_width=4.0)
    np.testing.assert_array_equal(
        (batch[0] * 255).round().numpy(), draw_scribble(keypoints.xy, keypoints.skeleton, 64, 64, 4)
    )
    with pytest.raises(KeypointError, match="18 points"):
        drawn(pack, keypoints, style="openpose")


def test_drawing_without_an_image_or_with_too_few_says_so(pack):
    with pytest.raises(KeypointError, match="no image to draw on"):
        drawn(pack, points(), canvas="image")
    with pytest.raises(KeypointError, match="1 images"):
        drawn(pack, points(), [torch.zeros(1, 48, 64, 3)])


@pytest.mark.parametrize(
    "style, target, draw",
    [("openpose", "openpose", draw_openpose), ("animal openpose", "ap10k", draw_ap10k)],
)
def test_named_joints_in_any_order_are_drawn_as_the_pose(pack, style, target, draw):
    settings = dict(canvas="black", dots=True, numbers=True, lines=True, line_width=0.0, threshold=0.0)
    settings |= dict(style=style, which="", out_width=128, out_height=128)
    node = part("draw_keypoints").DrawKeypoints
    drawn = node.execute([named(1)], **{name: [value] for name, value in settings.items()}).args[0]
    pose = to_pose(named(1), target)
    wanted = draw(np.concatenate([pose.xy * 2, pose.confidence[..., None]], -1), 128, 128)
    np.testing.assert_array_equal((drawn[0][0].numpy() * 255).round(), wanted)
    settings["which"] = "neck, left shoulder, right shoulder"
    fewer = node.execute([named(1)], **{name: [value] for name, value in settings.items()}).args[0]
    assert 0 < (fewer[0] > 0).sum() < (drawn[0] > 0).sum()


@pytest.mark.parametrize("style", ["points", "scribble"])
@pytest.mark.parametrize("canvas, with_image", [("black", False), ("black", True), ("image", True)])
def test_hints_are_fitted_and_never_stretched(pack, style, canvas, with_image):
    """Two points 40 apart along x and two 40 apart along y on a wide image stay equally far apart on a square hint."""
    xy = np.array([[[80.0, 50.0], [120.0, 50.0], [100.0, 30.0], [100.0, 70.0]]])
    keypoints = Keypoints(xy=xy, confidence=np.ones((1, 4)), sizes=np.array([[200, 100]]), skeleton=((0, 1), (2, 3)))
    images = [torch.zeros(1, 100, 200, 3)] if with_image else None
    settings = dict(style=style, canvas=canvas, lines=True, dots=False, line_width=4.0, out_width=100, out_height=100)
    for fit, across, down in (("contain", 20, 20), ("crop", 40, 40), ("stretch", 20, 40)):
        (batch,) = drawn(pack, keypoints, images, fit=fit, **settings)
        assert batch.shape == (1, 100, 100, 3)
        rows, columns = np.nonzero(batch[0].numpy().max(-1) > 0.3)
        assert abs(np.ptp(columns) - across - 4) <= 4 and abs(np.ptp(rows) - down - 4) <= 4, fit
        assert abs(columns.mean() + 0.5 - 50) < 1.5 and abs(rows.mean() + 0.5 - 50) < 1.5


def test_the_size_comes_from_what_is_generated(pack):
    keypoints = Keypoints(xy=np.array([[[20.0, 10.0]]]), confidence=np.ones((1, 1)), sizes=np.array([[80, 40]]))
    latent = {"samples": torch.zeros(1, 4, 16, 24)}
    video = {"samples": torch.zeros(1, 16, 21, 16, 24), "downscale_ratio_spacial": 16}
    for value, shape in ((torch.zeros(1, 50, 70, 3), (50, 70)), (latent, (128, 192)), (video, (256, 384))):
        (batch,) = drawn(pack, keypoints, size_from=value, out_width=8, out_height=8)
        assert batch.shape == (1, *shape, 3)
    (batch,) = drawn(pack, keypoints, out_width=40)
    assert batch.shape == (1, 20, 40, 3)  # the height follows


def test_values_of_the_style_lie_below_it_or_beside_it_and_have_defaults(pack):
    """ComfyUI puts what a style brings below it, with None for what a prompt leaves out; prompts from before styles
    brought anything have it beside the style."""
    keypoints, node = points(sizes=((64, 48),)), part("draw_keypoints").DrawKeypoints
    rest = dict(threshold=[0.0], which=[""], out_width=[128], out_height=[0])
    own = dict(canvas=["white"], dots=[True], numbers=[False], lines=[True], line_width=[2.0])
    nested = node.execute([keypoints], style={"style": ["points"], **own}, **rest)[0][0]
    flat = node.execute([keypoints], style=["points"], **own, **rest)[0][0]
    assert nested[0, 0, 0].tolist() == [1, 1, 1] and torch.equal(nested, flat)
    left_out = node.execute([keypoints], style={"style": ["points"], **own, "numbers": None}, **rest)[0][0]
    assert not torch.equal(left_out, nested)
    with pytest.raises(KeypointError, match="style is 'outline'.*points, scribble, openpose, animal openpose"):
        node.execute([keypoints], style=["outline"], **rest)
    with pytest.raises(KeypointError, match="style is None.*on the node itself"):
        node.execute([keypoints], **rest)
