"""CUB-200-2011 birds with 15 parts: aligned (cut out, 128 x 128, one .h5 file) and cut out of the original
images.

The second form follows the field's protocol: the bird's box grows by 5 % on every side, in training by up to
5 % more or less at random, and becomes a square; half of the training images are mirrored. Both draws
depend on the seed and the image's name alone. Where the square leaves the image it is black.

The file counts pixels from 1 and a part lies at its pixel's centre, so here it lies at x - 0.5 of an image whose first
pixel covers 0 to 1. The authors' code puts it at x - 1, half a pixel further left and up, and mirrors it one pixel of
its 512 x 512 copy short; `reference` asks for exactly that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import KeypointError
from ...images.files import BrokenImage
from ..metrics import Roles
from .common import Dataset, Sample, Split
from .sources import file_stamp, optional_module, read_image, read_mat, require, seeded

WHERE = (
    "CUB-200-2011 (http://www.vision.caltech.edu/datasets/cub_200_2011/; the cleaned .mat files: "
    "https://github.com/akanazawa/cmr)"
)
WHERE_ALIGNED = (
    "the preprocessed CUB of https://github.com/xingzhehe/AutoLink-Self-supervised-Learning-of-Human-"
    "Skeletons-and-Object-Outlines-by-Linking-Keypoints"
)
METRICS = ("visible_mean_image", "visible_mean_micro")
#: Left and right eye, leg and wing change places in a mirrored image.
MIRRORED = (0, 1, 2, 3, 4, 5, 10, 11, 12, 9, 6, 7, 8, 13, 14)
_PAPER = {1: 10.5, 2: 11.1, 3: 10.3, None: 5.4}
_REFERENCE_SIDE = 512  # pixels; the authors' code mirrors its resized copy
_MARGIN = 0.05  # of the box, on each side; the same for the jitter


def open_aligned(root: Path, seed: int = 0, reference: bool = False) -> Dataset:
    """`cub.h5` under `root`: {train,test}_{img,kp,vis}."""
    train, test = (_AlignedSplit(root / "cub.h5", which) for which in ("train", "test"))
    return Dataset(
        "cub_aligned",
        train,
        train,
        test,
        keypoints=10,
        metrics=METRICS,
        where=WHERE_ALIGNED,
        steps=10_000,
        roles=Roles(swap=MIRRORED),
        paper={("visible_mean_image", 10): 5.06},
    )


class _AlignedSplit(Split):
    """img uint8 [N, 3, H, W], kp float32 [N, 15, 2] in [0, 1] as (y, x), vis uint8 [N, 15]; images stay in
    the file."""

    def __init__(self, path: Path, which: str):
        self.path, self.which = require(path, WHERE_ALIGNED), which
        self._h5py = optional_module("h5py", "The data set cub_aligned")
        try:
            with self._h5py.File(path, "r") as file:
                self.points = np.asarray(file[f"{which}_kp"], np.float64)[..., ::-1]  # (x, y)
                self.seen = np.asarray(file[f"{which}_vis"]) > 0
                count = len(file[f"{which}_img"])
        except (OSError, KeyError) as error:
            raise KeypointError(
                f"{path} has no {which}_img, {which}_kp and {which}_vis; it comes with {WHERE_ALIGNED}."
            ) from error
        super().__init__([f"{which}_{i:05d}" for i in range(count)])

    def sample(self, i: int) -> Sample:
        with self._h5py.File(self.path, "r") as file:
            image = np.ascontiguousarray(np.moveaxis(np.asarray(file[f"{self.which}_img"][i], np.uint8), 0, -1))
        return Sample(image, *self.labels(i, image.shape[1], image.shape[0]))

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        return self.points[i] * [width, height], self.seen[i]

    def stamp(self, i: int) -> str:
        return f"{file_stamp(self.path)} {i}"


def open_parts(root: Path, seed: int = 0, reference: bool = False, class_id: int | None = None) -> Dataset:
    """`CUB_200_2011/images` and `CUB_200_2011/cachedir/cub/data/{train,test}_cub_cleaned.mat` under `root`;
    one class of the 200, or all."""
    train, test = (_PartsSplit(root / "CUB_200_2011", which, class_id, seed, reference) for which in ("train", "test"))
    name = "cub_all" if class_id is None else f"cub_{class_id:03d}"
    paper = {("visible_mean_image", 4): _PAPER[class_id]} if class_id in _PAPER else {}
    return Dataset(
        name,
        train,
        train,
        test,
        keypoints=4,
        metrics=METRICS,
        where=WHERE,
        steps=10_000,
        roles=Roles(swap=MIRRORED),
        paper=paper,
    )


class _PartsSplit(Split):
    """Birds cut out of the original images."""

    def __init__(self, folder: Path, which: str, class_id: int | None, seed: int, reference: bool):
        path = folder / "cachedir" / "cub" / "data" / f"{which}_cub_cleaned.mat"
        content = read_mat(path, WHERE, ("mask",), struct_as_record=False, squeeze_me=True)
        try:
            birds = np.atleast_1d(content["images"])
            birds = [bird for bird in birds if class_id is None or _class_of(bird) == class_id]
            self.parts = [np.asarray(bird.parts, np.float64).reshape(3, 15).T for bird in birds]  # [15, 3]
            self.boxes = [_box(bird.bbox) for bird in birds]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise KeypointError(
                f"{path} does not hold images with rel_path, bbox and parts ({error}); it comes with {WHERE}."
            ) from error
        if not birds:
            raise KeypointError(f"{path} has no image of class {class_id}; it comes with {WHERE}.")
        super().__init__([str(bird.rel_path) for bird in birds])
        self.classes = [_class_of(bird) for bird in birds]
        self.folder, self.seed, self.train = folder / "images", seed, which == "train"
        self.reference = reference

    def sample(self, i: int) -> Sample:
        left, top, side, mirrored = self._cut(i)
        if side < 16:
            raise BrokenImage(self.names[i], f"its box is {side} pixels wide")
        image = cut_out(read_image(self.folder / self.names[i], WHERE), left, top, side)
        if mirrored:
            image = np.ascontiguousarray(image[:, ::-1])
        extras = {"bbox": self.boxes[i], "class_id": self.classes[i]}
        return Sample(image, *self.labels(i, side, side), extras)

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        left, top, side, mirrored = self._cut(i)
        visible = self.parts[i][:, 2] > 0
        points = self.parts[i][:, :2] - (1 if self.reference else 0.5) - [left, top]
        if mirrored:
            edge = side * (1 - 1 / _REFERENCE_SIDE) if self.reference else side
            points = np.stack([edge - points[:, 0], points[:, 1]], 1)[list(MIRRORED)]
            visible = visible[list(MIRRORED)]
        return np.where(visible[:, None], points, 0.0), visible

    def _cut(self, i: int) -> tuple[int, int, int, bool]:
        """(left, top, side, mirrored) of image i."""
        if not self.train:
            return *square_around(self.boxes[i]), False
        rng = seeded("cub", self.seed, self.names[i])
        return *square_around(self.boxes[i], rng), bool(rng.random() > 0.5)

    def stamp(self, i: int) -> str:
        labels = self.parts[i].tobytes() + np.array(self.boxes[i]).tobytes()
        drawn = self.seed if self.train else ""
        return f"{file_stamp(self.folder / self.names[i])} {labels.hex()} {drawn}{' reference' * self.reference}"


def _class_of(bird) -> int:
    """class_id, or the number that its folder begins with (001.Black_footed_Albatross)."""
    return int(bird.class_id) if hasattr(bird, "class_id") else int(str(bird.rel_path).split(".")[0])


def _box(box) -> tuple[float, float, float, float]:
    """First and last column and row, counted from 0; the file counts from 1, in fields or in this order."""
    values = (box.x1, box.y1, box.x2, box.y2) if hasattr(box, "x1") else np.ravel(box)
    x1, y1, x2, y2 = (float(v) - 1 for v in values)
    return x1, y1, x2, y2


def square_around(
    box: tuple[float, float, float, float], rng: np.random.Generator | None = None
) -> tuple[int, int, int]:
    """(left, top, side) of the square around a box grown by 5 %; with `rng` each border moves by up to 5 %
    more."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1 + 1, y2 - y1 + 1
    jitter = np.zeros(4) if rng is None else rng.uniform(-_MARGIN, _MARGIN, 4)
    low = [round(x1 - (_MARGIN + jitter[0]) * width), round(y1 - (_MARGIN + jitter[1]) * height)]
    high = [round(x2 + (_MARGIN + jitter[2]) * width), round(y2 + (_MARGIN + jitter[3]) * height)]
    sides = [high[0] - low[0] + 1, high[1] - low[1] + 1]
    side = max(sides)
    return low[0] - round((side - sides[0]) / 2), low[1] - round((side - sides[1]) / 2), side


def cut_out(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """A square of an image, uint8 [side, side, 3]; black where it lies outside."""
    out = np.zeros((side, side, 3), np.uint8)
    height, width = image.shape[:2]
    x1, x2 = max(0, left), min(width, left + side)
    y1, y2 = max(0, top), min(height, top + side)
    if x1 < x2 and y1 < y2:
        out[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    return out
