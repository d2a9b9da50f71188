import math

import numpy as np
import pytest
import torch

from stablekp_core.attention.readout import peaks
from stablekp_core.selection.ranking import (
    farthest_points,
    gaussian_divergence,
    most_gaussian,
    most_voted,
    spread_choice,
)

SIZE = 33
SIGMA = 2.0


def naive_divergence(map_, sigma, closeness, border):
    """KL(G || M) pixel by pixel in float64, as the method describes it."""
    size = len(map_)
    row, column = np.unravel_index(map_.argmax(), map_.shape)
    if closeness == "softmax":
        grown = np.exp(map_ + 1e-5 - map_.max())
        target = grown / grown.sum()
    else:
        target = map_ / map_.sum()

    def gaussian(r0, c0):
        g = np.zeros((size, size))
        for r in range(size):
            for c in range(size):
                g[r, c] = math.exp(-((r - r0) ** 2 + (c - c0) ** 2) / (2 * sigma**2)) + 1e-5
        return g / g.sum()

    g = gaussian(row, column)
    whole = gaussian(size // 2, size // 2)  # not cut off by any border
    entropy = g if border == "penalized" else whole
    return (entropy * np.log(entropy)).sum() - (g * np.log(target)).sum()


def blobs(seed=0, count=9, size=SIZE):
    """Maps [1, count, size, size] of one blob each, some on the border, of different widths and heights."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((1, count, size, size), dtype=np.float32)
    r, c = np.mgrid[:size, :size]
    for n in range(count):
        y, x, s, h = rng.integers(0, size), rng.integers(0, size), rng.uniform(1, 5), rng.uniform(0.2, 1)
        if n < 3:
            y, x = [(0, 16), (32, 0), (1, 31)][n]
        maps[0, n] = h * np.exp(-((r - y) ** 2 + (c - x) ** 2) / (2 * s * s)) + rng.uniform(0.001, 0.02, (size, size))
    return torch.from_numpy(maps)


def test_peaks_take_the_first_of_equals():
    maps = torch.zeros(2, 2, 4, 5 - 1)
    maps[0, 0, 2, 3] = 1
    maps[0, 1, 1, 2] = maps[0, 1, 3, 0] = 2
    maps[1, 1, 3, 3] = 1
    assert peaks(maps).tolist() == [[[2, 3], [1, 2]], [[0, 0], [3, 3]]]


@pytest.mark.parametrize("closeness", ["softmax", "normalized"])
@pytest.mark.parametrize("border", ["penalized", "neutral"])
def test_divergence(closeness, border):
    maps = blobs()
    found = gaussian_divergence(maps, peaks(maps), SIGMA, closeness, border)[0]
    expected = [naive_divergence(m.double().numpy(), SIGMA, closeness, border) for m in maps[0]]
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)
    order = most_gaussian(maps, peaks(maps), 5, SIGMA, closeness, border)[0]
    assert order.tolist() == np.argsort(expected, kind="stable")[:5].tolist()


def test_divergence_on_a_map_smaller_than_the_gaussian():
    maps = torch.rand(2, 40, 8, 8, generator=torch.Generator().manual_seed(0))  # both borders cut every Gaussian
    found = gaussian_divergence(maps, peaks(maps), 3.0, "softmax", "penalized")
    for b in range(2):
        expected = [naive_divergence(m.double().numpy(), 3.0, "softmax", "penalized") for m in maps[b]]
        np.testing.assert_allclose(found[b], expected, atol=1e-5)


def test_the_border_option_decides_whether_a_peak_on_the_rim_can_win():
    r, c = np.mgrid[:SIZE, :SIZE]
    maps = torch.tensor(
        np.stack([h * np.exp(-((r - y) ** 2 + (c - 16) ** 2) / (2 * SIGMA**2)) for y, h in ((0, 1.0), (16, 0.1))]),
        dtype=torch.float32,
    )[None]
    best = {
        border: most_gaussian(maps, peaks(maps), 1, SIGMA, "softmax", border).item()
        for border in ("penalized", "neutral")
    }
    assert best == {"penalized": 1, "neutral": 0}


def test_equal_maps_keep_their_order():
    maps = blobs(3, 1).expand(1, 30, -1, -1).contiguous()
    assert most_gaussian(maps, peaks(maps), 30, SIGMA, "softmax", "penalized")[0].tolist() == list(range(30))


def naive_farthest(points, count):
    best, pair = -1.0, None
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            distance = math.dist(points[i], points[j])
            if distance > best:
                best, pair = distance, [i, j]
    while len(pair) < count:
        best, new = -1.0, None
        for i in range(len(points)):
            if i not in pair:
                nearest = min(math.dist(points[i], points[j]) for j in pair)
                if nearest > best:
                    best, new = nearest, i
        pair.append(new)
    return pair


@pytest.mark.parametrize("side", [3, 8, 128])  # on a 3 x 3 grid almost everything is a tie
def test_farthest_points(side):
    for seed in range(12):
        position = torch.randint(0, side, (3, 25, 2), generator=torch.Generator().manual_seed(seed))
        for count in (2, 10, 25):
            found = farthest_points(position, count)
            assert found.tolist() == [naive_farthest(p.tolist(), count) for p in position]


def test_farthest_points_of_one_place():
    assert farthest_points(torch.full((1, 6, 2), 7), 4).tolist() == [[0, 1, 2, 3]]


def test_spread_choice_ranks_on_the_image_and_spreads_on_the_view():
    maps, views = torch.cat([blobs(1, 20), blobs(2, 20)]), torch.cat([blobs(5, 20), blobs(6, 20)])
    found = spread_choice(maps, peaks(views), 4, 9, SIGMA, "softmax", "penalized")
    other = spread_choice(maps, peaks(maps), 4, 9, SIGMA, "softmax", "penalized")
    for b in range(2):
        rank = np.argsort([naive_divergence(m.double().numpy(), SIGMA, "softmax", "penalized") for m in maps[b]])[:9]
        spots = [divmod(views[b, n].argmax().item(), SIZE) for n in rank]
        assert found[b].tolist() == [rank[i] for i in naive_farthest(spots, 4)]
    assert found.tolist() != other.tolist()


def test_most_voted_takes_the_lower_index_among_equals():
    choices = torch.tensor([[5, 1], [5, 3], [0, 3], [1, 6]])
    chosen, votes = most_voted(choices, 8, 3)
    assert chosen.tolist() == [1, 3, 5]  # two votes each
    assert votes.tolist() == [1, 2, 0, 2, 0, 2, 1, 0]
