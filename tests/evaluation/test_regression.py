"""Least squares from keypoints to landmarks against naive formulas."""

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.evaluation.metrics import taichi_standard
from stablekp_core.evaluation.regression import fit_regression


def data(images=40, keypoints=3, landmarks=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((images, keypoints, 2))
    y = rng.random((images, landmarks, 2)) * 0.5 + x[:, :1] * 0.5
    return x, y, rng.random((images, landmarks)) < 0.7


def normal_equations(x, y):
    return np.linalg.inv(x.T @ x) @ x.T @ y


def test_the_protocol_is_centred_least_squares_without_bias():
    x, y, _ = data()
    model = fit_regression(x, y)
    matrix = normal_equations(x.reshape(40, 6) - 0.5, y.reshape(40, 8) - 0.5)
    np.testing.assert_allclose(model.matrix, matrix, atol=1e-10)
    assert not model.offset.any()
    other = data(seed=1)[0]
    expected = ((other.reshape(40, 6) - 0.5) @ matrix + 0.5).reshape(40, 4, 2)
    np.testing.assert_allclose(model.predict(other), expected, atol=1e-10)


def test_without_bias_the_centre_maps_to_the_centre():
    x, y, _ = data()
    np.testing.assert_allclose(fit_regression(x, y).predict(np.full((1, 3, 2), 0.5)), 0.5)
    assert abs(fit_regression(x, y, bias=True).predict(np.full((1, 3, 2), 0.5)) - 0.5).max() > 1e-3


@pytest.mark.parametrize("bias", [False, True])
def test_each_landmark_is_fitted_on_the_images_that_show_it(bias):
    x, y, visible = data()
    wrong = np.where(visible[..., None], y, -1 / 256)  # what stands where a landmark is missing must not matter
    model = fit_regression(x, wrong, visible, bias=bias)
    for landmark in range(4):
        for axis in range(2):
            rows = visible[:, landmark]
            features = x[rows].reshape(rows.sum(), 6) - 0.5
            if bias:
                features = np.concatenate([features, np.ones((rows.sum(), 1))], 1)
            solution = normal_equations(features, y[rows, landmark, axis] - 0.5)
            np.testing.assert_allclose(model.matrix[:, 2 * landmark + axis], solution[:6], atol=1e-9)
            assert model.offset[2 * landmark + axis] == pytest.approx(solution[6] if bias else 0, abs=1e-9)


def test_thirty_six_fits_with_intercept_give_the_standard_tai_chi_number():
    rng = np.random.default_rng(3)
    x, y = rng.random((60, 10, 2)), rng.random((60, 18, 2))
    seen, x2, y2 = rng.random((60, 18)) < 0.8, rng.random((20, 10, 2)), rng.random((20, 18, 2))
    seen2 = rng.random((20, 18)) < 0.8
    total = 0.0
    for joint in range(18):
        for axis in range(2):
            features = np.concatenate([x.reshape(60, 20) * 256, np.ones((60, 1))], 1)[seen[:, joint]]
            beta = normal_equations(features, y[seen[:, joint], joint, axis] * 256)
            test = np.concatenate([x2.reshape(20, 20) * 256, np.ones((20, 1))], 1)[seen2[:, joint]]
            total += np.abs(test @ beta - y2[seen2[:, joint], joint, axis] * 256).mean()
    predicted = fit_regression(x, y, seen, bias=True).predict(x2)
    assert taichi_standard(predicted * 256, y2 * 256, seen2) == pytest.approx(total, rel=1e-8)


def test_weights_shrink_points_towards_the_centre():
    x, y, _ = data()
    weights = np.random.default_rng(5).random((40, 3))
    by_hand = 0.5 + (x - 0.5) * weights[..., None]
    model, expected = fit_regression(x, y, weights=weights), fit_regression(by_hand, y)
    np.testing.assert_allclose(model.matrix, expected.matrix, atol=1e-10)
    np.testing.assert_allclose(model.predict(x, weights), expected.predict(by_hand), atol=1e-10)


@pytest.mark.parametrize("bias", [False, True])
def test_ridge_is_the_closed_form_and_leaves_the_offset_free(bias):
    x, y, _ = data()
    features, targets, penalty = x.reshape(40, 6) - 0.5, y.reshape(40, 8) - 0.5, np.eye(6 + bias) * 2.5
    if bias:
        features, penalty[6, 6] = np.concatenate([features, np.ones((40, 1))], 1), 0
    solution = np.linalg.inv(features.T @ features + penalty) @ features.T @ targets
    model = fit_regression(x, y, bias=bias, ridge=2.5)
    np.testing.assert_allclose(model.matrix, solution[:6], atol=1e-10)
    np.testing.assert_allclose(model.offset, solution[6] if bias else np.zeros(8), atol=1e-10)


def test_fewer_images_than_unknowns_are_fitted_exactly():
    x, y, _ = data(images=4, keypoints=10)
    model = fit_regression(x, y)
    np.testing.assert_allclose(model.predict(x), y, atol=1e-9)
    expected = np.linalg.pinv(x.reshape(4, 20) - 0.5) @ (y.reshape(4, 8) - 0.5)  # the smallest of the solutions
    np.testing.assert_allclose(model.matrix, expected, atol=1e-9)


def test_errors_say_what_is_wrong():
    x, y, visible = data()
    with pytest.raises(KeypointError, match="do not fit together"):
        fit_regression(x[:5], y)
    with pytest.raises(KeypointError, match="do not fit together"):
        fit_regression(x[:0], y[:0])
    visible[:, 2] = False
    with pytest.raises(KeypointError, match="landmark 2 is visible on none of the 40 images"):
        fit_regression(x, y, visible)
