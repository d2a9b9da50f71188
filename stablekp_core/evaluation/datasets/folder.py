"""Your own labelled pictures: folders of pictures, each with one COCO keypoint JSON file.

`ROOT/train` and `ROOT/test`, and `ROOT/regression` where the linear map is to be fitted on other pictures
than the tokens are learned on. A single folder without these is divided: every fifth labelled picture is for
test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import KeypointError
from ...images.image_set import list_images
from ...keypoints.keypoints import Keypoints
from .common import Dataset, FileSplit, roles_of
from .sources import require

WHERE = "your own pictures"
METRICS = ("mean_l2_percent", "visible_mean_image", "pck_5_percent", "pck_10_percent")
_EVERY = 5


def open_folder(root: Path, seed: int = 0) -> Dataset:
    """Pictures and labels under `root`; training pictures need no labels. Raises KeypointError when the
    splits are labelled with different points."""
    if (root / "train").is_dir() or (root / "test").is_dir():
        source = root / "regression" if (root / "regression").is_dir() else root / "train"
        fit, test = (_labelled(require(folder, WHERE)) for folder in (source, root / "test"))
        train = FileSplit(list_images(require(root / "train", WHERE)), WHERE)
    else:
        whole = _Labelled(root)
        fit = whole.split([i for i in range(len(whole.files)) if i % _EVERY != _EVERY - 1])
        test = whole.split([i for i in range(len(whole.files)) if i % _EVERY == _EVERY - 1])
        held_out = set(test.paths)
        train = FileSplit([path for path in list_images(root) if path not in held_out], WHERE)
    if fit.landmark_names != test.landmark_names:
        raise KeypointError(
            f"the pictures of {root} are labelled with {', '.join(fit.landmark_names)} for fitting and "
            f"{', '.join(test.landmark_names)} for test; label the same points."
        )
    if not len(test):
        raise KeypointError(f"{root} has too few labelled pictures to keep some for test; label at least {_EVERY}.")
    roles = roles_of(test.landmark_names)
    return Dataset("folder", train, fit, test, keypoints=10, metrics=METRICS, where=WHERE, roles=roles)


class _LabelledSplit(FileSplit):
    landmark_names: tuple[str, ...] = ()


def _labelled(folder: Path) -> _LabelledSplit:
    whole = _Labelled(folder)
    return whole.split(range(len(whole.files)))


class _Labelled:
    """The pictures of a folder that its label file has exactly one figure in."""

    def __init__(self, folder: Path):
        files = sorted(folder.glob("*.json"))
        if len(files) != 1:
            raise KeypointError(
                f"{folder} has {len(files)} .json files, but exactly one, COCO keypoints of its pictures, is needed."
            )
        labels = Keypoints.load(files[0])
        images, counts = np.unique(labels.image_index, return_counts=True)
        single = set(images[counts == 1].tolist())
        self.labels = labels.rows([row for row, image in enumerate(labels.image_index) if int(image) in single])
        self.files = [folder / name for name in self.labels.images]
        self.dropped = {"several figures labelled": int((counts > 1).sum())}

    def split(self, rows) -> _LabelledSplit:
        rows = list(rows)
        xy, sizes = self.labels.xy[rows].astype(np.float64), self.labels.sizes[rows]
        seen = self.labels.confidence[rows] > 0
        split = _LabelledSplit(
            [self.files[r] for r in rows],
            WHERE,
            dropped=self.dropped,
            labels=lambda i, width, height: (xy[i] / sizes[i] * [width, height], seen[i]),
        )
        split.landmark_names = self.labels.names
        return split
