import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.procrustes import align, fill_unseen, mean_shape
from stablekp_core.pose.fitting import LandmarkMap, apply_landmark_map, fit_landmark_map, pair_rows
from stablekp_core.pose.ridge import fit_ridge

LANDMARKS = ("hip", "neck", "head", "l_elbow", "l_hand", "r_elbow", "r_hand", "l_foot", "r_foot")


def figures(count, seed=0):
    """Stick figures [count, 9, 2] in pixels of a 200 x 100 image: turned, moved, scaled, limbs swinging."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-0.6, 0.6, (count, 4)) + [2.4, -2.4, 0.4, -0.4]  # arms out, legs down

    def limb(start, length, at):
        return start + length * np.stack([np.sin(at), np.cos(at)], -1)

    hip = np.zeros((count, 2))
    neck = hip + [0, -1.0]
    head = neck + [0, -0.4]
    left, right = limb(neck, 0.5, angle[:, 0] - 1.2), limb(neck, 0.5, angle[:, 1] + 1.2)
    left_hand, right_hand = limb(left, 0.5, angle[:, 0] - 0.8), limb(right, 0.5, angle[:, 1] + 0.8)
    feet = [limb(hip, 1.1, angle[:, 2]), limb(hip, 1.1, angle[:, 3])]
    xy = np.stack([hip, neck, head, left, left_hand, right, right_hand, *feet], 1)
    turn, size = rng.uniform(-0.3, 0.3, count), rng.uniform(12, 22, count)
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2) * size[:, None, None]
    return np.einsum("bij,bkj->bki", rotation, xy) + rng.uniform((60, 45), (140, 55), (count, 1, 2))


def world(count, seed=0, noise=0.5, k=8):
    """(keypoints, labels): k keypoints that are noisy mixtures of landmarks, as discovered points are."""
    joints = figures(count, seed)
    rng = np.random.default_rng(seed + 1000)
    mixture = np.random.default_rng(5).dirichlet(np.full(len(LANDMARKS), 0.15), k)
    points = np.einsum("kl,blc->bkc", mixture, joints) + rng.normal(0, noise, (count, k, 2))
    sizes = np.full((count, 2), (200, 100))
    names = tuple(f"img{i}.png" for i in range(count))
    keypoints = Keypoints(points, np.full((count, k), 0.6), sizes, images=names)
    return keypoints, Keypoints(joints, np.ones(joints.shape[:2]), sizes, LANDMARKS, images=names)


def error(found, truth):
    return float(np.linalg.norm(found.xy - truth.xy, axis=-1).mean())


def changed(kp, **values):
    fields = ("xy", "confidence", "sizes", "names", "skeleton", "images", "colors", "image_index")
    return Keypoints(**{**{f: getattr(kp, f) for f in fields}, **values})


@pytest.mark.parametrize(("block", "intercept"), [(1, False), (1, True), (2, False), (2, True)])
def test_leave_one_out_equals_fitting_again(block, intercept):
    """The closed form against really leaving each block out, with ridge held at the same strength."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4)), rng.normal(size=(16, 3))
    w = np.repeat(rng.uniform(0.2, 1, (16 // block, 3)), block, axis=0)
    w[:block, 1] = 0
    fit = fit_ridge(x, y, w, 0.1, intercept=intercept, block=block)
    for p in range(3):
        centre = (w[:, p] @ x / w[:, p].sum()) if intercept else 0.0
        strength = 0.1 * (w[:, p, None] * (x - centre) ** 2).sum() / 4
        for start in range(0, 16, block):
            rest = np.setdiff1d(np.arange(16), range(start, start + block))
            a = np.column_stack([x, np.ones(16)]) if intercept else x
            penalty = strength * np.diag([1.0] * 4 + [0.0] * intercept)
            root = w[rest, p, None]
            b = np.linalg.solve(a[rest].T @ (root * a[rest]) + penalty, a[rest].T @ (root[:, 0] * y[rest, p]))
            left_out = range(start, start + block)
            if w[start, p] == 0:
                assert np.isnan(fit.residuals[left_out, p]).all()
            else:
                np.testing.assert_allclose(fit.residuals[left_out, p], (y - (a @ b)[:, None] * [1, 1, 1])[left_out, p])


def test_plain_least_squares_is_the_protocol():
    """mode linear, ridge 0: X - 0.5, Y - 0.5, least squares without bias, + 0.5 back, as shares of sides."""
    keypoints, labels = world(60)
    fitted = fit_landmark_map(keypoints, labels, mode="linear", ridge=0)
    x = (keypoints.xy / [200, 100]).reshape(60, -1).astype(np.float64) - 0.5
    y = (labels.xy / [200, 100]).reshape(60, -1).astype(np.float64) - 0.5
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(fitted.weights, weights, atol=1e-5)
    assert not fitted.bias.any() and fitted.ridge == 0 and fitted.rank == 0
    expected = ((x @ weights).reshape(60, -1, 2) + 0.5) * [200, 100]
    np.testing.assert_allclose(fitted.apply(keypoints).xy, expected, atol=1e-3)
    everything = changed(keypoints, occluded=np.full_like(keypoints.confidence, 0.7))
    np.testing.assert_allclose(fitted.apply(everything).occluded, 0.7, atol=1e-5)  # a mean over its keypoints


def test_affine_adds_a_bias():
    keypoints, labels = world(80, noise=0.1)
    moved = changed(labels, xy=labels.xy + [30, -10])  # no sum of keypoints without a bias can follow a shift
    linear = fit_landmark_map(keypoints, moved, mode="linear", ridge=0)
    affine = fit_landmark_map(keypoints, moved, mode="affine", ridge=0)
    assert affine.bias.any()
    assert error(affine.apply(keypoints), moved) < 0.7 * error(linear.apply(keypoints), moved)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_labels_are_enough(seed):
    keypoints, labels = world(205, seed)
    few = labels.rows(range(5))
    held_out = range(5, 205)
    fitted = fit_landmark_map(keypoints, few)
    found = error(fitted.apply(keypoints).rows(held_out), labels.rows(held_out))
    plain = fit_landmark_map(keypoints, few, mode="linear", ridge=1e-9)
    naive = error(plain.apply(keypoints).rows(held_out), labels.rows(held_out))
    middle = np.linalg.norm(labels.xy - labels.xy.mean(0), axis=-1)[5:].mean()
    assert found < 4.0  # pixels; the figures are about 60 tall
    assert found < 0.5 * naive and found < 0.25 * middle
    # What is reported is what was found on new images, within the accuracy of five labels.
    assert 0.4 < np.nanmean(fitted.error) / (found / 200 * 100) < 2.5


def test_more_labels_are_better():
    keypoints, labels = world(500)
    errors = []
    for count in (5, 20, 200):
        fitted = fit_landmark_map(keypoints, labels.rows(range(count)))
        errors.append(error(fitted.apply(keypoints).rows(range(200, 500)), labels.rows(range(200, 500))))
    assert errors[0] > errors[1] > errors[2]


def test_rank_limits_the_freedom():
    keypoints, labels = world(40)
    fitted = fit_landmark_map(keypoints, labels, mode="affine", rank=3)
    assert fitted.rank == 3 and np.linalg.matrix_rank(fitted.weights) == 3
    assert np.linalg.matrix_rank(fit_landmark_map(keypoints, labels, mode="affine", rank=0).weights) > 3


def test_figure_maps_follow_the_figure():
    """Moved, turned and scaled keypoints give equally moved, turned and scaled landmarks."""
    keypoints, labels = world(30)
    keypoints, labels = (changed(p, sizes=np.full((30, 2), 200)) for p in (keypoints, labels))
    fitted = fit_landmark_map(keypoints, labels, mode="figure")
    before = fitted.apply(keypoints).xy
    matrix = np.array([[0.0, -0.7], [0.7, 0.0]])
    after = fitted.apply(changed(keypoints, xy=keypoints.xy @ matrix.T + [50, 7])).xy
    np.testing.assert_allclose(after, before @ matrix.T + [50, 7], atol=1e-3)


def test_visibility_counts():
    """Labels of confidence 0 must not matter, and a landmark with too few labels stays missing."""
    keypoints, labels = world(30)
    confidence = labels.confidence.copy()
    confidence[10:, 3] = 0
    confidence[2:, 4] = 0
    wrong = labels.xy.copy()
    wrong[10:, 3] = 9999
    fitted = fit_landmark_map(keypoints, changed(labels, confidence=confidence, xy=wrong))
    clean = fit_landmark_map(keypoints, changed(labels, confidence=confidence))
    np.testing.assert_array_equal(fitted.weights, clean.weights)
    assert fitted.fitted.tolist() == [True] * 4 + [False] + [True] * 4
    assert fitted.labelled[3] == 10 and fitted.labelled[4] == 2
    assert np.isnan(fitted.error[4]) and "l_hand" in fitted.report().splitlines()[-1]
    found = fitted.apply(keypoints)
    assert not found.confidence[:, 4].any() and not found.xy[:, 4].any()
    assert error(found.select([3]), labels.select([3])) < 4


def test_confidence_protects_from_wrong_keypoints():
    keypoints, labels = world(120)
    rng = np.random.default_rng(3)
    lost = rng.random(keypoints.confidence.shape) < 0.15
    xy = np.where(lost[..., None], rng.uniform(0, 100, keypoints.xy.shape), keypoints.xy)
    bad = changed(keypoints, xy=xy, confidence=np.where(lost, 0.01, 0.6))
    train, test = range(40), range(40, 120)
    errors = {}
    for use in (True, False):
        fitted = fit_landmark_map(bad.rows(train), labels.rows(train), use_confidence=use)
        errors[use] = error(fitted.apply(bad).rows(test), labels.rows(test))
    assert errors[True] < 0.6 * errors[False]
    fitted = fit_landmark_map(bad.rows(train), labels.rows(train))
    low = fitted.apply(changed(bad, confidence=np.full(bad.confidence.shape, 0.1)))
    assert (low.confidence <= 0.1 + 1e-6).all() and (low.confidence > 0).any()
    nothing = fitted.apply(changed(bad, confidence=np.zeros(bad.confidence.shape)))
    assert not nothing.confidence.any() and np.isfinite(nothing.xy).all()


def test_too_few_labels_are_refused_by_number():
    keypoints, labels = world(30)
    with pytest.raises(KeypointError, match="at least 3 labelled images.*not? .*more than 2; label 1 more"):
        fit_landmark_map(keypoints, labels.rows(range(2)))
    with pytest.raises(KeypointError, match="at least 16 labelled images.*only 10; label 6 more"):
        fit_landmark_map(keypoints, labels.rows(range(10)), mode="linear", ridge=0)
    with pytest.raises(KeypointError, match="at least 17 .*only 16; label 1 more"):
        fit_landmark_map(keypoints, labels.rows(range(16)), mode="affine", ridge=0)
    assert fit_landmark_map(keypoints, labels.rows(range(16)), mode="linear", ridge=0).images == 16
    assert fit_landmark_map(keypoints, labels.rows(range(3))).images == 3


def test_bad_arguments():
    keypoints, labels = world(10)
    with pytest.raises(KeypointError, match="mode is 'cubic'"):
        fit_landmark_map(keypoints, labels, mode="cubic")
    with pytest.raises(KeypointError, match="ridge is -1"):
        fit_landmark_map(keypoints, labels, ridge=-1.0)
    with pytest.raises(KeypointError, match="whole image"):
        fit_landmark_map(keypoints, changed(labels, sizes=np.full((10, 2), 200)))


def test_labels_of_a_resized_image():
    keypoints, labels = world(20)
    half = changed(labels, xy=labels.xy / 2, sizes=labels.sizes // 2)
    a, b = fit_landmark_map(keypoints, labels), fit_landmark_map(keypoints, half)
    np.testing.assert_allclose(a.weights, b.weights, atol=1e-6)


def test_pairing_by_name_ignores_folder_and_suffix():
    keypoints, labels = world(6)
    shuffled = [4, 2, 5]
    named = changed(labels.rows(shuffled), images=tuple(f"some/folder/img{i}.jpg" for i in shuffled))
    a, b = pair_rows(keypoints, named)
    assert dict(zip(a.tolist(), b.tolist(), strict=True)) == {4: 0, 2: 1, 5: 2}
    with pytest.raises(KeypointError, match="no labelled image .such as other0"):
        pair_rows(keypoints, changed(labels, images=tuple(f"other{i}" for i in range(6))))


def test_pairing_by_order_and_by_place():
    keypoints, labels = world(4)
    unnamed = changed(labels, images=("",) * 4)
    assert [v.tolist() for v in pair_rows(keypoints, unnamed)] == [[0, 1, 2, 3]] * 2
    with pytest.raises(KeypointError, match="labels of image 3 but keypoints of 2 images"):
        pair_rows(changed(keypoints.rows(range(2)), num_images=2), unnamed)
    # Two figures in one image, labelled in the other order.
    xy = np.stack([labels.xy[0], labels.xy[0] + 90])
    two = changed(labels.rows([0, 1]), xy=xy, image_index=np.zeros(2), images=("", ""))
    swapped = changed(two, xy=xy[::-1])
    assert [v.tolist() for v in pair_rows(two, swapped)] == [[0, 1], [1, 0]]


def test_file_round_trip(tmp_path):
    keypoints, labels = world(25)
    labels = changed(labels, skeleton=((0, 1), (1, 2)))
    fitted = fit_landmark_map(keypoints, labels)
    path = fitted.save(tmp_path / "people")
    assert path.name == "people.safetensors"
    back = LandmarkMap.load(path)
    for name in ("weights", "bias", "shape", "trusted", "fitted", "labelled", "error"):
        np.testing.assert_array_equal(getattr(back, name), getattr(fitted, name))
    assert back.names == LANDMARKS and back.skeleton == ((0, 1), (1, 2)) and back.mode == fitted.mode
    found = apply_landmark_map(keypoints, back)
    np.testing.assert_array_equal(found.xy, fitted.apply(keypoints).xy)
    assert found.names == LANDMARKS and found.images == keypoints.images


def test_files_that_are_no_landmark_map(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(KeypointError, match="does not exist"):
        LandmarkMap.load(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weights": np.zeros((2, 2))}, str(other))
    with pytest.raises(KeypointError, match="not a landmark map"):
        LandmarkMap.load(other)
    fitted = fit_landmark_map(*world(10))
    path = fitted.save(tmp_path / "map.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(KeypointError, match="not a complete safetensors file"):
        LandmarkMap.load(path)


def test_other_keypoints_are_refused_and_reordered_ones_found():
    keypoints, labels = world(20)
    fitted = fit_landmark_map(keypoints, labels)
    order = [3, 0, 7, 1, 2, 4, 6, 5]
    np.testing.assert_allclose(fitted.apply(keypoints.select(order)).xy, fitted.apply(keypoints).xy)
    with pytest.raises(KeypointError, match="fitted to the 8 keypoints"):
        fitted.apply(keypoints.select(range(7)))


def test_alignment_recovers_a_similarity():
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(6, 2))
    matrix = 3.0 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    target = shape @ matrix.T + [5, -2]
    weights = np.ones((1, 6))
    weights[0, 2] = 0  # this point is wrong and must not matter
    spoiled = target.copy()
    spoiled[2] = 1000
    np.testing.assert_allclose(align(shape, spoiled[None], weights)[0], target, atol=1e-9)
    np.testing.assert_allclose(fill_unseen(spoiled[None], weights, shape)[0], target, atol=1e-9)
    many = np.stack([target, shape * 0.5, shape + 7])
    mean = mean_shape(many, np.ones((3, 6)))
    np.testing.assert_allclose(align(mean, many, np.ones((3, 6))), many, atol=1e-9)
    assert np.isclose((mean**2).sum(-1).mean(), 1.0) and np.allclose(mean.mean(0), 0)
