"""Views that cannot see a token do not say where it is."""

import torch

from stablekp_core.images.affine import identity_affine
from stablekp_core.selection.select import seen_positions


def test_a_stray_peak_of_a_view_that_looks_elsewhere_does_not_count():
    theta = identity_affine(3)
    theta[1, :, :2] *= 0.5  # sees the middle half only
    theta[2, :, :2] *= 0.9
    position = torch.tensor([[[0.1, 0.1], [0.5, 0.5]], [[0.7, 0.3], [0.5, 0.52]], [[0.12, 0.1], [0.5, 0.5]]])
    found = seen_positions(position, theta)
    torch.testing.assert_close(found[1, 0], torch.tensor([0.11, 0.1]))  # the mean of those that see it
    torch.testing.assert_close(found[[0, 2]], position[[0, 2]])
    torch.testing.assert_close(found[:, 1], position[:, 1])
    torch.testing.assert_close(found.mean(0)[0], torch.tensor([0.11, 0.1]))
