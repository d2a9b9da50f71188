"""The paper's protocol, whole: tokens, keypoints on two labelled splits, a linear map, the metrics.

    birds = open_dataset("cub_001", root)
    result = evaluate(backbone, birds, TrainConfig(keypoints=4), DetectConfig(), cache="cache")
    result.metrics["visible_mean_image"]

Tokens are learned on the training split without labels; a linear map without bias from keypoints to landmarks
is fitted on the regression split; the metrics are taken on the test split. Everything slow is kept in the
cache folder under a name that depends on all it was made from, so a run that was stopped goes on where it
was, and a run with other settings never meets the wrong file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from ..keypoints.tokens import KeypointTokens
from ..progress import DETECTING, Progress, silent
from .cache import Points, StageCache
from .datasets.common import Dataset
from .metrics import NO_ROLES, Metric, Roles, mean_baseline, metric
from .regression import fit_either_side, fit_regression
from .stages import find, learn

#: Table 4: row -> changes of the training and of the detection settings; "K" is the number of keypoints.
ABLATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "no TTA": ({}, {"views": 0, "identity": True}),
    "no FPS": ({"candidates": "K"}, {}),
    "no query upsampling": ({"upsample": "maps"}, {}),
    "no equivariance": ({"equivariance_weight": 0.0}, {}),
}
#: What the paper's Table 4 reports for them on cub_all (visible_mean_image).
PAPER_ABLATION = {
    "full": 5.4,
    "no TTA": 5.6,
    "no FPS": 6.4,
    "no query upsampling": 8.0,
    "no equivariance": 22.2,
}


@dataclass(frozen=True)
class Limits:
    """At most so many images of each split, spread evenly over it; None = all."""

    train: int | None = None
    regression: int | None = None
    test: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """metrics: by name, under the protocol's own fit. with_intercept: the same with an intercept in every
    fit. baseline: the same for always guessing the regression split's mean landmarks. counts: for each split
    the images `listed`, `used`, `dropped` by the protocol's filters, and `skipped` as (name, reason).
    left_out: landmarks that no regression image shows. seconds: of each stage in this run (cached work is
    not done again)."""

    dataset: str
    keypoints: int
    metrics: dict[str, float]
    with_intercept: dict[str, float]
    baseline: dict[str, float]
    counts: dict[str, dict[str, Any]]
    left_out: tuple[int, ...]
    seconds: dict[str, float]
    train: dict[str, Any]
    detect: dict[str, Any]
    tokens: KeypointTokens = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the tokens stay out."""
        names = (
            "dataset",
            "keypoints",
            "metrics",
            "with_intercept",
            "baseline",
            "counts",
            "seconds",
            "train",
            "detect",
        )
        return {**{name: getattr(self, name) for name in names}, "left_out": list(self.left_out)}


def limit_splits(dataset: Dataset, limits: Limits) -> Dataset:
    """The data set with at most so many images in each split."""
    return replace(
        dataset,
        train=dataset.train.limited(limits.train),
        regression=dataset.regression.limited(limits.regression),
        test=dataset.test.limited(limits.test),
    )


def evaluate(
    backbone,
    dataset: Dataset,
    train_config: TrainConfig,
    detect_config: DetectConfig,
    *,
    tokens: KeypointTokens | None = None,
    metrics: Sequence[str] | None = None,
    cache: str | Path | None = None,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Run the protocol on a data set; with `tokens` nothing is trained.

    cache: folder for what is slow to make, or None. workers > 1: detection runs in so many processes. Raises
    KeypointError for unknown metrics, missing files and splits without a usable image.
    """
    names = tuple(metrics or dataset.metrics)
    for name in names:
        _check_metric(name, dataset)
    report, store, seconds = on_progress or silent, StageCache(cache), {}
    counts = {"train": {"listed": len(dataset.train), "dropped": dataset.train.dropped, "used": 0, "skipped": []}}
    if tokens is None:
        start = time.perf_counter()
        tokens, skipped = learn(backbone, dataset.train, train_config, store, report)
        seconds["train"] = time.perf_counter() - start
        counts["train"] |= {"used": len(dataset.train) - len(skipped), "skipped": skipped}
    found = {}
    for which, split in (("regression", dataset.regression), ("test", dataset.test)):
        start = time.perf_counter()
        points = find(
            backbone,
            tokens,
            split,
            detect_config,
            store,
            workers,
            lambda done, total, which=which: report(f"{DETECTING}, {which}", done, total),
        )
        seconds[which] = time.perf_counter() - start
        counts[which] = {
            "listed": len(split),
            "dropped": split.dropped,
            "used": len(points.xy),
            "skipped": points.skipped,
        }
        if not len(points.xy):
            raise KeypointError(
                f"None of the {len(split)} images of the {which} split of {dataset.name} can be used"
                f"{': ' + ': '.join(points.skipped[0]) if points.skipped else ''}; check the files."
            )
        found[which] = points
    own, intercept, mean, left_out = measure(found["regression"], found["test"], names, dataset.roles)
    return Evaluation(
        dataset.name,
        tokens.num_keypoints,
        own,
        intercept,
        mean,
        counts,
        left_out,
        seconds,
        tokens.config,
        detect_config.to_dict(),
        tokens,
    )


def _check_metric(name: str, dataset: Dataset) -> None:
    needs = metric(name).needs
    if needs and not getattr(dataset.roles, needs):
        what = {"eyes": "which landmarks are the eyes", "swap": "which landmarks are left and right"}[needs]
        raise KeypointError(
            f"The metric {name} needs to know {what}, which the data set {dataset.name} does not say; choose "
            "another metric (in a folder, names such as left_eye and right_eye say it)."
        )


def measure(
    fit: Points, test: Points, names: Sequence[str], roles: Roles = NO_ROLES
) -> tuple[dict[str, float], dict[str, float], dict[str, float], tuple[int, ...]]:
    """(metrics under the protocol's fit, with an intercept, of the mean landmarks; landmarks that no image
    of `fit` shows, which are left out of everything). Raises KeypointError when nothing can be measured."""
    seen = fit.visible.any(0)
    truth, visible = test.landmarks[:, seen], test.visible[:, seen]
    left_out = tuple(np.flatnonzero(~seen).tolist())
    if not visible.any():
        raise KeypointError("No landmark that was fitted is visible on a test image; use more images.")
    if left_out and any(metric(name).needs for name in names):
        raise KeypointError(
            "A metric of eyes or of left and right needs every landmark on the regression images; use more of them."
        )
    landmarks, shown = fit.landmarks[:, seen], fit.visible[:, seen]

    def fitted(one: Metric, bias: bool) -> np.ndarray:
        labels = landmarks, one.counted(landmarks, shown)
        if one.either_side:
            return fit_either_side(fit.xy, labels[0], roles.swap, labels[1], bias=bias).predict(test.xy)
        return fit_regression(fit.xy, *labels, bias=bias).predict(test.xy)

    def all_of(points: Callable[[Metric], np.ndarray]) -> dict[str, float]:
        metrics = {name: metric(name) for name in names}
        return {
            name: float(one.measure(points(one), truth, one.counted(truth, visible), roles))
            for name, one in metrics.items()
        }

    return (
        all_of(lambda one: fitted(one, one.intercept)),
        all_of(lambda one: fitted(one, True)),
        all_of(lambda one: mean_baseline(landmarks, len(truth), one.counted(landmarks, shown))),
        left_out,
    )


def ablate(
    backbone, dataset: Dataset, train_config: TrainConfig, detect_config: DetectConfig, **options
) -> Iterator[tuple[str, Evaluation]]:
    """The five rows of Table 4, one after the other; options as for `evaluate`."""
    for row, (training, detection) in ABLATIONS.items():
        changes = {k: train_config.keypoints if v == "K" else v for k, v in training.items()}
        yield (
            row,
            evaluate(
                backbone,
                dataset,
                train_config.replace(**changes),
                detect_config.replace(**detection),
                **options,
            ),
        )


def transfer(
    backbone,
    source: Dataset,
    target: Dataset,
    train_config: TrainConfig,
    detect_config: DetectConfig,
    **options,
) -> Evaluation:
    """Table 5: tokens learned on the training split of `source`, everything else on `target`; options as for
    `evaluate`. The counts of "train" are those of `source`."""
    return evaluate(backbone, replace(target, train=source.train), train_config, detect_config, **options)
