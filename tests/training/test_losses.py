import math

import numpy as np
import pytest
import torch

from stablekp_core.attention.readout import gaussian_maps
from stablekp_core.training.losses import equivariance_loss, localization_loss


def naive_gaussian(row, column, size, sigma):
    out = np.zeros((size, size))
    for r in range(size):
        for c in range(size):
            out[r, c] = math.exp(-((r + 0.5 - row) ** 2 + (c + 0.5 - column) ** 2) / (2 * sigma**2))
    return out


def some_maps(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_gaussians():
    center = torch.tensor([[[2.5, 6.5], [0.5, 0.5]], [[7.0, 3.25], [11.5, 4.5]]])
    found = gaussian_maps(center, 12, 1.7)
    assert found.shape == (2, 2, 12, 12)
    for i in range(2):
        for k in range(2):
            np.testing.assert_allclose(found[i, k], naive_gaussian(*center[i, k].tolist(), 12, 1.7), atol=1e-6)
    assert found[0, 0].max() == 1 and found[0, 0, 2, 6] == 1


def test_localization_loss():
    maps, center = (
        some_maps(0, 2, 3, 9, 9),
        torch.randint(0, 9, (2, 3, 2), generator=torch.Generator().manual_seed(1)) + 0.5,
    )
    found = localization_loss(maps, center, 2.0)
    for i in range(2):
        total = sum(
            ((maps[i, k].double().numpy() - naive_gaussian(*center[i, k].tolist(), 9, 2.0)) ** 2).sum()
            for k in range(3)
        )
        assert found[i].item() == pytest.approx(total / (3 * 81), rel=1e-5)
    perfect = gaussian_maps(center, 9, 2.0)
    assert localization_loss(perfect, center, 2.0).abs().max() == 0


def naive_equivariance(maps, returned, covered):
    total, count = 0.0, 0
    for k in range(maps.shape[0]):
        for r in range(maps.shape[1]):
            for c in range(maps.shape[2]):
                if covered is None:
                    total, count = total + (maps[k, r, c] - returned[k, r, c]) ** 2, count + 1
                elif covered[r, c] > 0.5:
                    total, count = total + (maps[k, r, c] - returned[k, r, c] / covered[r, c]) ** 2, count + 1
    return total / max(count, 1)


def test_equivariance_loss_with_and_without_coverage():
    maps, returned = some_maps(0, 2, 3, 8, 8), some_maps(1, 2, 3, 8, 8)
    covered = torch.tensor([0.0, 0.3, 0.5, 0.6, 0.9, 1.0])[
        torch.randint(0, 6, (2, 1, 8, 8), generator=torch.Generator().manual_seed(2))
    ]
    plain, masked = equivariance_loss(maps, returned, None), equivariance_loss(maps, returned, covered)
    for i in range(2):
        m, b = maps[i].double().numpy(), returned[i].double().numpy()
        assert plain[i].item() == pytest.approx(naive_equivariance(m, b, None), rel=1e-5)
        assert masked[i].item() == pytest.approx(naive_equivariance(m, b, covered[i, 0].double().numpy()), rel=1e-5)


def test_unseen_pixels_count_only_without_the_mask():
    maps, covered = torch.ones(1, 2, 6, 6), torch.ones(1, 1, 6, 6)
    covered[..., :2] = 0
    returned = maps * covered  # a perfect view of two thirds of the image
    assert equivariance_loss(maps, returned, covered).item() == 0
    assert equivariance_loss(maps, returned, None).item() == pytest.approx(1 / 3)
    nothing = equivariance_loss(maps.requires_grad_(), torch.zeros_like(maps), torch.zeros(1, 1, 6, 6))
    assert nothing.item() == 0  # a view that saw nothing says nothing
    nothing.sum().backward()
    assert (maps.grad == 0).all()


def test_gradients_match_finite_differences():
    maps, returned = some_maps(3, 1, 2, 5, 5).requires_grad_(), some_maps(4, 1, 2, 5, 5).requires_grad_()
    covered = some_maps(5, 1, 1, 5, 5)
    center = torch.tensor([[[1.5, 2.5], [4.5, 0.5]]])

    def total(a, b):
        return (3 * localization_loss(a, center, 1.0) + 7 * equivariance_loss(a, b, covered)).sum()

    total(maps, returned).backward()
    for tensor in (maps, returned):
        for where in ((0, 0, 1, 2), (0, 1, 4, 0), (0, 1, 3, 3)):
            high, low = tensor.detach().clone(), tensor.detach().clone()
            high[where] += 1e-2
            low[where] -= 1e-2
            a, b = ((high, returned), (low, returned)) if tensor is maps else ((maps, high), (maps, low))
            slope = (total(*a) - total(*b)).item() / 2e-2
            assert tensor.grad[where].item() == pytest.approx(slope, abs=2e-4)
