"""Tai-Chi-HD: tokens are learned on video frames; 5000 and 300 frames have 18 joints, where -1 means not
seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import KeypointError
from ...images.files import list_images
from ..restricted_pickle import read_table
from .common import Dataset, FileSplit
from .sources import missing, require

WHERE = (
    "Tai-Chi-HD with the evaluation frames and joints of https://github.com/AliaksandrSiarohin/motion-cosegmentation"
)


def open_taichi(root: Path, seed: int = 0, reference: bool = False) -> Dataset:
    """`train/<video>/`, `eval_images/taichi-256/{train,test}/` and `landmark/taichi_{train,test}_gt.pkl`
    under `root`."""
    metrics = ("taichi_reference", "taichi_standard", "l2_128")
    return Dataset(
        "taichi",
        _frames(root / "train"),
        _labelled(root, "train"),
        _labelled(root, "test"),
        keypoints=10,
        metrics=metrics,
        where=WHERE,
        paper={("taichi_reference", 10): 234.89, ("l2_128", 10): 7.02},
    )


def _frames(folder: Path) -> FileSplit:
    """Every image in the folders of the videos."""
    videos = sorted(p for p in require(folder, WHERE).iterdir() if p.is_dir())
    paths = [path for video in videos for path in list_images(video)]
    if not paths:
        raise missing(folder / "<video>" / "*.png", WHERE)
    return FileSplit(paths, WHERE, names=[f"{path.parent.name}/{path.name}" for path in paths])


def _labelled(root: Path, which: str) -> FileSplit:
    path = require(root / "landmark" / f"taichi_{which}_gt.pkl", WHERE)
    table = read_table(path, ("file_name", "value"))
    try:
        joints = [np.array(value, np.float64).reshape(18, 2) for value in table["value"]]
    except (TypeError, ValueError) as error:
        raise KeypointError(f"{path} does not hold 18 joints (x, y) for every frame; it comes with {WHERE}.") from error
    folder = root / "eval_images" / "taichi-256" / which
    return FileSplit(
        [folder / str(name) for name in table["file_name"]],
        WHERE,
        labels=lambda i, width, height: (joints[i] / 256 * [width, height], (joints[i] != -1).all(1)),
    )
