"""DeepFashion, full-body images: 10604 for training, 1179 for test. The published labels are the 17 joints of COCO
that AlphaPose found; files with another number of joints are taken as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...errors import KeypointError
from .common import Dataset, FileSplit
from .sources import count_check, read_lines, require

WHERE = (
    "DeepFashion in the split of Lorenz et al. (https://github.com/theRealSuperMario/unsupervised-disentangling, "
    "branch reproducing_baselines, folder original_code/custom_datasets/deepfashion)"
)


def open_deepfashion(root: Path, seed: int = 0, reference: bool = False) -> Dataset:
    """`img/`, `data_{train,test}.csv` and `data_{train,test}.json` under `root`."""
    train = _split(root, "train")
    return Dataset(
        "deepfashion",
        train,
        train,
        _split(root, "test"),
        keypoints=16,
        metrics=("pck_6", "l2_128"),
        where=WHERE,
        paper={("pck_6", 16): 70.0, ("l2_128", 16): 6.46},
    )


def _split(root: Path, which: str) -> FileSplit:
    rows = read_lines(root / f"data_{which}.csv", WHERE)[1:]
    text = require(root / f"data_{which}.json", WHERE).read_text(encoding="utf-8")
    try:
        files = [row.split(",")[1].strip() for row in rows]
        joints = [np.array(entry["keypoints"], np.float64).reshape(-1, 2) for entry in json.loads(text)]
        if len({len(points) for points in joints}) > 1:
            raise ValueError("its images have different numbers of joints")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise KeypointError(
            f"data_{which}.csv or data_{which}.json under {root} is not as expected ({error!r}); both come "
            f"with {WHERE}."
        ) from error
    count_check(files, joints, f"data_{which}.csv and data_{which}.json")  # they are matched by position
    return FileSplit(
        [root / "img" / file for file in files],
        WHERE,
        labels=lambda i, width, height: (joints[i] / 256 * [width, height], np.ones(len(joints[i]), bool)),
    )
