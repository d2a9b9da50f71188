import math

import numpy as np
import pytest
import torch

from stablekp_core.images.affine import (
    coverage,
    identity_affine,
    invert_affine,
    random_affine,
    unwarp,
    view_to_image,
    visible,
    warp,
)


def draw(count=3, seed=0, rotation=15.0, scale=(0.8, 1.0), translation=0.25):
    return random_affine(count, rotation, scale, translation, torch.Generator().manual_seed(seed))


def naive_warp(image, theta):
    """Bilinear, zero outside, one pixel at a time: image [C, H, W], theta [2, 3]."""
    channels, height, width = image.shape
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            u, v = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
            x = theta[0, 0] * u + theta[0, 1] * v + theta[0, 2]
            y = theta[1, 0] * u + theta[1, 1] * v + theta[1, 2]
            x, y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
            left, top = math.floor(x), math.floor(y)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[:, row, column] += (1 - abs(y - r)) * (1 - abs(x - c)) * image[:, r, c]
    return out


def naive_inverse(theta):
    a, b, x, c, d, y = np.asarray(theta, dtype=np.float64).reshape(-1)
    det = a * d - b * c
    inverse = np.array([[d, -b], [-c, a]]) / det
    return np.column_stack([inverse, -inverse @ (x, y)])


def test_warp_is_a_bilinear_lookup():
    image, theta = torch.rand(3, 2, 9, 7, generator=torch.Generator().manual_seed(1)), draw()
    found = warp(image, theta)
    for i in range(3):
        np.testing.assert_allclose(found[i], naive_warp(image[i].numpy(), theta[i].numpy()), atol=1e-5)


def test_inverse_and_unwarp():
    theta, image = draw(4, rotation=60), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    inverse = invert_affine(theta)
    back = unwarp(image, theta)
    for i in range(4):
        expected = naive_inverse(theta[i].numpy())
        np.testing.assert_allclose(inverse[i], expected, atol=1e-5)
        np.testing.assert_allclose(back[i], naive_warp(image[i].numpy(), expected), atol=1e-5)


def test_coverage_is_what_comes_back_of_a_white_view():
    theta = draw(3, translation=0.5)
    found = coverage(theta, 10)
    assert found.shape == (3, 1, 10, 10)
    for i in range(3):
        expected = naive_warp(np.ones((1, 10, 10)), naive_inverse(theta[i].numpy()))
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
    assert (coverage(identity_affine(2), 6) == 1).all()
    zoomed = coverage(torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]), 8)[0, 0]  # the view sees the middle half
    assert (zoomed[2:6, 2:6] == 1).all() and zoomed[0].sum() == 0 and zoomed[:, 7].sum() == 0


def test_what_was_warped_comes_back():
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    image = torch.sin(row / 6) * torch.cos(column / 5)  # smooth: bilinear loses little
    image, theta = image.expand(5, 1, 32, 32), draw(5)
    seen = (coverage(theta, 32) == 1)[..., 2:-2, 2:-2]  # the rim mixes with the black around
    error = (unwarp(warp(image, theta), theta) - image).abs()[..., 2:-2, 2:-2]
    assert seen.float().mean() > 0.4
    assert error[seen].max() < 0.05
    assert (unwarp(warp(image, theta), theta)[coverage(theta, 32) == 0] == 0).all()


def test_random_affine_is_a_rotation_times_a_zoom_and_a_shift():
    theta = draw(4000, seed=3, rotation=15.0, scale=(0.8, 1.0), translation=0.25)
    zoom = torch.linalg.det(theta[:, :, :2]).sqrt()
    angle = torch.rad2deg(torch.atan2(theta[:, 0, 1], theta[:, 0, 0]))
    assert torch.equal(theta[:, 0, 0], theta[:, 1, 1]) and torch.equal(theta[:, 0, 1], -theta[:, 1, 0])
    for value, low, high in (
        (zoom, 0.8, 1.0),
        (angle, -15, 15),
        (theta[:, 0, 2], -0.25, 0.25),
        (theta[:, 1, 2], -0.25, 0.25),
    ):
        span = high - low
        assert low - 1e-3 <= value.min() < low + 0.01 * span and high - 0.01 * span < value.max() <= high + 1e-3
        assert value.mean() == pytest.approx((low + high) / 2, abs=0.03 * span)  # uniform
        assert value.std() == pytest.approx(span / math.sqrt(12), rel=0.05)
    parts = torch.stack([zoom, angle, theta[:, 0, 2], theta[:, 1, 2]])
    assert (torch.corrcoef(parts) - torch.eye(4)).abs().max() < 0.06  # each drawn on its own
    assert torch.equal(draw(5, seed=9), draw(5, seed=9)) and not torch.equal(draw(5, seed=9), draw(5, seed=8))


def test_points_go_where_the_pixels_go():
    size, theta = 40, draw(6, rotation=30)
    image, spots = (
        torch.zeros(6, 1, size, size),
        torch.tensor([[17, 22], [20, 14], [25, 25], [15, 19], [22, 21], [18, 24]]),
    )
    for i, (row, column) in enumerate(spots):
        image[i, 0, row - 1 : row + 2, column - 1 : column + 2] = 0.5
        image[i, 0, row, column] = 1
    seen = warp(image, theta)[:, 0].flatten(1).argmax(1)
    xy = torch.stack([seen % size, seen // size], -1)[:, None] / size + 0.5 / size  # [6, 1, 2] of the view
    expected = (spots.flip(-1) + 0.5)[:, None] / size
    assert (view_to_image(xy, theta) - expected).abs().max() < 1.0 / size
    assert (xy - expected).abs().max() > 3 / size  # the views did move them


def test_visible_points_are_those_inside_the_view():
    theta = identity_affine(2)
    theta[1, 0, 2] = 1.0  # looks at the right half, and as far beyond
    xy = torch.tensor([[[0.2, 0.5], [0.7, 0.5], [0.5, 0.001]]])
    assert visible(xy, theta).tolist() == [[[True, True, False], [False, True, False]]]
