"""The data sets of the paper's protocols, by name; each is opened from its files as they come.

    from stablekp_core.evaluation.datasets import open_dataset
    birds = open_dataset("cub_001", "/data/cub")
    birds.test.image(0), birds.test.landmarks(0)         # uint8 [H, W, 3], [15, 2] pixels of that image

Opening reads label files only; images are read one at a time. scipy and h5py are imported when a data
set needs them. This module itself imports nothing heavy: the command line lists its names.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import KeypointError

if TYPE_CHECKING:
    from .common import Dataset

__all__ = ["BUILT_IN", "DATASETS", "open_dataset"]

#: name -> module, function and fixed arguments
DATASETS: dict[str, tuple[str, str, dict]] = {
    "celeba_aligned": ("celeba", "open_celeba", {"aligned": True}),
    "celeba_wild": ("celeba", "open_celeba", {"aligned": False}),
    "cub_aligned": ("cub", "open_aligned", {}),
    "cub_001": ("cub", "open_parts", {"class_id": 1}),
    "cub_002": ("cub", "open_parts", {"class_id": 2}),
    "cub_003": ("cub", "open_parts", {"class_id": 3}),
    "cub_all": ("cub", "open_parts", {"class_id": None}),
    "taichi": ("taichi", "open_taichi", {}),
    "deepfashion": ("deepfashion", "open_deepfashion", {}),
    "human36m": ("human36m", "open_human36m", {}),
    "human36m_unaligned": ("human36m_unaligned", "open_unaligned", {}),
    "dolls": ("generated", "open_generated", {"kind": "dolls"}),
    "faces": ("generated", "open_generated", {"kind": "faces"}),
    "folder": ("folder", "open_folder", {}),
}
BUILT_IN = ("dolls", "faces")


def open_dataset(
    name: str,
    root: str | Path | None = None,
    seed: int = 0,
    *,
    reference: bool = False,
    category: str | None = None,
) -> Dataset:
    """The data set `name` with its files under `root` (not needed for the built-in ones).

    seed: of the crops and jitters that are part of some protocols. reference: do as the authors' code does where
    that is known to differ (the half pixel of CUB, the actions of Human3.6M). category: of labels of several kinds,
    for `folder`. Raises KeypointError for an unknown name, and for a missing file, naming it and where it comes from.
    """
    if name not in DATASETS:
        raise KeypointError(f"There is no data set {name!r}; the data sets are {', '.join(DATASETS)}.")
    if root is None and name not in BUILT_IN:
        raise KeypointError(f"The data set {name} needs the folder its files are in; give it with --root.")
    folder = Path(root) if root is not None else Path()
    if name not in BUILT_IN and not folder.is_dir():
        raise KeypointError(f"{folder} is not a folder; give the folder that holds the files of {name}.")
    if category is not None and name != "folder":
        raise KeypointError(f"The labels of {name} are of one kind; a category can be chosen for folder only.")
    module, function, fixed = DATASETS[name]
    given = {"seed": seed, "reference": reference, **({"category": category} if name == "folder" else {}), **fixed}
    return getattr(importlib.import_module(f".{module}", __name__), function)(folder, **given)
