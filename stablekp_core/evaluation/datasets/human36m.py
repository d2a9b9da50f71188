"""Human3.6M, six actions, 32 joints, people cut out with the background removed; subject 11 is the test.

The authors' code takes every folder whose name begins with an action, so that its "Walking" has WalkingDog and
WalkingTogether too; here that happens on request (`reference`) only.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...images.files import BrokenImage
from ..metrics import Roles
from .common import Dataset, Sample, Split
from .sources import file_stamp, missing, optional_module, read_image, read_mat, require

WHERE = "Human3.6M (http://vision.imar.ro/human3.6m; it takes a registration)"
ACTIONS = ("Directions", "Discussion", "Posing", "Waiting", "Greeting", "Walking")
SUBJECTS = {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}
#: Right leg 1-5 and left leg 6-10, left arm 16-23 and right arm 24-31 change places.
SWAP = (0, *range(6, 11), *range(1, 6), *range(11, 16), *range(24, 32), *range(16, 24))
METRICS = ("swap_invariant_128", "l2_128")


def open_human36m(root: Path, seed: int = 0, reference: bool = False) -> Dataset:
    """`S*/{WithBackground,BackgroudMask,Landmarks}/<action>/<n>.{jpg,png,mat}` under `root` (the folder of
    the masks is spelled so)."""
    train, test = (_CutOutSplit(root, SUBJECTS[which], reference) for which in ("train", "test"))
    return Dataset(
        "human36m",
        train,
        train,
        test,
        keypoints=16,
        metrics=METRICS,
        where=WHERE,
        roles=Roles(swap=SWAP),
        paper={("swap_invariant_128", 16): 4.45},
    )


def natural(path: Path) -> list:
    """Sorting key under which frame 2 comes before frame 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def actions(folder: Path, reference: bool) -> list[Path]:
    """Folders of the six actions (an action has several takes: "Walking", "Walking 1"); with `reference` also those
    of other actions that begin with the same word."""
    named = re.compile(f"({'|'.join(ACTIONS)}){'' if reference else '(?![A-Za-z])'}")
    return sorted(p for p in require(folder, WHERE).iterdir() if p.is_dir() and named.match(p.name))


def image_files(folder: Path) -> list[Path]:
    """The .jpg files of a folder in the order of their numbers."""
    return sorted(folder.glob("*.jpg"), key=natural)


class _CutOutSplit(Split):
    def __init__(self, root: Path, subjects: tuple[int, ...], reference: bool):
        optional_module("scipy.io", "The data set human36m")  # said now rather than at the first image
        self.paths = [
            path
            for subject in subjects
            for action in actions(root / f"S{subject}" / "WithBackground", reference)
            for path in image_files(action)
        ]
        if not self.paths:
            raise missing(root / f"S{subjects[0]}" / "WithBackground" / "<action>" / "<n>.jpg", WHERE)
        super().__init__(["/".join((p.parts[-4], p.parent.name, p.name)) for p in self.paths])

    def _beside(self, i: int, folder: str, suffix: str) -> Path:
        path = self.paths[i]
        return path.parents[2] / folder / path.parent.name / f"{path.stem}{suffix}"

    def sample(self, i: int) -> Sample:
        image = read_image(self.paths[i], WHERE)
        mask = read_image(self._beside(i, "BackgroudMask", ".png"), WHERE)[..., 0] > 0  # [h, w]
        rows, columns = (np.arange(n) * m // n for n, m in zip(image.shape[:2], mask.shape, strict=True))
        image = image * mask[rows[:, None], columns][..., None]
        return Sample(image, *self.labels(i, image.shape[1], image.shape[0]))

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        path = self._beside(i, "Landmarks", ".mat")
        try:
            joints = np.asarray(read_mat(path, WHERE)["keypoints_2d"], np.float64).reshape(32, 2)
        except (KeyError, TypeError, ValueError) as error:
            if not path.exists():
                raise
            raise BrokenImage(self.names[i], f"{path.name} does not hold 32 joints") from error
        return joints * [width, height], np.ones(32, bool)

    def stamp(self, i: int) -> str:
        beside = self._beside(i, "BackgroudMask", ".png"), self._beside(i, "Landmarks", ".mat")
        return " ".join(file_stamp(path) for path in (self.paths[i], *beside))
