"""CelebA with the MAFL lists: 19000 training and 1000 test faces, five landmarks, the eyes first.

Aligned: the cropped images. Wild: the originals whose face box covers at least 30 % of the image (5379
and 283).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import KeypointError
from ..metrics import Roles
from .common import Dataset, FileSplit
from .sources import read_lines, require

WHERE = (
    "CelebA (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; the MAFL lists: "
    "https://github.com/zhzhanp/TCDCN-face-alignment)"
)
MIN_BOX = 0.3  # share of the image that the face box must cover
_PAPER = {True: {("inter_ocular", 10): 3.60}, False: {("inter_ocular", 4): 5.24, ("inter_ocular", 8): 4.35}}


def open_celeba(root: Path, seed: int = 0, reference: bool = False, aligned: bool = True) -> Dataset:
    """`Anno/`, `Img/` and `MAFL/` under `root`."""
    table = root / "Anno" / ("list_landmarks_align_celeba.txt" if aligned else "list_landmarks_celeba.txt")
    landmarks = _table(table, 10)
    boxes = None if aligned else _table(root / "Anno" / "list_bbox_celeba.txt", 4)
    train = _split(root, "training", aligned, landmarks, boxes)
    test = _split(root, "testing", aligned, landmarks, boxes)
    return Dataset(
        "celeba_aligned" if aligned else "celeba_wild",
        train,
        train,
        test,
        keypoints=10 if aligned else 8,
        metrics=("inter_ocular",),
        where=WHERE,
        steps=10_000,
        roles=Roles(swap=(1, 0, 2, 4, 3), eyes=(0, 1)),
        paper=_PAPER[aligned],
    )


def _table(path: Path, columns: int) -> dict[int, list[float]]:
    """Image number -> numbers of its row; the count and the header line are skipped."""
    rows = {}
    for line in read_lines(path, WHERE)[2:]:
        name, *values = line.split()
        try:
            rows[_number(name)] = [float(v) for v in values]
        except ValueError as error:
            raise KeypointError(
                f"{path} has a row that is not numbers ({line.strip()[:60]!r}); download it again."
            ) from error
        if len(values) != columns:
            raise KeypointError(
                f"{path} has a row of {len(values)} numbers where {columns} are expected; download it again."
            )
    return rows


def _number(name: str) -> int:
    return int(name.split(".")[0])


def _split(root: Path, which: str, aligned: bool, landmarks: dict, boxes: dict | None) -> FileSplit:
    folder, suffix = ("img_align_celeba_png", ".png") if aligned else ("img_celeba", ".jpg")
    numbers = [_number(line.strip()) for line in read_lines(root / "MAFL" / f"{which}.txt", WHERE)]
    unknown = [n for n in numbers if n not in landmarks or (boxes is not None and n not in boxes)]
    if unknown:
        raise KeypointError(
            f"image {unknown[0]:06d} of MAFL/{which}.txt has no row in the lists under Anno; they come with {WHERE}."
        )
    paths = {n: root / "Img" / folder / f"{n:06d}{suffix}" for n in numbers}
    kept = numbers if boxes is None else [n for n in numbers if _large(paths[n], boxes[n])]
    points = [np.array(landmarks[n]).reshape(5, 2) for n in kept]
    return FileSplit(
        [paths[n] for n in kept],
        WHERE,
        labels=lambda i, width, height: (points[i], np.ones(5, bool)),
        dropped={"face box under 30 % of the image": len(numbers) - len(kept)},
    )


def _large(path: Path, box: list[float]) -> bool:
    """Whether the box (x, y, width, height) covers at least 30 % of the image; only the header is read."""
    try:
        with Image.open(require(path, WHERE)) as image:
            width, height = image.size
    except (OSError, SyntaxError):
        return True  # damaged: kept, so that the run meets it and reports it
    return box[2] * box[3] >= MIN_BOX * width * height
