"""The self-check on positions and maps whose quality is known."""

import math

import pytest
import torch

from stablekp_core.selection.self_check import (
    Found,
    check_readout,
    map_area,
    predictability,
    predicted,
    steadiness,
    unexplained,
)

IMAGES, LEFT_OUT, VIEWS, POINTS = 200, 60, 4, 5


def figures(count, seed, points=POINTS):
    """[B, points, 2]: points of a figure that moves and is stretched, in the unit square."""
    g = torch.Generator().manual_seed(seed)
    shape = torch.rand(points, 2, generator=torch.Generator().manual_seed(99)) - 0.5
    size = 0.3 + 0.3 * torch.rand(count, 1, 2, generator=g)
    return 0.3 + 0.4 * torch.rand(count, 1, 2, generator=g) + size * shape


def found(jitter=0.0, noise=0.0, area=0.05, seed=0):
    """Points of figures, off by `noise` on every image, and by `jitter` in every view."""
    g = torch.Generator().manual_seed(seed + 10)
    known, held = figures(IMAGES, seed), figures(LEFT_OUT, seed + 1)
    known, held = (x + noise * torch.randn(x.shape, generator=g) for x in (known, held))
    views = held[:, None] + jitter * torch.randn(LEFT_OUT, VIEWS, POINTS, 2, generator=g)
    return Found(known, views, torch.ones(views.shape[:3], dtype=torch.bool), torch.full((LEFT_OUT, POINTS), area))


def test_steadiness_is_the_distance_from_the_true_mean():
    """A jitter of s in x and y lies s * sqrt(pi / 2) from the truth on average."""
    steady, chance = steadiness(found(jitter=0.02))
    assert steady == pytest.approx(0.02 * math.sqrt(math.pi / 2), rel=0.03)
    assert 0.1 < chance < 0.3
    shuffled = found()
    views = torch.stack([shuffled.views[:, v].roll(7 * v, 0) for v in range(VIEWS)], 1)
    steady, _ = steadiness(Found(shuffled.known, views, shuffled.seen, shuffled.area))
    assert steady == pytest.approx(chance, rel=0.2)


def test_views_that_do_not_show_a_point_do_not_count():
    some = found(jitter=0.02)
    views, seen = some.views.clone(), some.seen.clone()
    views[:, 2], seen[:, 2] = 5.0, False
    blind = Found(some.known, views, seen, some.area)
    assert steadiness(blind)[0] == pytest.approx(steadiness(some)[0], rel=0.1)
    torch.testing.assert_close(blind.held, views[:, [0, 1, 3]].mean(1))
    one = torch.zeros_like(seen)
    one[:, 0] = True
    assert steadiness(Found(some.known, some.views, one, some.area))[0] == 0  # one view says nothing


def test_a_prediction_is_the_ridge_regression_written_out():
    known, wanted, held = figures(30, 1), figures(30, 2, 3), figures(4, 3)
    x, y = known.flatten(1).double(), wanted.flatten(1).double()
    xc, yc = x - x.mean(0), y - y.mean(0)
    weights = torch.linalg.lstsq(
        torch.cat([xc, math.sqrt(0.003 * 30) * torch.eye(10)]), torch.cat([yc, torch.zeros(10, 6)])
    ).solution
    expected = (held.flatten(1) - x.mean(0)) @ weights + y.mean(0)
    torch.testing.assert_close(predicted(known, wanted, held), expected.view(4, 3, 2))


def test_points_of_a_figure_predict_each_other_and_noise_does_not():
    error, chance = predictability(found())
    assert error < 0.03 < 0.12 < chance
    error, chance = predictability(found(noise=1.0))
    assert error == pytest.approx(chance, rel=0.1)


def test_what_points_leave_unexplained_of_others():
    some, weight = found(), torch.ones(8)
    others = [figures(n, s, 8) for n, s in ((IMAGES, 0), (LEFT_OUT, 1))]  # of the same figures
    assert unexplained(some, *others, weight) < 0.05
    strangers = [figures(n, s, 8) for n, s in ((IMAGES, 5), (LEFT_OUT, 6))]
    assert unexplained(some, *strangers, weight) == pytest.approx(1, abs=0.1)
    mixed = [torch.cat(pair, 1) for pair in zip(others, strangers, strict=True)]
    only_first = torch.cat([weight, 0 * weight])
    assert unexplained(some, *mixed, only_first) == pytest.approx(unexplained(some, *others, weight))


def test_the_area_of_a_map_is_a_share_of_the_image():
    flat, spot = torch.ones(16, 16), torch.zeros(16, 16)
    spot[3, 4] = 7
    half = torch.cat([torch.ones(16, 8), torch.zeros(16, 8)], 1)
    torch.testing.assert_close(map_area(torch.stack([flat, spot, half])), torch.tensor([1, 1 / 256, 0.5]))


def test_points_of_no_use_are_named():
    some = found(jitter=0.01)
    known, views = some.known.clone(), some.views.clone()
    known[:, 2], views[:, :, 2] = known[:, 0] + 0.01, views[:, :, 0] + 0.01  # beside keypoint 0
    known[:, 3], views[:, :, 3] = 0.5, 0.5
    area = some.area.clone()
    area[:, 4] = 0.9
    others = [figures(n, s, 8) for n, s in ((IMAGES, 0), (LEFT_OUT, 1))]
    check = check_readout(Found(known, views, some.seen, area), *others, torch.ones(8))
    assert (check.duplicate, check.stuck, check.dead) == ((2,), (3,), (4,))
    assert check.useless == (2, 3, 4)
    assert check_readout(some, *others, torch.ones(8)).useless == ()
