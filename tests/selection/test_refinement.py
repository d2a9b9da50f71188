"""Refined tokens: the likelihood fit against one written out, and self-training on features whose solution is known."""

import numpy as np
import pytest
import torch

from stablekp_core.images.affine import identity_affine, random_affine, view_to_image, warp
from stablekp_core.selection import positions as places_module
from stablekp_core.selection import refinement
from stablekp_core.selection.positions import SPOT, FeatureStore
from stablekp_core.selection.refinement import PENALTY, refine, refine_candidates

G, D = 16, 6


def theta_of(count, seed=0):
    views = random_affine(count - 1, 15, (0.8, 1.0), 0.25, torch.Generator().manual_seed(seed))
    return torch.cat([identity_affine(1), views])


def bump(xy, sigma=0.07):
    """[G, G]: a soft spot at xy."""
    along = (torch.arange(G) + 0.5) / G
    return torch.exp(-((along[:, None] - xy[1]) ** 2 + (along[None] - xy[0]) ** 2) / (2 * sigma**2))


def scene(images, parts=3, noise=0.15, seed=0):
    """Features [I, D, G, G], a mixture of one channel per part and noise, and the parts' places [I, parts, 2]."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=g)
    places, images = 0.15 + 0.7 * torch.rand(images, parts, 2, generator=g), []
    for spots in places:
        pure = noise * torch.randn(D, G, G, generator=g)
        for i, spot in enumerate(spots):
            pure[i] += bump(spot)
        images.append(torch.einsum("de,ehw->dhw", mix, pure))
    return torch.stack(images), places


def collected(images, theta, area=None):
    places = FeatureStore(theta)
    for i, image in enumerate(images):
        views = warp(image.expand(len(theta), -1, -1, -1), theta)
        places.add(views, None if area is None else area[i])
    return places


def naive_loss(white, places, position, spread):
    """Mean penalised negative log-likelihood per token, place by place, with autograd."""
    tokens = torch.linalg.solve(spread.T, white.T).T
    views, total = len(places.theta), 0.0
    for k in range(len(tokens)):
        mass, loss = 0.0, 0.0
        for i, features in enumerate(places.features):
            for v in range(views):
                log = (features[v].float().flatten(1).T @ tokens[k]).log_softmax(0)  # [P]
                target, there = torch.zeros(G * G), 0
                for found in position[i, :, k]:
                    linear = places.theta[v].double()
                    xy = torch.linalg.solve(linear[:, :2], (2 * found.double() - 1) - linear[:, 2]) / 2 + 0.5
                    if ((xy > 0) & (xy < 1)).all():
                        target, there = target + bump(xy.float(), SPOT).flatten(), there + 1
                if there:
                    share = there / position.shape[1]
                    loss, mass = loss - share * (target / target.sum() * log).sum(), mass + share
        total = total + loss / mass + PENALTY * white[k].square().sum()
    return total


def test_the_fit_is_at_the_top_of_the_likelihood(monkeypatch):
    monkeypatch.setattr(refinement, "COARSE_ROUNDS", 1)
    monkeypatch.setattr(refinement, "FINE_ROUNDS", 0)
    monkeypatch.setattr(places_module, "_CHUNK", 1)  # image by image
    monkeypatch.setattr(refinement, "_ENOUGH", 1e-6)
    images, spots = scene(3)
    theta = theta_of(3)
    places = collected(images, theta)
    position = (spots[:, None] + 0.05 * torch.randn(3, 2, 3, 2, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    found = refine(position, places)
    assert found.shape == (3, D) and found.dtype == torch.float32
    spread = refinement._spread([places])
    x = torch.cat([f.float().movedim(1, -1).flatten(0, 2) for f in places.features]).double()
    covariance = (x.T @ x) / len(x) - torch.outer(x.mean(0), x.mean(0))
    covariance += 1e-3 * covariance.diagonal().mean() * torch.eye(D)
    np.testing.assert_allclose((spread @ spread.T).double(), covariance, rtol=1e-3, atol=1e-3)
    white = (found @ spread).requires_grad_(True)
    best = naive_loss(white, places, position, spread)
    best.backward()
    assert white.grad.abs().max() < 0.01  # flat
    for seed in range(3):
        step = 0.3 * torch.randn(white.shape, generator=torch.Generator().manual_seed(seed))
        assert naive_loss(white.detach() + step, places, position, spread) > best + 0.01


def test_stray_finds_are_outvoted():
    images, spots = scene(30)
    places = collected(images, theta_of(2))
    position, g = spots[:, None].repeat(1, 2, 1, 1), torch.Generator().manual_seed(3)
    stray = torch.rand(30, 3, generator=g) < 0.4
    position[stray[:, None].expand(-1, 2, -1)] = torch.rand(int(stray.sum()) * 2, 2, generator=g)
    before = (position[:, 0] - spots).norm(dim=-1)
    peak, mean = places.locate(refine(position, places))
    assert before.mean() > 0.1
    assert (peak - spots).norm(dim=-1).median() < 0.02 and (peak - spots).norm(dim=-1).mean() < 0.03
    assert (mean - spots).norm(dim=-1).mean() < 0.06


def test_new_images_are_read_by_the_same_tokens():
    images, spots = scene(30)
    tokens = refine(spots[:20, None], collected(images[:20], identity_affine(1)))
    peak, _ = collected(images[20:], identity_affine(1)).locate(tokens)
    assert (peak - spots[20:]).norm(dim=-1).mean() < 0.03


def test_places_that_do_not_count_are_not_chosen():
    images, spots = scene(8)
    area = torch.ones(8, 1, 1, G, G)
    area[:, :, :, :, : G // 2] = 0  # the left half is masked
    places = collected(images, identity_affine(1), area)
    spots[..., 0] = 0.5 + spots[..., 0] / 2
    peak, _ = places.locate(refine(spots[:, None], places))
    assert peak[..., 0].min() >= 0.5


def test_views_bring_positions_along():
    theta = theta_of(4)
    places = collected(scene(2)[0], theta)
    position = torch.tensor([[[[0.5, 0.4]]], [[[0.02, 0.98]]]])  # [I=2, V'=1, K=1, 2]
    target, weight = (x.flatten(0, 1) for x in places.targets(position))
    assert target.shape == (8, G * G, 1) and weight.shape == (8, 1)
    for row in range(4):
        peak = target[row, :, 0].argmax()
        xy = (torch.tensor([[[peak % G, peak // G]]]) + 0.5) / G
        assert (view_to_image(xy, theta[row : row + 1])[0, 0] - torch.tensor([0.5, 0.4])).norm() < 0.06
    assert weight[:5].eq(1).all() and not weight[5:].all()  # the corner is outside of some views
    sums = target.sum(1)
    assert sums[weight > 0] == pytest.approx(torch.ones(int((weight > 0).sum())), abs=1e-4)
    assert sums[weight == 0].eq(0).all()


def test_images_without_positions_take_part_from_the_second_round_on():
    images, spots = scene(24, noise=0.3)
    known, rest = collected(images[:2], theta_of(3)), collected(images[2:], identity_affine(1))
    position = spots[:2, None].repeat(1, 3, 1, 1)
    position += 0.05 * torch.randn(position.shape, generator=torch.Generator().manual_seed(1))
    alone, together = refine(position, known), refine(position, known, rest)
    errors = [(rest.locate(tokens)[0] - spots[2:]).norm(dim=-1).mean() for tokens in (alone, together)]
    assert errors[1] < 0.7 * errors[0]
    assert torch.equal(refine(position, known, FeatureStore(theta_of(1))), alone)  # none is none


@pytest.mark.parametrize("seed", range(3))
def test_images_under_shapes_teach_what_surrounds_a_part(seed):
    """A part is told by itself and, less clearly, by what is around it; under shapes something like it is elsewhere."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=g)
    spots, others = (0.15 + 0.7 * torch.rand(24, 2, generator=g) for _ in range(2))
    noise = 0.05 * torch.randn(2, 24, D, G, G, generator=g)

    def seen(part, noise):
        pure = noise.clone()
        pure[:, 0] += torch.stack([bump(spot) for spot in part])
        pure[:, 1] += torch.stack([0.6 * bump(spot) for spot in spots])
        return collected(torch.einsum("de,iehw->idhw", mix, pure), identity_affine(1))

    known, under, position = seen(spots, noise[0]), seen(others, noise[1]), spots[:, None, None]
    plain, taught = refine(position, known), refine(position, known, occluded=under)
    errors = [(under.locate(tokens)[0] - spots[:, None]).norm(dim=-1).mean() for tokens in (plain, taught)]
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.05
    assert (known.locate(taught)[0] - spots[:, None]).norm(dim=-1).mean() < 0.05


def test_candidates_are_told_apart_by_how_well_they_fit():
    found = []
    for noise in (0.15, 0.6):
        images, spots = scene(30, noise=noise)
        where, missed = refine_candidates(spots[:, None], collected(images, theta_of(3)))
        assert where.shape == (30, 3, 3, 2) and missed.shape == (3,)
        found.append(missed)
        if noise < 0.5:  # in the image's frame, from every view
            assert (where - spots[:, None]).norm(dim=-1).median() < 0.05
    assert found[1].min() > found[0].max() + 0.3


def test_coarse_places_are_means_of_blocks():
    image = torch.arange(32.0 * 32).reshape(1, 1, 32, 32) / 1024
    places = FeatureStore(identity_affine(1))
    places.add(image, torch.ones(1, 1, 32, 32))
    coarse = places.coarse()
    assert coarse.side == 16 and len(coarse) == 1
    blocks = image.reshape(16, 2, 16, 2).mean((1, 3))
    torch.testing.assert_close(coarse.features[0][0, 0].float(), blocks, atol=1e-3, rtol=0)
    assert collected(scene(1)[0], identity_affine(1)).coarse().side == G  # as coarse as it gets


def test_one_flat_image_does_not_break_the_fit():
    places = collected(torch.zeros(1, D, G, G), identity_affine(1))
    tokens = refine(torch.full((1, 1, 2, 2), 0.5), places)
    assert tokens.isfinite().all() and places.locate(tokens)[0].isfinite().all()
