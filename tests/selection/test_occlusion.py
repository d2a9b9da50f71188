"""What lies in front: pasted shapes, the network that learns to see them, and how likely keypoints are hidden."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stablekp_core.attention.readout import moments, share_at
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.spatial_prior import BLUR, STANCE, SpatialPrior
from stablekp_core.selection import occlusion
from stablekp_core.selection.occlusion import (
    AREA,
    DILATIONS,
    WIDTH,
    learn_occlusion,
    load_occlusion_network,
    occlude,
    occlusion_probability,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shapes_cover_what_they_say():
    grey = torch.full((40, 3, 64, 64), 0.5)
    images, covered = occlude(grey, rng())
    assert images.shape == grey.shape and covered.shape == (40, 1, 64, 64)
    assert grey.eq(0.5).all()  # what was given stays
    assert 0 <= images.min() and images.max() <= 1 and 0 <= covered.min() and covered.max() <= 1
    changed = (images - grey).abs().amax(1, keepdim=True) > 1e-6
    assert not (changed & (covered == 0)).any()  # nothing changes elsewhere
    assert changed[covered == 1].float().mean() > 0.95  # but for the odd pixel of the same grey
    share = covered.mean((1, 2, 3))
    assert share.min() > AREA[0] / 2 and share.max() < 1 and 0.1 < share.mean() < 0.4
    again, other = occlude(grey, rng())[0], occlude(grey, rng(1))[0]
    assert torch.equal(again, images) and not torch.equal(other, images)


def test_half_of_the_shapes_are_bars_across_the_image():
    bars = []
    for seed in range(200):
        shape = occlusion._shape(96, rng(seed)) > 0.5
        edge = shape[0].any().int() + shape[-1].any().int() + shape[:, 0].any().int() + shape[:, -1].any().int()
        bars.append(int(edge) >= 2)
    assert 0.4 < np.mean(bars) < 0.75  # a few large others reach two edges too


def test_a_bar_is_as_wide_as_it_says():
    kinds = [seed for seed in range(60) if torch.rand(6, generator=rng(seed))[0] < occlusion.BARS]
    for seed in kinds[:8]:
        _, size, _, across, down, turn = torch.rand(6, generator=rng(seed)).tolist()
        shape = occlusion._shape(400, rng(seed))
        if min(across, down, 1 - across, 1 - down) < 0.2:
            continue  # its middle is too near an edge to see its width
        step = torch.linspace(-0.15, 0.15, 601)
        x, y = across - math.sin(math.pi * turn) * step, down + math.cos(math.pi * turn) * step
        inside = shape[(y * 400).long().clamp(0, 399), (x * 400).long().clamp(0, 399)]
        expected = WIDTH[0] + size * (WIDTH[1] - WIDTH[0])
        assert inside.mean() * 0.3 == pytest.approx(expected, abs=0.006)


def images_with_bars(count, side=16, width=6, seed=0):
    """Features in which one mixture of channels, varying in strength, is what lies in front."""
    g = rng(seed)
    _, covered = occlude(torch.zeros(count, 3, 64, 64), g)
    covered = F.interpolate(covered, (side, side), mode="area")
    sign = torch.randn(width, generator=rng(7))
    features = 3 + 2 * torch.randn(count, width, side, side, generator=g) + 5 * covered * sign[:, None, None]
    return features, covered


def test_the_network_learns_what_lies_in_front():
    features, covered = images_with_bars(80)
    state = learn_occlusion(features.half().split(2), covered.split(2), rng())
    net = load_occlusion_network(state)
    assert state["0.weight"].shape == (32, 6, 1, 1) and all(not w.requires_grad for w in net.parameters())
    new, truth = images_with_bars(20, seed=1)
    found = occlusion_probability(net, new)
    assert found.shape == (20, 1, 16, 16) and 0 <= found.min() and found.max() <= 1
    assert found[truth > 0.9].mean() > 0.8 and found[truth < 0.1].mean() < 0.2
    again = learn_occlusion(features.half().split(2), covered.split(2), rng())
    assert all(torch.equal(state[key], again[key]) for key in state)


def test_the_network_reads_features_as_they_are_and_at_no_more_than_its_side():
    features, covered = images_with_bars(4)
    state = learn_occlusion(features.split(1), covered.split(1), rng())
    net, weights = load_occlusion_network(state), list(state.values())
    x = features
    for i, dilation in enumerate(DILATIONS):
        kernel, bias = weights[2 * i : 2 * i + 2]
        edge = dilation if kernel.shape[-1] == 3 else 0
        x = F.conv2d(F.pad(x, (edge,) * 4, mode="replicate"), kernel, bias, dilation=dilation)
        x = x if i == len(DILATIONS) - 1 else F.gelu(x)
    torch.testing.assert_close(occlusion_probability(net, features), x.sigmoid())
    large, small = (F.interpolate(features, size=size, mode="nearest") for size in (64, 32))
    torch.testing.assert_close(
        occlusion_probability(net, large), occlusion_probability(net, small), atol=1e-5, rtol=1e-5
    )


def test_damaged_networks_are_refused():
    features, covered = images_with_bars(2)
    state = learn_occlusion(features.split(1), covered.split(1), rng())
    cut = {key: value for key, value in state.items() if key != "8.bias"}
    for damaged in (cut, state | {"2.weight": state["2.weight"][:, :5]}, {"0.weight": torch.zeros(3)}, {}):
        with pytest.raises(KeypointError, match="occlusion network of these tokens is damaged"):
            load_occlusion_network(damaged)


def test_the_others_say_where_a_point_is():
    g = rng(2)
    base = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.7]])
    train = base + 0.05 * torch.randn(400, 1, 2, generator=g) + 0.03 * torch.randn(400, 3, 2, generator=g)
    spatial_prior = SpatialPrior.of(train)
    xy, width = train[:5].clone(), torch.rand(5, 3, generator=g) * 0.1
    mean, covariance = spatial_prior.expected(xy, width)
    assert mean.shape == (5, 3, 2) and covariance.shape == (5, 3, 2, 2)
    # written out with the joint Gaussian of all six numbers
    joint = spatial_prior.covariance.double().numpy() + STANCE**2 * np.kron(np.ones((3, 3)), np.eye(2))
    centre = (spatial_prior.mean.double().numpy() + 0.5).reshape(-1)
    for b in range(5):
        noise = np.diag(np.repeat(width[b].double().numpy() ** 2 / 4 + BLUR**2, 2))
        for k in range(3):
            own, others = [2 * k, 2 * k + 1], [i for i in range(6) if i // 2 != k]
            inverse = np.linalg.inv((joint + noise)[np.ix_(others, others)])
            cross = joint[np.ix_(own, others)]
            away = xy[b].double().numpy().reshape(-1)[others] - centre[others]
            np.testing.assert_allclose(mean[b, k], centre[own] + cross @ inverse @ away, atol=1e-5)
            rest = joint[np.ix_(own, own)] - cross @ inverse @ cross.T
            np.testing.assert_allclose(covariance[b, k], rest * (400 + 4) / (400 - 4), atol=1e-5)


def test_an_uncertain_point_has_less_say():
    train = torch.rand(50, 1, 2, generator=rng(3)) * 0.2 + torch.tensor([[0.3, 0.4], [0.5, 0.4], [0.4, 0.6]])
    spatial_prior = SpatialPrior.of(train + 0.01 * torch.randn(50, 3, 2, generator=rng(4)))
    xy = torch.tensor([[[0.3, 0.4], [0.5, 0.4], [0.9, 0.1]]])  # the third is far off
    sure, unsure = (spatial_prior.expected(xy, torch.tensor([[0.02, 0.02, w]]))[0][0, 0] for w in (0.02, 0.5))
    right = torch.tensor([0.3, 0.4])
    assert (unsure - right).norm() < 0.3 * (sure - right).norm()


def test_values_are_averaged_where_the_gaussian_is():
    values = torch.zeros(1, 32, 32)
    values[0, :, 16:] = 1  # the right half
    mean = torch.tensor([[[0.2, 0.5], [0.5, 0.3], [0.8, 0.5]]])
    share = share_at(values, mean, 0.05**2 * torch.eye(2).expand(1, 3, 2, 2))
    np.testing.assert_allclose(share[0], [0, 0.5, 1], atol=1e-3)
    wide = share_at(values, mean[:, :1], torch.tensor([[[[0.3**2, 0.0], [0.0, 0.01]]]]))
    assert 0.1 < wide < 0.5


def test_moments_are_of_the_whole_map():
    maps = torch.zeros(1, 2, 10, 10)
    maps[0, 0, 3, 7] = 5.0  # row 3, column 7
    maps[0, 1, 5, [2, 8]] = 1.0
    mean, width = moments(maps)
    np.testing.assert_allclose(mean[0], [[0.75, 0.35], [0.55, 0.55]], atol=1e-6)
    np.testing.assert_allclose(width[0], [0, 0.3], atol=1e-3)
