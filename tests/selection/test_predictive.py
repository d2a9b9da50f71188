import numpy as np
import torch

from stablekp_core.keypoints.spatial_prior import RIDGE, STEP, SpatialPrior
from stablekp_core.selection.predictive import FOLDS, most_predictive


def naive_choice(position, height, count):
    """The rule written out: ridge regression, fold by fold, candidate by candidate."""
    images, views, tokens, _ = position.shape
    x = position - position.mean((0, 1))
    noise = (x - x.mean(1, keepdims=True)).var(1, ddof=0).sum(-1).mean(0) * views / (views - 1)
    weight = np.clip(1 - noise / (x**2).sum(-1).mean((0, 1)), 0, 1) * height.mean(0) + 1e-9
    taken = []
    for _ in range(count):
        errors = {}
        for n in set(range(tokens)) - set(taken):
            columns, errors[n] = [*taken, n], 0.0
            for fold in range(min(FOLDS, images)):
                held = np.arange(images) % min(FOLDS, images) == fold
                samples = []
                for which in (~held, held):
                    seen = x[which][:, :, columns].reshape(-1, 2 * len(columns))
                    others = (x[which].sum(1, keepdims=True) - x[which]) / (views - 1)
                    samples.append((seen, others.reshape(len(seen), -1)))
                (a, b), (c, d) = samples
                solution = np.linalg.solve(a.T @ a + RIDGE * len(a) * np.eye(a.shape[1]), a.T @ b)
                errors[n] += (((d - c @ solution) ** 2).reshape(len(d), tokens, 2).sum((0, 2)) * weight).sum()
        taken.append(min(errors, key=errors.get))
    return taken


def some_positions(images=24, views=3, seed=0):
    """Tokens 0-2 follow hidden points 0-2 closely, 3 and 4 follow point 0 too, 5 stays put, 6 and 7 jump about."""
    rng = np.random.default_rng(seed)
    hidden = rng.uniform(0.1, 0.9, (images, 1, 3, 2))
    position = np.repeat(hidden[:, :, [0, 1, 2, 0, 0, 0, 0, 0]], views, 1)
    position[:, :, 5] = (0.9, 0.1)
    position[:, :, 6:] = rng.uniform(0, 1, (images, views, 2, 2))
    position += rng.normal(0, 0.01, position.shape)
    return torch.from_numpy(position), torch.from_numpy(rng.uniform(0.3, 0.6, (images, 8)))


def test_the_choice_is_that_of_ridge_regression_tried_on_unseen_images():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0.5, 0.1, (14, 1, 4, 2))
        position = np.concatenate([shared, shared, shared[:, :, :2]], 2) + rng.normal(0, 0.05, (14, 3, 10, 2))
        height = rng.uniform(0.1, 1, (14, 10))
        chosen = most_predictive(torch.from_numpy(position), torch.from_numpy(height), 5)
        assert chosen.tolist() == naive_choice(position, height, 5)


def test_every_moving_part_is_told_once_and_noise_never():
    chosen = set(most_predictive(*some_positions(), 3).tolist())
    assert {1, 2} < chosen and len(chosen & {0, 3, 4}) == 1
    assert most_predictive(*some_positions(), 8).sort().values.tolist() == list(range(8))


def test_the_choice_works_with_one_view_or_one_image():
    position, height = some_positions()
    assert len(set(most_predictive(position[:, :1], height, 4).tolist())) == 4
    assert len(set(most_predictive(position[:1], height[:1], 4).tolist())) == 4


def test_tokens_beyond_the_limit_are_left_out_by_height(monkeypatch):
    monkeypatch.setattr("stablekp_core.selection.predictive.MOST", 4)
    position, height = some_positions()
    height[:, [0, 1, 2]] *= 0.01
    assert set(most_predictive(position, height, 2).tolist()) <= {3, 4, 5, 6, 7}


def centred(x):
    return x - x.mean(1, keepdims=True)


def test_each_point_is_predicted_from_the_others():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(200, 1, 2)) * np.array([1.0, 0.8, 0.5])[:, None] + rng.normal(0, 0.02, (200, 3, 2))
    spatial_prior, y = SpatialPrior.of(torch.from_numpy(x)), centred(x)
    np.testing.assert_allclose(spatial_prior.mean, y.mean(0), atol=1e-6)
    np.testing.assert_allclose(spatial_prior.covariance, np.cov(y.reshape(200, -1).T, bias=True), atol=1e-6)
    moved = x[:5].copy()
    moved[2, 1] += (0.3, -0.4)
    found, usual = spatial_prior.residual(torch.from_numpy(moved)), []
    for k in range(3):  # by ridge regression
        others = [j for j in range(3) if j != k]
        a, b = ((y - y.mean(0))[:, j].reshape(len(x), -1) for j in (others, [k]))
        solution = np.linalg.solve(a.T @ a / len(a) + RIDGE * np.eye(4), a.T @ b / len(a))
        away = centred(moved) - y.mean(0)
        expected = np.linalg.norm(away[:, k] - away[:, others].reshape(5, -1) @ solution, axis=-1)
        np.testing.assert_allclose(found[:, k], expected, atol=1e-5)
        usual.append(np.sqrt(((b - a @ solution) ** 2).sum(-1).mean()))
    scale = np.maximum(np.sqrt(204 / 196) * np.array(usual), STEP)
    np.testing.assert_allclose(
        spatial_prior.consistency(torch.from_numpy(moved)), np.exp(-((found.numpy() / scale) ** 2) / 2), atol=1e-4
    )
    assert found[2].argmax() == 1 and found[2, 1] > 3 * found[[0, 1, 3, 4]].max()


def test_where_the_figure_stands_does_not_matter():
    x = torch.rand(30, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spatial_prior = SpatialPrior.of(x)
    np.testing.assert_allclose(
        spatial_prior.consistency(x + torch.tensor([0.3, -2.0])), spatial_prior.consistency(x), atol=1e-6
    )
    assert spatial_prior.consistency(x).mean() > 0.5
    assert SpatialPrior.of(x[:, :1]).consistency(x[:, :1]).min() == 1  # no other keypoint


def test_peers_of_some_keypoints():
    x = torch.rand(30, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picked, fresh = SpatialPrior.of(x).pick([2, 0, 3]), SpatialPrior.of(x[:, [2, 0, 3]])
    np.testing.assert_allclose(picked.mean, fresh.mean, atol=1e-6)
    np.testing.assert_allclose(picked.covariance, fresh.covariance, atol=1e-6)
    assert picked.fits(3) and not picked.fits(4)
    assert not SpatialPrior(fresh.mean, fresh.covariance * float("nan"), 30).fits(3)
