import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import WIDTH

from stablekp_core.attention import tiled
from stablekp_core.attention.readout import REACH, moments, peaks, read_out, share_at, spatial_mean
from stablekp_core.attention.token_maps import coarse_maps, spatial_softmax_maps, stacked_features, token_maps
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector, detect, maps_on_image
from stablekp_core.errors import KeypointError
from stablekp_core.images.affine import identity_affine, random_affine, warp
from stablekp_core.images.ensembling import average_views
from stablekp_core.images.image_set import ImageSet
from stablekp_core.images.preprocessing import input_transform
from stablekp_core.keypoints.spatial_prior import SpatialPrior
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.randomness import generator_for
from stablekp_core.selection.occlusion import load_occlusion_network, occlusion_network, occlusion_probability

SIZE, CHOSEN = 16, (7, 2, 9)
LAYERS = 4  # of the tiny model that are captured


def make_tokens(scores=(0.5, 0.5, 0.5), **changes):
    config = TrainConfig(keypoints=3, tokens=12, candidates=5, map_size=SIZE).replace(**changes)
    embeddings = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))
    return KeypointTokens(
        embeddings,
        CHOSEN,
        config=config.to_dict(),
        model_hash="0123abcd",
        names=("a", "b", "c"),
        skeleton=((0, 2),),
        scores=scores,
    )


def make_images(count=3, size=(20, 30), seed=0):
    rng = np.random.default_rng(seed)
    return [(f"p{i}", rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for i in range(count)]


def theta_of(count, seed=0):
    return random_affine(count, 15, (0.8, 1.0), 0.25, torch.Generator().manual_seed(seed))


def lookup(map_, x, y):
    """Bilinear value of map_ [R, R] at grid coordinates, zero outside."""
    size, total = len(map_), 0.0
    for r in (math.floor(y), math.floor(y) + 1):
        for c in (math.floor(x), math.floor(x) + 1):
            if 0 <= r < size and 0 <= c < size:
                total += (1 - abs(y - r)) * (1 - abs(x - c)) * map_[r, c]
    return total


def naive_average(maps, theta):
    """maps [V, R, R] of one keypoint: each image pixel's mean over the views, weighted by how much they
    saw.
    """
    size = maps.shape[-1]
    out = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            total = seen = 0.0
            u, v = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
            for map_, t in zip(maps, theta, strict=True):
                x, y = np.linalg.solve(t[:, :2], np.array([u, v]) - t[:, 2])
                x, y = ((x + 1) * size - 1) / 2, ((y + 1) * size - 1) / 2
                total, seen = total + lookup(map_, x, y), seen + lookup(np.ones_like(map_), x, y)
            out[row, column] = total / seen if seen > 1e-5 else 0
    return out


def test_views_are_averaged_where_they_saw_something():
    theta, maps = theta_of(6), torch.rand(6, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    found = average_views(maps, theta, 2)
    assert found.shape == (2, 2, 12, 12)
    for image in range(2):
        own = slice(3 * image, 3 * image + 3)
        for k in range(2):
            expected = naive_average(maps[own, k].double().numpy(), theta[own].double().numpy())
            np.testing.assert_allclose(found[image, k], expected, atol=2e-4)
    np.testing.assert_allclose(average_views(maps, identity_affine(6), 6), maps, atol=1e-5)
    half = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]])  # sees the middle only
    assert average_views(torch.ones(1, 1, 12, 12), half, 1)[0, 0, 0].max() == 0


def naive_soft(map_, radius):
    row, column = np.unravel_index(map_.argmax(), map_.shape)
    x = y = mass = 0.0
    for r in range(len(map_)):
        for c in range(len(map_)):
            if abs(r - row) <= radius and abs(c - column) <= radius:
                x, y, mass = x + map_[r, c] * (c + 0.5), y + map_[r, c] * (r + 0.5), mass + map_[r, c]
    return x / mass / len(map_), y / mass / len(map_)


def test_read_out():
    maps = torch.rand(2, 3, 11, 11, generator=torch.Generator().manual_seed(0)) ** 4
    for radius in (1.0, 2.5, 40.0):
        xy, height = read_out(maps, "soft", radius)
        expected = [[naive_soft(m.double().numpy(), radius) for m in image] for image in maps]
        np.testing.assert_allclose(xy, expected, atol=1e-5)
        assert torch.equal(height, maps.amax((2, 3)))
    xy, height = read_out(maps, "argmax", 2.0)
    for image in range(2):
        for k in range(3):
            row, column = divmod(maps[image, k].argmax().item(), 11)
            assert xy[image, k].tolist() == pytest.approx([(column + 0.5) / 11, (row + 0.5) / 11])
    assert torch.equal(height, maps.amax((2, 3)))


def test_soft_read_out_is_finer_than_a_pixel():
    along = torch.arange(32) + 0.5
    for x, y in ((10.2, 20.9), (13.5, 14.0), (16.74, 9.1)):
        map_ = torch.exp(-((along - x)[None] ** 2 + (along - y)[:, None] ** 2) / 8)
        soft, hard = read_out(map_, "soft", 4.0)[0] * 32, read_out(map_, "argmax", 4.0)[0] * 32
        off_soft, off_hard = ((p - torch.tensor([x, y])).norm() for p in (soft, hard))
        assert off_soft < 0.1 and off_soft < off_hard / 2
    assert read_out(torch.zeros(1, 4, 4), "soft", 2.0)[0].isfinite().all()


def test_place_is_the_mean_of_the_squared_map_around_its_peak():
    maps = torch.rand(2, 3, 11, 11, generator=torch.Generator().manual_seed(0)) ** 4
    xy, width = spatial_mean(maps)
    for map_, at, wide in zip(maps.flatten(0, 1).double(), xy.flatten(0, 1), width.flatten(), strict=True):
        assert naive_soft(map_**2, REACH * 11) == pytest.approx(at.tolist(), abs=1e-5)
        mean, pixels = naive_soft(map_, 99), [((c + 0.5) / 11, (r + 0.5) / 11) for r in range(11) for c in range(11)]
        away = torch.tensor([(x - mean[0]) ** 2 + (y - mean[1]) ** 2 for x, y in pixels], dtype=torch.float64)
        assert (away * map_.flatten()).sum().div(map_.sum()).sqrt().item() == pytest.approx(wide.item(), abs=1e-4)
    again = spatial_mean(maps * 1e-9)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(again, (xy, width), strict=True))
    assert spatial_mean(torch.zeros(1, 4, 4))[0].isfinite().all()


def naive_view_maps(backbone, tokens, square, theta, config, training):
    """Maps [V, K, R, R] of one image, one view at a time."""
    out = []
    for v, t in enumerate(theta):
        latent = backbone.encode(warp(square[None], t[None]))
        g = generator_for(config.seed, "detection noise", v, 0)
        noisy = backbone.add_noise(latent, torch.randn(latent.shape[1:], generator=g), training.timestep)
        logits = backbone.token_logits(noisy, training.timestep, tokens.embeddings, training.gradient)
        maker = coarse_maps if training.upsample == "maps" else token_maps
        out.append(maker(logits, training.map_size)[0, list(tokens.chosen)])
    return torch.stack(out)


@pytest.mark.parametrize(
    ("training", "detection"),
    [
        ({}, {"views": 3}),
        ({"timestep": 50}, {"views": 2, "identity": False, "seed": 4}),
        ({"upsample": "maps", "gradient": "cached"}, {"views": 1, "map_size": 24}),
        ({}, {"views": 0}),
    ],
)
def test_maps_are_the_mean_over_views(backbone, training, detection):
    tokens, config = make_tokens(**training), DetectConfig(batch_size=3, **detection)
    detector = Detector(backbone, tokens, config)
    squares = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps, peaks, front = detector.maps(squares)
    assert front is None  # learned tokens do not tell
    theta = random_affine(config.views, 15, (0.8, 1.0), 0.25, generator_for(config.seed, "detection views"))
    if config.identity:
        theta = torch.cat([identity_affine(1), theta])
    size = config.map_size or SIZE
    assert maps.shape == (2, 3, size, size) and peaks.shape == (2, len(theta), 3, 2)
    for i in range(2):
        single = naive_view_maps(backbone, tokens, squares[i], theta, config, TrainConfig.from_dict(tokens.config))
        if size != SIZE:
            single = F.interpolate(single, size=(size, size), mode="bilinear", align_corners=False)
        for k in range(3):
            expected = naive_average(single[:, k].double().numpy(), theta.double().numpy())
            np.testing.assert_allclose(maps[i, k], expected, atol=3e-4)
        for v in range(len(theta)):
            for k in range(3):
                row, column = divmod(single[v, k].argmax().item(), size)
                at = (
                    theta[v].double()
                    @ torch.tensor([(2 * column + 1) / size - 1, (2 * row + 1) / size - 1, 1]).double()
                )
                assert peaks[i, v, k].tolist() == pytest.approx(((at + 1) / 2).tolist(), abs=1e-5)


def test_confidence_and_spread(backbone):
    config = DetectConfig(readout="argmax", views=3)
    detector = Detector(backbone, make_tokens(scores=(0.5, 0.8, 0.2)), config)
    detector.theta = identity_affine(4)
    detector.theta[3, 0, 2] = 1.0  # the right half of the image: the third point is not to be seen
    maps = torch.zeros(1, 3, SIZE, SIZE)
    maps[0, 0, 3, 5], maps[0, 1, 8, 8], maps[0, 2, 15, 0] = 0.25, 0.2, 0.9
    peaks = 0.1 + 0.8 * torch.rand(1, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    xy, confidence, spread = detector.unit_points(maps, peaks)
    expected = np.array([[5.5, 3.5], [8.5, 8.5], [0.5, 15.5]]) / SIZE
    np.testing.assert_allclose(xy[0], expected)
    for k, views in enumerate((3, 4, 3)):
        away = [math.dist(peaks[0, v, k].tolist(), expected[k]) for v in range(views)]
        assert spread[0, k] == pytest.approx(sum(away) / views, rel=1e-5)
    agreed = np.exp(-((spread[0] / 0.1) ** 2) / 2)
    np.testing.assert_allclose(confidence[0], agreed * [0.5, 0.25, 1.0], rtol=1e-5)
    without = Detector(backbone, make_tokens(scores=()), config)
    without.theta = detector.theta
    np.testing.assert_allclose(without.unit_points(maps, peaks)[1][0], agreed * [0.25, 0.2, 0.9], rtol=1e-5)
    same = torch.from_numpy(xy)[:, None].expand(1, 4, 3, 2)
    np.testing.assert_allclose(detector.unit_points(maps, same)[1][0], [0.5, 0.25, 1.0], rtol=1e-5)


def test_the_window_grows_with_the_map(backbone):
    along = torch.arange(64) + 0.5
    map_ = torch.exp(-((along - 30.0)[None] ** 2 + (along - 30.0)[:, None] ** 2) / 50)
    map_[10:20, 36:44] = 0.4  # outside the window of 2 sigma * 64 / 16 = 8 pixels around the peak
    detector = Detector(backbone, make_tokens(sigma=1.0), DetectConfig(map_size=64, window=2.0, views=0))
    xy = detector.unit_points(map_.expand(1, 3, 64, 64), torch.zeros(1, 1, 3, 2))[0]
    np.testing.assert_allclose(
        xy[0] * 64, naive_soft(map_.numpy(), 8) * np.array([64.0] * 2) * np.ones((3, 2)), atol=1e-3
    )


@pytest.mark.parametrize(("resize", "spots"), [("squash", [(0.25, 0.5), (1, 1)]), ("pad", [(0.25, 0.5), (1, 0.75)])])
def test_points_are_pixels_of_the_original_image(backbone, monkeypatch, resize, spots):
    """A 40 x 20 image: the middle of its left half, and its lower right corner."""
    detector = Detector(backbone, make_tokens(resize=resize))
    unit = np.array([spots[0], spots[1], spots[0]])[None]
    monkeypatch.setattr(detector, "unit_points", lambda *a: (unit, np.ones((1, 3)), np.zeros((1, 3))))
    (found,) = detector.stream([("wide", np.zeros((20, 40, 3), dtype=np.uint8))])
    np.testing.assert_allclose(found.keypoints.xy[0], [[10, 10], [40, 20], [10, 10]], atol=1e-4)
    assert found.keypoints.sizes.tolist() == [[40, 20]]


def test_images_do_not_depend_on_their_company(backbone):
    tokens, images = make_tokens(), make_images(4)
    whole = detect(backbone, tokens, images, DetectConfig(views=2, batch_size=64))
    for changes in ({"batch_size": 1}, {"batch_size": 4}, {"batch_size": 7}):
        again = detect(backbone, tokens, images, DetectConfig(views=2, **changes))
        np.testing.assert_allclose(again.keypoints.xy, whole.keypoints.xy, atol=1e-3)
        np.testing.assert_allclose(again.keypoints.confidence, whole.keypoints.confidence, atol=1e-4)
    backwards = detect(backbone, tokens, images[::-1], DetectConfig(views=2))
    np.testing.assert_allclose(backwards.keypoints.xy[::-1], whole.keypoints.xy, atol=1e-3)
    other = detect(backbone, tokens, images, DetectConfig(views=2, seed=1))
    assert np.abs(other.keypoints.xy - whole.keypoints.xy).max() > 1e-2
    assert np.array_equal(
        whole.keypoints.xy, detect(backbone, tokens, images, DetectConfig(views=2, batch_size=64)).keypoints.xy
    )


def test_what_a_detection_holds(backbone):
    images, done = make_images(3), []
    images[1] = ("tall", np.zeros((50, 16, 3), dtype=np.uint8))
    look = DetectConfig(views=1)
    found = detect(backbone, make_tokens(), images, look, keep_maps=True, on_progress=lambda *a: done.append(a))
    points = found.keypoints
    assert points.xy.shape == (3, 3, 2) and points.confidence.shape == found.spread.shape == (3, 3)
    assert (points.confidence >= 0).all() and (points.confidence <= 1).all() and (found.spread > 0).any()
    assert points.images == ("p0", "tall", "p2") and points.sizes.tolist() == [[30, 20], [16, 50], [30, 20]]
    assert points.names == ("a", "b", "c") and points.skeleton == ((0, 2),)
    assert (points.xy >= 0).all() and (points.xy <= points.sizes[:, None]).all()
    assert found.maps.shape == (3, 3, SIZE, SIZE) and done == [("detecting", i, 3) for i in range(4)]
    assert detect(backbone, make_tokens(), iter(images), look, on_progress=lambda *a: done.append(a)).maps is None
    assert done[-1] == ("detecting", 3, 0)  # an iterator does not say how many there are


def test_stopping(backbone):
    def stop(phase, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect(backbone, make_tokens(), make_images(5), DetectConfig(views=0), on_progress=stop)


def test_images_are_read_as_they_are_needed(backbone):
    read = []

    def source():
        for item in make_images(6):
            read.append(item[0])
            yield item

    stream = Detector(backbone, make_tokens(), DetectConfig(views=1, batch_size=4)).stream(source())
    next(stream)
    assert read == ["p0", "p1"]  # two images of two views fill a batch of four


def test_tokens_that_do_not_fit(backbone):
    wide = KeypointTokens(torch.zeros(12, WIDTH + 1), CHOSEN)
    with pytest.raises(KeypointError, match=f"{WIDTH + 1} wide but the model takes {WIDTH}"):
        detect(backbone, wide, make_images(1))
    backbone.hash = "another"
    with pytest.warns(UserWarning, match="trained with other weights"):
        detect(backbone, make_tokens(), make_images(1), DetectConfig(views=0))


def test_tokens_without_a_configuration_are_used_with_the_defaults(backbone):
    bare = KeypointTokens(make_tokens().embeddings, CHOSEN)
    detector = Detector(backbone, bare, DetectConfig(views=0))
    assert (detector.size, detector.reading.sigma) == (128, 2.0)
    assert detector.maps(torch.rand(1, 3, 16, 16))[0].shape == (1, 3, 128, 128)


def test_nothing_to_detect(backbone):
    with pytest.raises(KeypointError):
        detect(backbone, make_tokens(), [])
    broken = ImageSet([], [], minimum=0)
    with pytest.raises(KeypointError):
        detect(backbone, make_tokens(), broken)


def test_maps_on_the_image_leave_out_the_bars():
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(maps_on_image(maps, input_transform(30, 20, 16, "squash")), maps, atol=1e-5)
    wide, tall = (maps_on_image(maps, input_transform(*size, 16, "pad")) for size in ((40, 20), (10, 40)))
    np.testing.assert_allclose(wide[0, 4, 7], 0.25 * maps[0, 5, 7] + 0.75 * maps[0, 6, 7], atol=1e-5)
    assert torch.allclose(wide.mean((1, 2)), maps[:, 4:12].mean((1, 2)), atol=0.03)
    assert torch.allclose(tall.mean((1, 2)), maps[:, :, 6:10].mean((1, 2)), atol=0.06)
    flag = torch.zeros(1, 16, 16)
    flag[0, 6:, 4:8] = 1  # all of the lower part, a square of its own
    assert maps_on_image(flag, input_transform(10, 40, 16, "pad"))[0, 8:, :6].min() == 1


def test_maps_are_laid_over_every_pixel_of_a_padded_image():
    maps = torch.zeros(1, 64, 64)
    maps[0, 32:] = 1.0  # the lower half of the model input
    over = maps_on_image(maps, input_transform(80, 20, 64, "pad"), (80, 20))
    assert over.shape == (1, 20, 80)
    assert over[0, :9].max() == 0 and over[0, 11:].min() == 1


def test_a_point_that_its_peers_contradict_is_less_sure(backbone):
    maps = torch.zeros(2, 3, SIZE, SIZE)
    for k, (row, column) in enumerate([(4, 4), (8, 8), (12, 12)]):
        maps[:, k, row, column] = 1.0
    maps[1, 2] = maps[1, 2].roll(-8, 1)
    usual = torch.tensor([[4.5, 4.5], [8.5, 8.5], [12.5, 12.5]]) / SIZE
    shared = torch.linspace(-0.2, 0.2, 41)[:, None, None].expand(-1, 3, 2)  # all three always move together
    spatial_prior = SpatialPrior.of(usual + shared)
    tokens = replace(make_tokens(scores=(1.0, 1.0, 2.0)), spatial_prior=spatial_prior)
    detector = Detector(backbone, tokens, DetectConfig(readout="argmax", views=0))
    xy, confidence, _ = detector.unit_points(maps, (peaks(maps).flip(-1)[:, None] + 0.5) / SIZE)
    np.testing.assert_allclose(confidence[0], (1, 1, 0.5), atol=1e-2)
    fits = spatial_prior.consistency(torch.from_numpy(xy))[1].numpy()
    assert fits[2] < 0.05
    np.testing.assert_allclose(confidence[1], (1, 1, 0.5) * fits, atol=1e-5)


def test_detection_goes_on_with_fewer_views_when_memory_runs_out(backbone, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_BYTES", 4 << 20)
    items, config = make_images(2), DetectConfig(views=3, batch_size=4)
    whole = detect(backbone, make_tokens(), items, config).keypoints
    encode, sizes = backbone.encode, []

    def hungry(images, *rest):
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode(images, *rest)

    monkeypatch.setattr(backbone, "encode", hungry)
    with pytest.warns(UserWarning, match="1 views at a time"):
        small = detect(backbone, make_tokens(), items, config).keypoints
    assert sizes == [4, 2, *[1] * 8]
    np.testing.assert_allclose(small.xy, whole.xy, atol=1e-3)

    def fail(*_args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(backbone, "encode", fail)
    with pytest.warns(UserWarning), pytest.raises(KeypointError, match="not enough memory for one view"):
        detect(backbone, make_tokens(), items, config)
    monkeypatch.setattr(backbone, "encode", lambda *a: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):  # other errors are not taken for that
        detect(backbone, make_tokens(), items, config)


def refined_tokens(count=3, **fields):
    extra = torch.randn(count, LAYERS, WIDTH, generator=torch.Generator().manual_seed(5))
    return replace(make_tokens(), refined=extra, **fields)


def naive_place_maps(backbone, tokens, refined, square, theta):
    """Place maps [V, K, R, R] of one image, view by view: the prompt is the mean of the learned tokens."""
    out = []
    for v, t in enumerate(theta):
        latent = backbone.encode(warp(square[None], t[None]))
        noise = torch.randn(latent.shape[1:], generator=generator_for(0, "detection noise", v, 0))
        noisy = backbone.add_noise(latent, noise, 0)
        queries = backbone.queries(noisy, 0, tokens.embeddings.mean(0)[None])
        out.append(spatial_softmax_maps(backbone.logits(queries, refined), SIZE)[0])
    return torch.stack(out)


def test_refined_tokens_are_read_under_the_mean_of_the_learned_ones(backbone):
    tokens = refined_tokens()
    detector = Detector(backbone, tokens, DetectConfig(views=2))
    squares = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps, *_ = detector.maps(squares)
    for i in range(2):
        views = naive_place_maps(backbone, tokens, tokens.refined, squares[i], detector.theta)
        for k in range(3):
            expected = naive_average(views[:, k].double().numpy(), detector.theta.double().numpy())
            np.testing.assert_allclose(maps[i, k], expected, atol=3e-5)
    plain, without = (
        Detector(backbone, t, DetectConfig(views=2, read=r))
        for t, r in ((tokens, "learned"), (make_tokens(), "refined"))
    )
    assert torch.equal(plain.maps(squares)[0], without.maps(squares)[0])
    assert not torch.allclose(maps, plain.maps(squares)[0], atol=0.01)


def test_what_lies_in_front_hides_keypoints(backbone):
    """The network is read in every view, averaged as maps are, and looked up where the other keypoints say."""
    g = torch.Generator().manual_seed(6)
    state = occlusion_network(LAYERS * WIDTH).state_dict()
    state = {key: torch.randn(value.shape, generator=g) * 0.3 for key, value in state.items()}
    net = load_occlusion_network(state)
    spatial_prior = SpatialPrior.of(torch.rand(20, 3, 2, generator=g))
    tokens = replace(refined_tokens(), occlusion=state, spatial_prior=spatial_prior)
    detector = Detector(backbone, tokens, DetectConfig(views=2))
    squares = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps, _, front = detector.maps(squares)
    assert front.shape == (2, SIZE, SIZE) and 0 <= front.min() and front.max() <= 1 and front.std() > 0.01
    plain = Detector(backbone, replace(tokens, occlusion=None), DetectConfig(views=2))
    torch.testing.assert_close(maps, plain.maps(squares)[0])
    for i in range(2):
        views = []
        for v, t in enumerate(detector.theta):
            latent = backbone.encode(warp(squares[i : i + 1], t[None]))
            noise = torch.randn(latent.shape[1:], generator=generator_for(0, "detection noise", v, 0))
            queries = backbone.queries(backbone.add_noise(latent, noise, 0), 0, tokens.embeddings.mean(0)[None])
            seen = occlusion_probability(net, stacked_features(backbone.features(queries)))
            views.append(F.interpolate(seen, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0])
        expected = naive_average(torch.stack(views).double().numpy(), detector.theta.double().numpy())
        np.testing.assert_allclose(front[i], expected, atol=3e-5)
    occluded = detector.occlusion(maps, front)
    np.testing.assert_allclose(occluded, share_at(front, *spatial_prior.expected(*moments(maps))), atol=1e-6)
    items = [(str(i), (255 * s.permute(1, 2, 0)).round().byte().numpy()) for i, s in enumerate(squares)]
    found = detect(backbone, tokens, items, DetectConfig(views=2)).keypoints
    np.testing.assert_allclose(found.occluded, occluded, atol=0.02)
    assert not detect(backbone, refined_tokens(), items, DetectConfig(views=1)).keypoints.occluded.any()


def test_a_refined_token_is_surer_the_narrower_its_map(backbone):
    along = (torch.arange(SIZE) + 0.5) / SIZE
    spot = lambda x, s: torch.exp(-((along[None] - x) ** 2 + (along[:, None] - 0.5) ** 2) / (2 * s**2))  # noqa: E731
    maps = torch.stack([spot(0.5, 0.05), spot(0.5, 0.1), spot(0.38, 0.03) + spot(0.62, 0.03)])[None] * 0.01
    detector = Detector(backbone, refined_tokens(), DetectConfig(views=0))
    xy, confidence, _ = detector.unit_points(maps, torch.full((1, 1, 3, 2), 0.5))
    np.testing.assert_allclose(xy[0], [[0.5, 0.5]] * 3, atol=1e-3)
    widths = [0.05 * 2**0.5, 0.1 * 2**0.5, (0.12**2 + 2 * 0.03**2) ** 0.5]
    np.testing.assert_allclose(confidence[0], [np.exp(-((w / 0.2) ** 2) / 2) for w in widths], atol=0.01)
    hard = Detector(backbone, refined_tokens(), DetectConfig(views=0, readout="argmax"))
    assert abs(hard.unit_points(maps, torch.zeros(1, 1, 3, 2))[0][0, 2, 0] - 0.5) > 0.08


def test_maps_of_refined_tokens_are_kept_in_units_of_their_peak(backbone):
    found = detect(backbone, refined_tokens(), make_images(2), DetectConfig(views=1), keep_maps=True)
    np.testing.assert_allclose(found.maps.amax((2, 3)), np.ones((2, 3)), rtol=1e-5)
    assert found.maps.min() >= 0
