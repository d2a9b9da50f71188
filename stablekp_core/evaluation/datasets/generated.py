"""Generated figures with exact joints (stablekp_core.synthetic) as a data set: 500 for training, 200 for
test."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...synthetic import figures, generator
from .common import Dataset, Sample, Split, roles_of

SIZE, TRAIN, TEST = 128, 500, 200
_FIRST = {"train": 300_000, "test": 350_000}  # figures that no other part of the project draws


def open_generated(root: Path, seed: int = 0, reference: bool = False, kind: str = "dolls") -> Dataset:
    """Figures of a kind; another seed gives other figures."""
    train, test = (
        _GeneratedSplit(kind, _FIRST[which] + 1_000 * seed, count)
        for which, count in (("train", TRAIN), ("test", TEST))
    )
    return Dataset(
        kind,
        train,
        train,
        test,
        keypoints=10,
        metrics=("mean_l2_percent", "pck_5_percent", "pck_10_percent"),
        where="the generator in this package",
        roles=roles_of(figures.landmark_names(kind)),
    )


class _GeneratedSplit(Split):
    def __init__(self, kind: str, first: int, count: int):
        super().__init__([f"{kind}_{first + i}" for i in range(count)])
        self.kind, self.first = kind, first
        drawn = generator.render(kind, first, SIZE)  # stands for the generator itself, which may change
        self._stamp = hashlib.sha256(drawn.image.tobytes() + drawn.joints.tobytes()).hexdigest()

    def sample(self, i: int) -> Sample:
        drawn = generator.render(self.kind, self.first + i, SIZE)
        return Sample(drawn.image, drawn.joints.astype(np.float64), drawn.visible)

    def stamp(self, i: int) -> str:
        return self._stamp
