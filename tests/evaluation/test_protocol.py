"""The protocol: metrics worked out by hand on data sets with known errors, caching, skipping, the command."""

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import dataset_fixtures as make
import numpy as np
import pytest
import torch

from stablekp_core.cli import main
from stablekp_core.cli.evaluate import table
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.errors import KeypointError
from stablekp_core.evaluation import protocol, stages
from stablekp_core.evaluation.cache import Points
from stablekp_core.evaluation.datasets import open_dataset
from stablekp_core.evaluation.datasets.human36m import SWAP
from stablekp_core.evaluation.metrics import Roles
from stablekp_core.evaluation.protocol import ABLATIONS, Limits, ablate, evaluate, limit_splits, transfer
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens

TRAIN, LOOK = TrainConfig(keypoints=2), DetectConfig(views=0)


class Fakes:
    """A trainer that learns nothing and a detector that finds the two squares of the fixtures' images."""

    def __init__(self):
        self.trained, self.detected, self.stop_at = [], [], None

    def train(self, backbone, images, config, **options):
        self.trained.append((len(images), config))
        tokens = KeypointTokens(torch.full((4, 3), float(len(self.trained))), (0, 1), config=config.to_dict())
        list(images)
        if options.get("on_progress"):
            options["on_progress"]("training", config.steps, config.steps)
        return SimpleNamespace(tokens=tokens, losses=[], skipped=images.skipped)

    def detect(self, backbone, tokens, pairs, config):
        pairs = list(pairs)
        if self.stop_at is not None and len(self.detected) + len(pairs) > self.stop_at:
            raise KeyboardInterrupt
        self.detected += [name for name, _ in pairs]
        keypoints = Keypoints(
            np.stack([make.find_blobs(image) for _, image in pairs]),
            np.ones((len(pairs), 2)),
            [(image.shape[1], image.shape[0]) for _, image in pairs],
            images=[name for name, _ in pairs],
        )
        return SimpleNamespace(keypoints=keypoints)


@pytest.fixture
def fakes(monkeypatch):
    made = Fakes()
    monkeypatch.setattr(stages, "train", made.train)
    monkeypatch.setattr(stages, "detect", made.detect)
    return made


BACKBONE = SimpleNamespace(hash="none", dtype=torch.float32, name="fake", device="cpu")


def run(name, root, **options):
    return evaluate(BACKBONE, open_dataset(name, root), TRAIN, LOOK, **options)


# By hand: in test image s = 1, 2, 3 every landmark is predicted (3 s, 4 s) pixels off, 5 s in all.


def test_celeba(tmp_path, fakes):
    make.write_celeba(tmp_path)
    data = open_dataset("celeba_aligned", tmp_path)
    result = run("celeba_aligned", tmp_path)
    expected = []
    for s in (1, 2, 3):
        left, right = data.test.landmarks(s - 1)[:2] / [178, 218]
        expected.append(100 * np.hypot(3 * s / 178, 4 * s / 218) / np.hypot(*(left - right)))
    assert result.metrics["inter_ocular"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert result.counts["train"]["used"] == 8 and result.counts["test"]["used"] == 3
    assert fakes.trained[0][0] == 8 and len(fakes.detected) == 11


def test_celeba_wild_reports_what_the_filter_dropped(tmp_path, fakes):
    make.write_celeba(tmp_path, small=(2, 9))
    result = run("celeba_wild", tmp_path)
    assert result.counts["regression"]["used"] == 7 and list(result.counts["test"]["dropped"].values()) == [1]


def test_cub_aligned(tmp_path, fakes):
    pytest.importorskip("h5py")
    make.write_cub_aligned(tmp_path, hidden={1: 10})  # 15, 5 and 15 parts are visible
    result = run("cub_aligned", tmp_path)
    assert result.metrics["visible_mean_image"] == pytest.approx(100 * (5 + 10 + 15) / 3 / 128, rel=1e-4)
    micro = (15 * 5 + 5 * 10 + 15 * 15) / 35
    assert result.metrics["visible_mean_micro"] == pytest.approx(100 * micro / 128, rel=1e-4)


def test_cub_parts(tmp_path, fakes):
    pytest.importorskip("scipy")
    make.write_cub_parts(tmp_path, train={1: 8, 2: 1}, test={1: 3, 2: 1})
    result = run("cub_001", tmp_path)  # test crops are 110 pixels wide
    assert result.metrics["visible_mean_image"] == pytest.approx(100 * 10 / 110, rel=0.02)
    assert result.counts["test"]["used"] == 3


def test_taichi(tmp_path, fakes):
    pytest.importorskip("pandas")
    make.write_taichi(tmp_path, hidden={1: 10})  # 18, 8 and 18 joints are visible
    result = run("taichi", tmp_path)
    assert fakes.trained[0][0] == 5
    assert result.metrics["taichi_reference"] == pytest.approx((18 * 5 + 8 * 10 + 18 * 15) / 3, rel=1e-5)
    # 8 joints in three frames, |error| (3 + 4) (1 + 2 + 3) / 3; 10 joints in two frames, (3 + 4) (1 + 3) / 2.
    assert result.metrics["taichi_standard"] == pytest.approx(8 * 7 * 2 + 10 * 7 * 2, rel=1e-5)
    assert result.metrics["l2_128"] == pytest.approx((18 * 5 + 8 * 10 + 18 * 15) / 44 / 2, rel=1e-5)


def test_deepfashion(tmp_path, fakes):
    make.write_deepfashion(tmp_path)
    result = run("deepfashion", tmp_path)
    assert result.metrics["pck_6"] == 50  # 5 pixels off in the first image, 10 in the second
    assert result.metrics["l2_128"] == pytest.approx(3.75, rel=0.01)


def test_human36m_counts_exchanged_sides_once(tmp_path, fakes):
    pytest.importorskip("scipy")
    make.write_human36m(tmp_path, SWAP)
    result = run("human36m", tmp_path)
    assert result.metrics["swap_invariant_128"] == pytest.approx(7.5, rel=0.02)
    joints = open_dataset("human36m", tmp_path).test.landmarks(1)
    exchanged = np.linalg.norm(joints[list(SWAP)] + [6, 8] - joints, axis=1).mean()
    assert exchanged > 11.5 and result.metrics["l2_128"] == pytest.approx((5 + exchanged) / 2, rel=0.02)


def test_human36m_unaligned(tmp_path, fakes):
    pytest.importorskip("h5py")
    make.write_human36m_unaligned(tmp_path)
    result = run("human36m_unaligned", tmp_path)
    boxes = [s.extras["bbox"] for s in map(open_dataset("human36m_unaligned", tmp_path).test.sample, (0, 1))]
    errors = [128 * np.hypot(3 * s / (box[2] - box[0]), 4 * s / (box[3] - box[1])) for s, box in enumerate(boxes, 1)]
    assert result.metrics["l2_128"] == pytest.approx(np.mean(errors), rel=0.03)
    assert result.counts["train"]["skipped"] == [
        ("S1/Discussion 1/60457274/img_000002.jpg", "annot.h5 has no pose for it")
    ]


def test_folder_and_the_columns_beside_the_protocol(tmp_path, fakes):
    make.write_folder(tmp_path)
    result = run("folder", tmp_path)
    shift = np.hypot(3 / 120, 4 / 100)
    assert result.metrics["mean_l2_percent"] == pytest.approx(100 * 1.5 * shift, rel=1e-5)
    assert result.with_intercept["mean_l2_percent"] == pytest.approx(100 * 1.5 * shift, rel=1e-5)
    data = open_dataset("folder", tmp_path)
    fit = np.stack([data.regression.landmarks(i) for i in range(6)]).mean(0)
    truth = np.stack([data.test.landmarks(i) for i in range(2)])
    guess = 100 * np.linalg.norm((fit - truth) / [120, 100], axis=-1).mean()
    assert result.baseline["mean_l2_percent"] == pytest.approx(guess, rel=1e-5)
    assert result.metrics["pck_5_percent"] == 50 and result.metrics["pck_10_percent"] == 50 + 50 * (2 * shift < 0.1)


# Landmarks nobody sees, skipping, errors


def points(xy, visible):
    xy = np.asarray(xy, float)
    return Points(xy, np.ones(xy.shape[:2]), xy.copy(), np.asarray(visible), list(map(str, range(len(xy)))), [])


def test_landmarks_that_were_never_fitted_are_left_out_and_named():
    rng = np.random.default_rng(0)
    fit, test = rng.random((9, 3, 2)), rng.random((4, 3, 2))
    own, _, _, left_out = protocol.measure(
        points(fit, [[True, False, True]] * 9), points(test, [[True] * 3] * 4), ("mean_l2_percent",)
    )
    assert left_out == (1,) and own["mean_l2_percent"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(KeypointError, match="every landmark"):
        protocol.measure(
            points(fit, [[True, False, True]] * 9),
            points(test, [[True] * 3] * 4),
            ("swap_invariant_128",),
            Roles(swap=(1, 0, 2)),
        )
    with pytest.raises(KeypointError, match="visible on a test image"):
        protocol.measure(
            points(fit, [[True, False, True]] * 9),
            points(test, [[False, True, False]] * 4),
            ("mean_l2_percent",),
        )


def test_damaged_images_are_skipped_and_counted(tmp_path, fakes):
    make.write_folder(tmp_path, {"train": 7, "test": 3})
    (tmp_path / "train" / "2.png").write_bytes(b"no image")
    (tmp_path / "test" / "0.png").write_bytes(b"no image")
    result = run("folder", tmp_path, cache=tmp_path / "cache")
    for _ in range(2):  # the second time from the cache
        assert [name for name, _ in result.counts["train"]["skipped"]] == ["2.png"]
        assert result.counts["train"]["used"] == 6
        assert [name for name, _ in result.counts["test"]["skipped"]] == ["0.png"]
        assert (result.counts["regression"]["used"], result.counts["test"]["used"]) == (6, 2)
        result = run("folder", tmp_path, cache=tmp_path / "cache")
    for i in (1, 2):
        (tmp_path / "test" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(KeypointError, match="None of the 3 images of the test split"):
        run("folder", tmp_path)


def test_a_missing_image_stops_the_run(tmp_path, fakes):
    make.write_folder(tmp_path)
    (tmp_path / "test" / "1.png").unlink()
    with pytest.raises(KeypointError, match="1.png is missing"):
        run("folder", tmp_path)


def test_unknown_metrics_are_refused_before_the_work(tmp_path, fakes):
    make.write_folder(tmp_path)
    with pytest.raises(KeypointError, match="no metric 'l3'"):
        run("folder", tmp_path, metrics=["l3"])
    assert not fakes.trained
    assert set(run("folder", tmp_path, metrics=["pck_6", "l2_128"]).metrics) == {"pck_6", "l2_128"}


def test_metrics_that_need_to_know_the_landmarks_are_refused_where_nobody_says(tmp_path, fakes):
    make.write_folder(tmp_path / "nameless")
    for name, what in (("inter_ocular", "the eyes"), ("swap_invariant_128", "left and right")):
        with pytest.raises(KeypointError, match=f"{name} needs to know .*{what}"):
            run("folder", tmp_path / "nameless", metrics=[name])
    assert not fakes.trained
    make.write_folder(tmp_path / "named", names=("Left_Eye", "nose", "right-eye"))
    result = run("folder", tmp_path / "named", metrics=["inter_ocular", "swap_invariant_128"])
    data = open_dataset("folder", tmp_path / "named").test
    shares = []
    for s in (1, 2):
        left, _, right = data.landmarks(s - 1) / [120, 100]
        shares.append(s * np.hypot(3 / 120, 4 / 100) / np.hypot(*(left - right)))
    assert result.metrics["inter_ocular"] == pytest.approx(100 * np.mean(shares), rel=1e-5)


# Caching


def test_finished_stages_are_not_done_again(tmp_path, fakes):
    make.write_folder(tmp_path)
    first = run("folder", tmp_path, cache=tmp_path / "cache")
    again = run("folder", tmp_path, cache=tmp_path / "cache")
    assert len(fakes.trained) == 1 and len(fakes.detected) == 8 and again.metrics == first.metrics
    assert again.counts == first.counts


def test_a_stopped_detection_goes_on_where_it_was(tmp_path, fakes, monkeypatch):
    monkeypatch.setattr(stages, "SHARD", 2)
    make.write_folder(tmp_path)
    whole = run("folder", tmp_path)
    fakes.detected.clear()
    fakes.trained.clear()
    fakes.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        run("folder", tmp_path, cache=tmp_path / "cache")
    assert fakes.detected == ["0.png", "1.png", "2.png", "3.png"]
    fakes.stop_at = None
    result = run("folder", tmp_path, cache=tmp_path / "cache")
    assert fakes.detected == [f"{i}.png" for i in (0, 1, 2, 3, 4, 5, 0, 1)] and len(fakes.trained) == 1
    assert result.metrics == whole.metrics


@pytest.mark.parametrize("change", ["model", "dtype", "training", "detection", "picture"])
def test_whatever_decides_a_result_is_in_its_name(tmp_path, fakes, change):
    make.write_folder(tmp_path)
    run("folder", tmp_path, cache=tmp_path / "cache")
    backbone, train, look = BACKBONE, TRAIN, LOOK
    if change == "model":
        backbone = SimpleNamespace(hash="another", dtype=torch.float32)
    elif change == "dtype":
        backbone = SimpleNamespace(hash="none", dtype=torch.bfloat16)
    elif change == "training":
        train = TRAIN.replace(seed=1)
    elif change == "detection":
        look = DetectConfig(views=3)
    else:
        make.save(tmp_path / "train" / "0.png", make.drawn(77, 120, 100)[0])
    data = open_dataset("folder", tmp_path)
    evaluate(backbone, data, train, look, cache=tmp_path / "cache")
    assert len(fakes.trained) == (1 if change == "detection" else 2)
    assert len(fakes.detected) == 16


def test_a_damaged_shard_is_made_again(tmp_path, fakes):
    make.write_folder(tmp_path)
    first = run("folder", tmp_path, cache=tmp_path / "cache")
    for shard in (tmp_path / "cache").glob("points-*/*.npz"):
        shard.write_bytes(shard.read_bytes()[:100])
    assert run("folder", tmp_path, cache=tmp_path / "cache").metrics == first.metrics
    assert len(fakes.detected) == 16


def test_shards_survive_as_files_without_pickles():
    made = Points(
        np.random.rand(2, 3, 2),
        np.ones((2, 3)),
        np.zeros((2, 4, 2)),
        np.eye(2, 4, dtype=bool),
        ["é", "b"],
        [("c", "why")],
    )
    read = Points.from_bytes(made.to_bytes())
    assert read.names == made.names and read.skipped == made.skipped and (read.xy == made.xy).all()
    both = Points.concat([read, Points.empty([("d", "x")]), read])
    assert len(both.xy) == 4 and both.skipped == [("c", "why"), ("d", "x"), ("c", "why")]


def test_training_that_was_stopped_is_resumed(tmp_path, monkeypatch, fakes):
    seen = []

    def stopped(backbone, images, config, *, checkpoint, resume, on_progress):
        seen.append((checkpoint.exists(), resume))
        checkpoint.write_text("state")
        if len(seen) == 1:
            raise KeyboardInterrupt
        return fakes.train(backbone, images, config)

    make.write_folder(tmp_path)
    monkeypatch.setattr(stages, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("folder", tmp_path, cache=tmp_path / "cache")
    run("folder", tmp_path, cache=tmp_path / "cache")
    assert seen == [(False, True), (True, True)]
    assert not list((tmp_path / "cache").glob("*.checkpoint"))


# Several processes


@pytest.fixture
def several(fakes, monkeypatch):
    """An engine like stablekp_core.scale's that reads images by index and finishes the last shard first."""
    calls = []

    def detect_shards(model, tokens, images, config, *, shards, pool):
        calls.append((list(shards), pool))
        for start, stop in reversed(shards):
            pairs, skipped = [], []
            for i in range(start, stop):
                try:
                    pairs.append((images.names[i], images[i]))
                except KeypointError as error:
                    skipped.append((i, getattr(error, "reason", str(error))))
            yield SimpleNamespace(
                start=start,
                stop=stop,
                skipped=skipped,
                found=fakes.detect(model, tokens, pairs, config) if pairs else None,
            )

    engine = SimpleNamespace(Pool=lambda workers: workers, detect_shards=detect_shards)
    monkeypatch.setitem(sys.modules, "stablekp_core.scale.detect", engine)
    monkeypatch.setattr(stages, "SHARD", 2)
    return calls


@pytest.mark.parametrize("name", ["folder", "cub_001", "cub_aligned", "human36m", "human36m_unaligned", "taichi"])
def test_several_processes_find_the_same(tmp_path, several, name):
    for module in ("scipy", "h5py", "pandas"):
        pytest.importorskip(module)
    write = {
        "folder": lambda root: make.write_folder(root, {"train": 7, "test": 3}),
        "cub_001": lambda root: make.write_cub_parts(root, train={1: 8}, test={1: 3}),
        "cub_aligned": lambda root: make.write_cub_aligned(root, {1: 10}),
        "human36m": lambda root: make.write_human36m(root, SWAP),
        "human36m_unaligned": make.write_human36m_unaligned,
        "taichi": lambda root: make.write_taichi(root, {0: 3}),
    }
    write[name](tmp_path)
    if name == "folder":
        for i in (2, 4, 5):
            (tmp_path / "train" / f"{i}.png").write_bytes(b"no image")
    one, many = run(name, tmp_path), run(name, tmp_path, workers=3, cache=tmp_path / "cache")
    assert one.metrics == pytest.approx(many.metrics, rel=1e-12) and one.counts == many.counts
    count = len(several)
    assert count and all(pool == 3 and len(shards) > 1 for shards, pool in several)
    assert run(name, tmp_path, workers=1, cache=tmp_path / "cache").metrics == many.metrics
    assert len(several) == count  # both ways of working share the cache


def test_a_missing_image_stops_several_processes_too(tmp_path, several):
    make.write_folder(tmp_path, {"train": 7, "test": 3})
    (tmp_path / "test" / "1.png").unlink()
    with pytest.raises(KeypointError, match="1.png is missing"):
        run("folder", tmp_path, workers=2)


# Ablation and transfer


def test_ablation_has_the_five_rows_of_table_4(tmp_path, fakes):
    make.write_folder(tmp_path)
    rows = dict(
        ablate(BACKBONE, open_dataset("folder", tmp_path), TRAIN, LOOK.replace(views=4), cache=tmp_path / "cache")
    )
    assert list(rows) == ["full", "no TTA", "no FPS", "no query upsampling", "no equivariance"] == list(ABLATIONS)
    configs = [config for _, config in fakes.trained]
    assert len(configs) == 4  # no TTA uses the tokens of the full method
    assert configs[0] == TRAIN and configs[1] == TRAIN.replace(candidates=2)
    assert configs[2] == TRAIN.replace(upsample="maps") and configs[3] == TRAIN.replace(equivariance_weight=0.0)
    assert rows["no TTA"].detect["views"] == 0 and rows["no TTA"].detect["identity"]
    assert rows["full"].detect["views"] == rows["no FPS"].detect["views"] == 4


def test_tokens_from_elsewhere_train_nothing(tmp_path, fakes):
    make.write_folder(tmp_path)
    tokens = KeypointTokens(torch.zeros(4, 3), (0, 1))
    result = run("folder", tmp_path, tokens=tokens)
    assert not fakes.trained and result.keypoints == 2 and result.counts["train"]["used"] == 0


def test_transfer_learns_on_one_set_and_measures_on_another(tmp_path, fakes):
    make.write_folder(tmp_path / "data")
    make.write_deepfashion(tmp_path / "fashion")
    source, target = open_dataset("deepfashion", tmp_path / "fashion"), open_dataset("folder", tmp_path / "data")
    result = transfer(BACKBONE, source, target, TRAIN, LOOK, cache=tmp_path / "cache")
    assert [count for count, _ in fakes.trained] == [6] and len(fakes.detected) == 8
    assert result.dataset == "folder" and set(result.metrics) == set(target.metrics)
    assert result.counts["train"]["listed"] == 6 and result.counts["test"]["used"] == 2
    assert result.metrics["mean_l2_percent"] == pytest.approx(100 * 1.5 * np.hypot(3 / 120, 4 / 100), rel=1e-5)
    evaluate(BACKBONE, source, TRAIN, LOOK, cache=tmp_path / "cache")
    assert len(fakes.trained) == 1  # its own evaluation finds the same tokens in the cache


def test_limits_apply_per_split(tmp_path, fakes):
    make.write_folder(tmp_path, {"train": 7, "test": 3})
    data = limit_splits(open_dataset("folder", tmp_path), Limits(train=2, regression=6, test=None))
    result = evaluate(BACKBONE, data, TRAIN, LOOK)
    assert [result.counts[which]["used"] for which in ("train", "regression", "test")] == [2, 6, 3]


# The command


@pytest.fixture
def command(tmp_path, fakes, monkeypatch):
    monkeypatch.setattr("stablekp_core.backbone.loading.load_backbone", lambda *_: BACKBONE)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return main(["evaluate", *map(str, arguments)])

    return call


def test_the_command_writes_table_and_json(tmp_path, command, fakes, capsys):
    make.write_folder(tmp_path / "data")
    assert (
        command("--dataset", "folder", "--root", "data", "--seed", 5, "--output", "out/r.json", "--batch-size", 2) == 0
    )
    report = json.loads((tmp_path / "out" / "r.json").read_text())
    row = report["rows"]["folder"]
    assert row["metrics"]["mean_l2_percent"] == pytest.approx(100 * 1.5 * np.hypot(3 / 120, 4 / 100), rel=1e-5)
    assert row["train"]["seed"] == row["detect"]["seed"] == report["seeds"]["training"] == 5
    assert row["train"]["batch_size"] == row["detect"]["batch_size"] == 2
    assert row["train"]["keypoints"] == 10 and row["train"]["steps"] == 500  # the data set's own
    assert row["counts"]["test"] == {"listed": 2, "used": 2, "dropped": {}, "skipped": []}
    assert report["versions"]["torch"] == metadata.version("torch")
    assert report["versions"]["numpy"] == np.__version__
    assert report["model"]["hash"] == "none"
    shown = capsys.readouterr().out
    assert (tmp_path / "out" / "r.txt").read_text() in shown and "mean_l2_percent" in shown
    assert "test 2 of 2" in shown and list((tmp_path / "evaluation_cache").glob("tokens-*.safetensors"))


def test_the_papers_numbers_stand_beside_their_own_row_only(tmp_path, command, capsys):
    make.write_deepfashion(tmp_path / "data")
    options = ("--dataset", "deepfashion", "--root", "data")
    data = open_dataset("deepfashion", tmp_path / "data")
    result = evaluate(BACKBONE, data, TRAIN, LOOK)
    assert " 70 " not in table(data, {"deepfashion": result})  # two keypoints are not sixteen
    sixteen = type(result)(**{**vars(result), "keypoints": 16})
    assert " 70 " in table(data, {"deepfashion": sixteen})
    assert " 70 " not in table(data, {"cub_all -> deepfashion": sixteen})
    assert command(*options, "--metrics", "pck_6") == 0
    assert "l2_128" not in capsys.readouterr().out


def test_ablate_and_transfer_from_the_command_line(tmp_path, command, fakes):
    make.write_folder(tmp_path / "data")
    make.write_deepfashion(tmp_path / "fashion")
    options = ("--dataset", "folder", "--root", "data", "--keypoints", 2)
    assert command(*options, "--ablate") == 0
    assert list(json.loads((tmp_path / "evaluation.json").read_text())["rows"]) == list(ABLATIONS)
    fakes.trained.clear()
    assert command(*options, "--transfer", "deepfashion", "--transfer-root", "fashion") == 0
    assert [count for count, _ in fakes.trained] == [6]  # trained on the six images of the other set
    assert list(json.loads((tmp_path / "evaluation.json").read_text())["rows"]) == ["deepfashion -> folder"]
    KeypointTokens(torch.zeros(4, 3), (0, 1)).save(tmp_path / "birds.safetensors")
    for option, row in (("--tokens", "birds.safetensors"), ("--transfer", "birds.safetensors -> folder")):
        assert command(*options, option, "birds.safetensors") == 0
        assert list(json.loads((tmp_path / "evaluation.json").read_text())["rows"]) == [row]
    assert len(fakes.trained) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--dataset", "taichi"), "--root"),
        (("--dataset", "dolls", "--metrics", "l3"), "no metric 'l3'"),
        (("--dataset", "dolls", "--ablate", "--tokens", "x"), "leave out --tokens"),
        (("--dataset", "dolls", "--transfer", "x", "--tokens", "x"), "give one of them"),
        (("--dataset", "dolls", "--transfer", "nothing"), "neither a tokens file nor a data set"),
        (("--dataset", "dolls", "--transfer", "cub_all"), "--transfer-root"),
    ],
)
def test_wrong_arguments_end_in_one_line(command, capsys, arguments, message):
    assert command(*arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1] and "Traceback" not in "".join(error)


def test_unknown_data_sets_are_wrong_usage(command):
    with pytest.raises(SystemExit) as caught:
        command("--dataset", "celebb")
    assert caught.value.code == 2


def test_end_to_end_with_a_random_model_on_dolls(tmp_path, capsys):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=3,
    ).save_pretrained(tmp_path / "model" / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path / "model" / "vae")
    arguments = [
        "evaluate",
        "--dataset",
        "dolls",
        "--limit",
        "4",
        "--model",
        str(tmp_path / "model"),
        "--steps",
        "2",
        "--num-tokens",
        "30",
        "--map-size",
        "16",
        "--views",
        "2",
        "--selection-images",
        "2",
        "--cache",
        str(tmp_path / "cache"),
        "--output",
        str(tmp_path / "r.json"),
    ]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "r.json").read_text())
    row = first["rows"]["dolls"]
    assert row["keypoints"] == 10 and 0 < row["metrics"]["mean_l2_percent"] < 200
    assert [row["counts"][w]["used"] for w in ("train", "regression", "test")] == [4, 4, 4]
    assert first["model"]["dtype"] == "float32" and len(first["model"]["hash"]) >= 32
    assert main(arguments) == 0  # from the cache
    assert json.loads((tmp_path / "r.json").read_text())["rows"]["dolls"]["metrics"] == row["metrics"]
    assert main([*arguments, "--cache", str(tmp_path / "fresh")]) == 0  # and again from nothing
    assert json.loads((tmp_path / "r.json").read_text())["rows"]["dolls"]["metrics"] == row["metrics"]
    assert "4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--limit", "--workers"])
def test_numbers_below_one_are_wrong_usage(command, capsys, option):
    with pytest.raises(SystemExit) as caught:
        command("--dataset", "dolls", option, "0")
    assert caught.value.code == 2
    assert f"argument {option}: '0' was given, but it must be a whole number from 1 up" in capsys.readouterr().err
