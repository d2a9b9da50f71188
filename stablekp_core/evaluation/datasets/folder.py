"""Your own labelled images: folders of images, each with one COCO keypoint JSON file.

`ROOT/train` and `ROOT/test`, and `ROOT/regression` where the linear map is to be fitted on other images
than the tokens are learned on. A single folder without these is divided: every fifth labelled image is for
test. Images may lie in sub-folders that the labels name, as Label Studio's `images/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import KeypointError
from ...images.files import BrokenImage, image_size, list_images
from ...keypoints.keypoints import Keypoints
from ...keypoints.names import match_names, path_parts
from ...keypoints.sizes import scale_to_image
from .common import Dataset, FileSplit, roles_of
from .sources import file_stamp, missing, require

WHERE = "your own images"
METRICS = ("mean_l2_percent", "visible_mean_image", "pck_5_percent", "pck_10_percent")
_EVERY = 5


def open_folder(root: Path, seed: int = 0, reference: bool = False, category: str | None = None) -> Dataset:
    """Images and labels under `root`; training images need no labels. category: which to read of label files with
    several. Raises KeypointError when the splits are labelled with different points."""
    if (root / "train").is_dir() or (root / "test").is_dir():
        source = root / "regression" if (root / "regression").is_dir() else root / "train"
        fit, test = (_labelled(require(folder, WHERE), category) for folder in (source, root / "test"))
        train = FileSplit(_images(require(root / "train", WHERE)), WHERE)
    else:
        whole = _Labelled(root, category)
        fit = whole.split([i for i in range(len(whole.files)) if i % _EVERY != _EVERY - 1])
        test = whole.split([i for i in range(len(whole.files)) if i % _EVERY == _EVERY - 1])
        held_out, rest = set(test.paths), dict.fromkeys([*_images(root), *fit.paths])
        paths = [path for path in rest if path not in held_out]
        train = FileSplit(paths, WHERE, names=[path.relative_to(root).as_posix() for path in paths])
    if fit.landmark_names != test.landmark_names:
        raise KeypointError(
            f"the images of {root} are labelled with {', '.join(fit.landmark_names)} for fitting and "
            f"{', '.join(test.landmark_names)} for test; label the same points."
        )
    if not len(test):
        raise KeypointError(f"{root} has too few labelled images to keep some for test; label at least {_EVERY}.")
    roles = roles_of(test.landmark_names)
    return Dataset("folder", train, fit, test, keypoints=10, metrics=METRICS, where=WHERE, roles=roles)


def _images(folder: Path) -> list[Path]:
    """The images of a folder, or of its sub-folder `images` where it has none itself."""
    return list_images(folder) or (list_images(folder / "images") if (folder / "images").is_dir() else [])


class _LabelledSplit(FileSplit):
    """Images with labels in pixels of the size that the label file gives."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], labels: Keypoints, dropped: dict[str, int]):
        super().__init__(files, WHERE, names=names, labels=self._on_image, dropped=dropped)
        self.xy, self.sizes = labels.xy.astype(np.float64), labels.sizes
        self.seen, self.landmark_names = labels.confidence > 0, labels.names

    def _on_image(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        factors = scale_to_image(self.sizes[i].tolist(), (width, height), f"the labels of {self.names[i]}")
        return self.xy[i] * factors, self.seen[i]

    def stamp(self, i: int) -> str:
        labels = self.xy[i].tobytes() + self.sizes[i].tobytes() + self.seen[i].tobytes()
        return f"{file_stamp(self.paths[i])} {labels.hex()}"


def _labelled(folder: Path, category: str | None) -> _LabelledSplit:
    whole = _Labelled(folder, category)
    return whole.split(range(len(whole.files)))


class _Labelled:
    """The images of a folder that its label file has exactly one figure in."""

    def __init__(self, folder: Path, category: str | None):
        files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if len(files) != 1:
            raise KeypointError(
                f"{folder} has {len(files)} .json files, but exactly one, COCO keypoints of its images, is needed."
            )
        labels = Keypoints.load(files[0], category)
        labels = labels.rows(np.flatnonzero((labels.confidence > 0).any(1)))  # a figure without points is none
        entries = set(zip(labels.images, labels.image_index.tolist(), strict=True))
        twice = Counter(name for name, _ in entries)
        if twice and max(twice.values()) > 1:
            raise KeypointError(
                f"{files[0]} lists {max(twice.values())} images named {max(twice, key=twice.get)}; name the images "
                "with their folders."
            )
        counts = Counter(labels.images)
        self.labels = labels.rows([row for row, name in enumerate(labels.images) if counts[name] == 1])
        self.files = _files_of(folder, self.labels.images)
        self.folder, self.dropped = folder, {"several figures labelled": sum(count > 1 for count in counts.values())}
        for file, size in zip(self.files, self.labels.sizes.tolist(), strict=True):
            try:
                actual = image_size(file)
            except BrokenImage:
                continue  # kept, so that the run meets it and reports it
            scale_to_image(size, actual, f"the labels of {file.name} in {files[0].name}")

    def split(self, rows: Sequence[int]) -> _LabelledSplit:
        files = [self.files[r] for r in rows]
        names = [file.relative_to(self.folder).as_posix() for file in files]
        return _LabelledSplit(files, names, self.labels.rows(list(rows)), self.dropped)


def _files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """The image file of each name: at its very path, else in the folder itself, else in a folder below it."""
    found: dict[str, Path] = {}
    for name in names:
        parts = path_parts(name)
        if ".." not in parts and folder.joinpath(*reversed(parts)).is_file():
            found[name] = folder.joinpath(*reversed(parts))
    for deep in (False, True):
        rest = [name for name in names if name not in found]
        if rest:
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()] if deep else list_images(folder)
            files = {path.relative_to(folder).as_posix(): path for path in paths if path.suffix != ".json"}
            found |= {name: files[ours] for name, ours in match_names(files, rest).items()}
    lost = [name for name in names if name not in found]
    if lost:
        raise missing(folder / lost[0], WHERE)
    return [found[name] for name in names]
