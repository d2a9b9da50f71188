"""What every data set of the paper's protocols is made of: splits of labelled images that are read one at a
time.

Frame: landmarks are pixels (x, y) of the very image that comes with them, after any crop or flip of the
protocol.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import KeypointError
from ...images.image_set import ImageSet
from ..metrics import NO_ROLES, Roles
from .sources import file_stamp, read_image


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its labels. image: uint8 [H, W, 3] RGB. landmarks: float64 [L, 2] pixels of `image`.
    visible: bool [L]. extras: further labels of the source (a box in pixels of the source image, a class
    number)."""

    image: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray
    extras: Mapping[str, Any] = field(default_factory=dict)


class Split:
    """A lazy sequence of images; sub-classes say how number i is read.

    `len(s)`, `s.names`; `s.sample(i)` reads image i with its labels, `s.image(i)`, `s.landmarks(i)` and
    `s.visible(i)` are its parts. `labelled` is False where only images are promised (landmarks are then [0,
    2]). `dropped` counts what the protocol's own filters left out, by reason. Reading raises BrokenImage for
    a damaged image, which a run skips, and KeypointError for a missing one.
    """

    labelled = True

    def __init__(self, names: Sequence[str], dropped: Mapping[str, int] | None = None):
        self.names = tuple(names)
        self.dropped = {reason: count for reason, count in (dropped or {}).items() if count}

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, i: int) -> Sample:
        """Image i with its labels."""
        raise NotImplementedError

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks float64 [L, 2] in pixels (x, y) and visibility bool [L] of image i of `width` x `height` pixels,
        where possible without reading the image."""
        sample = self.sample(i)
        return sample.landmarks, sample.visible

    def image(self, i: int) -> np.ndarray:
        """Image i: uint8 RGB [H, W, 3]."""
        return self.sample(i).image

    def landmarks(self, i: int) -> np.ndarray:
        """The landmarks of image i: float64 [L, 2], pixels (x, y)."""
        return self.sample(i).landmarks

    def visible(self, i: int) -> np.ndarray:
        """Whether each landmark of image i is visible: bool [L]."""
        return self.sample(i).visible

    def stamp(self, i: int) -> str:
        """Text that changes when image i or its labels change."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Hash of names and stamps: equal for the same images in the same order."""
        digest = hashlib.sha256()
        for i, name in enumerate(self.names):
            digest.update(f"{name}\0{self.stamp(i)}\0".encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def limited(self, limit: int | None) -> Split:
        """At most `limit` images, spread evenly over the split, because most data sets are sorted by class
        or person. Raises KeypointError for a limit under 1."""
        if limit is not None and limit < 1:
            raise KeypointError(f"limit is {limit}, but it must be at least 1; leave it out to take every image.")
        if limit is None or limit >= len(self):
            return self
        return _Part(self, [i * len(self) // limit for i in range(limit)])

    def images(self) -> ImageSet:
        """The images alone, for training."""
        return _SplitImages(self)


class _Part(Split):
    """Some images of another split."""

    def __init__(self, whole: Split, indices: Sequence[int]):
        super().__init__([whole.names[i] for i in indices], whole.dropped)
        self.whole, self.indices, self.labelled = whole, tuple(indices), whole.labelled

    def sample(self, i: int) -> Sample:
        return self.whole.sample(self.indices[i])

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        return self.whole.labels(self.indices[i], width, height)

    def stamp(self, i: int) -> str:
        return self.whole.stamp(self.indices[i])


class _SplitImages(ImageSet):
    def __init__(self, split: Split):
        self._split = split
        super().__init__(range(len(split)), split.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._split.image(index)


class FileSplit(Split):
    """Images in files, with labels that fit in memory; `labels(i, width, height)` gives landmarks and
    visibility."""

    def __init__(
        self,
        paths: Sequence[Path],
        where: str,
        names: Sequence[str] | None = None,
        labels=None,
        dropped: Mapping[str, int] | None = None,
    ):
        super().__init__([p.name for p in paths] if names is None else names, dropped)
        self.paths, self.where, self._labels, self.labelled = list(paths), where, labels, labels is not None

    def sample(self, i: int) -> Sample:
        """Image i with its landmarks; KeypointError when the file cannot be read."""
        image = read_image(self.paths[i], self.where)
        return Sample(image, *self.labels(i, image.shape[1], image.shape[0]))

    def labels(self, i: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks float64 [L, 2] in pixels (x, y) and visibility bool [L] of image i of `width` x `height` pixels."""
        if self._labels is None:
            return np.zeros((0, 2)), np.zeros(0, bool)
        landmarks, visible = self._labels(i, width, height)
        return np.asarray(landmarks, np.float64), np.asarray(visible, bool)

    def stamp(self, i: int) -> str:
        """Text that changes when the file or the labels of image i change."""
        landmarks, visible = self.labels(i, 1, 1)
        return f"{file_stamp(self.paths[i])} {landmarks.tobytes().hex()} {visible.tobytes().hex()}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set under the paper's protocol.

    train: images the tokens are learned on; regression: labelled images the linear map is fitted on;
    test: those the metrics are taken on. keypoints: the paper's K; steps: the paper's training steps;
    metrics: names in `metrics.METRICS`, the paper's own first. roles: which landmarks are left/right pairs
    and eyes, where known. paper: what the paper reports, by (metric, K).
    """

    name: str
    train: Split
    regression: Split
    test: Split
    keypoints: int
    metrics: tuple[str, ...]
    where: str
    steps: int = 500
    roles: Roles = NO_ROLES
    paper: Mapping[tuple[str, int], float] = field(default_factory=dict)


def roles_of(names: Sequence[str]) -> Roles:
    """Left/right pairs and eyes by the names of the landmarks, such as "left_eye" and "right_eye"."""
    plain = [re.sub(r"[\W_]+", " ", name.lower()).strip() for name in names]
    index = {name: i for i, name in enumerate(plain)}
    other = {"left": "right", "right": "left"}
    mirrored = [re.sub("left|right", lambda m: other[m[0]], name) for name in plain]
    swap = tuple(index.get(name, i) for i, name in enumerate(mirrored))
    known = len(index) == len(plain) and any(other_side != i for i, other_side in enumerate(swap))
    eyes = tuple(index[name] for name in ("left eye", "right eye") if name in index)
    return Roles(swap if known else (), eyes if len(eyes) == 2 else ())
