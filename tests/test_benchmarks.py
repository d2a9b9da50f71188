"""The benchmarks' naive implementation and the package compute the same numbers."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector
from stablekp_core.images import affine
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.randomness import generator_for
from stablekp_core.training.step import training_step

FOLDER = Path(__file__).parent.parent / "benchmarks"
CONFIG = TrainConfig.preset(
    "reference", keypoints=3, tokens=12, candidates=6, map_size=16, sigma=1.0, batch_size=2, image_size=16
)


@pytest.fixture(scope="module")
def bench():
    """The benchmark modules by name."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


def test_map_stage(bench):
    naive, models, memory = bench("naive"), bench("models"), bench("memory")
    inputs = models.map_inputs(20, 4, layers=((32, 4), (32, 4), (16, 6)), heads=4)
    heads, size = 4, 24
    slow = naive.maps_from_queries(inputs.queries, inputs.keys, heads, size)[inputs.chosen]
    from_features = naive.maps_from_features(inputs.features, inputs.to_q, inputs.keys, heads, size)[inputs.chosen]
    np.testing.assert_allclose(from_features.detach(), slow.detach(), atol=1e-5)
    slow.square().sum().backward()
    expected = [x.grad.clone() for x in (*inputs.queries, *inputs.keys)]
    inputs.reset()
    fast = memory.product_maps(inputs.queries, inputs, size)
    fast.square().sum().backward()
    assert slow.max() > 0.1
    np.testing.assert_allclose(fast.detach(), slow.detach(), atol=1e-5)
    for x, wanted in zip((*inputs.queries, *inputs.keys), expected, strict=True):
        assert wanted.abs().max() > 1e-2
        np.testing.assert_allclose(x.grad, wanted, atol=1e-5, rtol=1e-4)


def test_training_step(bench, backbone):
    naive, g = bench("naive"), torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=g)
    theta, noise = affine.random_affine(2, 15, (0.8, 1), 0.25, g), torch.randn(4, 4, 8, 8, generator=g)
    tokens = torch.randn(12, backbone.width, generator=g).requires_grad_()
    loss = naive.training_step(backbone, CONFIG, tokens, images, theta, noise)
    expected, tokens.grad = tokens.grad, None
    out = training_step(
        backbone,
        CONFIG,
        tokens,
        backbone.encode(images),
        backbone.encode(affine.warp(images, theta)),
        theta,
        noise,
    )
    out.total.mean().backward()
    assert expected.abs().max() > 1e-4
    assert float(out.total.mean().detach()) == pytest.approx(loss, rel=1e-5)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(tokens.grad / scale, expected / scale, atol=1e-4)


def test_detection(bench, backbone):
    naive, g = bench("naive"), torch.Generator().manual_seed(1)
    embeddings = torch.randn(12, backbone.width, generator=g)
    tokens = KeypointTokens(embeddings, (7, 2, 9), (1, 1, 1), CONFIG.to_dict(), backbone.name, backbone.hash)
    detector = Detector(backbone, tokens, DetectConfig(views=3, batch_size=2))
    image = torch.rand(1, 3, 16, 16, generator=g)
    found, *_ = detector.maps(image)
    noise = torch.stack([torch.randn(4, 8, 8, generator=generator_for(0, "detection noise", v, 0)) for v in range(4)])
    expected = naive.detect(backbone, embeddings, [7, 2, 9], image, detector.theta, noise, 0, CONFIG.map_size)
    assert expected.max() > 0.05
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_counted_memory(bench):
    memory = bench("memory")

    def work():
        a = torch.zeros(1000)  # 4 kB
        b = a + 1  # 8 kB alive
        del a
        b.view(10, 100).add_(1)  # nothing new
        (b * 2).sum()  # 8 kB and the sum

    assert 8000 <= memory.peak_bytes(work) <= 8100
    with memory.LiveBytes() as counter:
        work()
    assert counter.now == 0
    x = torch.zeros(1000, requires_grad=True)
    with memory.LiveBytes() as counter:
        total = x.exp().sum()  # only the graph still holds the exp
        assert counter.now >= 4000
        total.backward()
        assert counter.now < 4100  # now it is x.grad


def test_product_takes_less_memory(bench):
    numbers = bench("memory").map_memory(40, 96)
    assert numbers["ratio"] > 4


def test_a_whole_run_is_timed_stage_by_stage(bench, backbone):
    config = TrainConfig(keypoints=3, tokens=12, candidates=6, map_size=16, sigma=1.0, batch_size=2, image_size=16)
    found = bench("whole").measure(backbone, config, images=4, steps=2, detected=2)
    assert found["pictures"] == 4 and found["made_smaller"] == [] and found["held_gib"] is None
    assert all(found[stage] > 0 for stage in ("first_step_s", "step_s", "look_s", "fit_s", "detect_s"))


def checked_run(step, errors, predictability, steadiness=0.03):
    """A run of benchmarks/selfcheck.py whose read-outs have these true errors and predictabilities."""
    from stablekp_core.keypoints.self_check import ReadoutCheck, SelfCheck

    parts = [ReadoutCheck(steadiness, 0.2, p, 0.2, 1.0, 0.1) for p in predictability]
    check = SelfCheck(4, "left out", "refined", *parts, keypoints=8).to_dict()
    errors = dict(zip(("learned", "refined"), errors, strict=True))
    return dict(
        kind="dolls", set="few", damage="none", seed=0, step=step, errors=errors, check=check, seconds=[step, 2]
    )


def test_picks_of_the_self_check_are_counted(bench, tmp_path):
    selfcheck = bench("selfcheck")
    runs = [
        checked_run(0, (10.0, 5.0), (0.15, 0.1)),  # refined is better, and taken
        checked_run(20, (4.0, 5.0), (0.15, 0.1)),  # learned is better by more than 5 %
        checked_run(40, (4.9, 5.0), (0.15, 0.1)),
        checked_run(80, (2.0, 4.0), (0.05, 0.1)),
    ]
    found = selfcheck.judged("in use", runs)
    assert found["picked_right"] == 0.75 and found["mean_loss"] == pytest.approx((1.0 + 0.1) / 4)
    assert selfcheck.judged("always learned", runs)["picked_right"] == 0.75
    assert selfcheck.rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    for run in runs:
        (tmp_path / f"{run['step']}.json").write_text(json.dumps(run))
    table = selfcheck.report(tmp_path, tmp_path / "out.txt", [0])
    assert "| dolls, few, none | 5.2 | 4.8 | 4.2 | 3 of 4 | 4 good |" in table
    assert json.loads((tmp_path / "out.txt").read_text())["by_set"]["dolls, few, none"]["picked_right"] == 0.75


def test_ending_early_is_a_share_of_all_steps(bench, tmp_path):
    accuracy = bench("accuracy")
    rest = dict.fromkeys(accuracy.NUMBERS, 1.0) | {"class": "faces", "set": "few"}
    for seed, (early, late) in enumerate([((3.0, 80, 40.0), (2.0, 500, 100.0)), ((5.0, 160, 60.0), (6.0, 500, 100.0))]):
        for row, (error, steps, seconds) in zip(accuracy.STOP_ROWS, (late, early), strict=True):
            run = rest | {"row": row, "seed": seed, "error": error, "steps": steps, "seconds": seconds}
            (tmp_path / f"faces_few_{row}_{seed}.json").write_text(json.dumps(run))
    lonely = rest | {"row": accuracy.STOP_ROWS[0], "set": "wild"}
    (tmp_path / "faces_wild_lonely_0.json").write_text(json.dumps(lonely))
    table = accuracy.report_stopping(tmp_path, tmp_path)
    assert "| faces, few | 120 | 4.00 | 4.00 | 1.00 | 0.50 |" in table and "wild" not in table
    found = json.loads((tmp_path / "stopping.json").read_text())
    assert found == {"faces, few": {"error_ratio": 1.0, "time_ratio": 0.5, "steps": 120.0, "seeds": 2}}


@pytest.mark.parametrize(("ratio", "axis"), [(2.0, 0), (0.5, 1), (1 / 1.5, 1)])
def test_a_doll_keeps_its_pixels_on_a_long_canvas(bench, ratio, axis):
    canvases = bench("canvases")
    from stablekp_core.synthetic import generator

    doll = generator.render("dolls", 3, 128, "standard")
    image, joints, _ = canvases.canvas(3, ratio)
    moved, long = joints - doll.joints, round(128 * max(ratio, 1 / ratio))
    at, shape, offset = int(moved[0, axis]), [128, 128, 3], [0, 0]
    shape[1 - axis], offset[axis] = long, at
    assert list(image.shape) == shape and 0 < at <= long - 128 and np.allclose(moved, offset)
    figure, (left, top) = doll.labels > 0, offset
    away = np.abs(image[top : top + 128, left : left + 128].astype(int) - doll.image)
    assert away[figure].mean() < 8 < away[~figure].mean()
