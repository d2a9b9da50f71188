"""Masks that a user gives for images: what lies outside does not count, in training or in detection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..errors import KeypointError
from .files import list_images, load_image

#: Name of an image -> its mask: bool, uint8 or float in [0, 1], [H, W]; any size, it is stretched over the image.
Masks = Callable[[str], np.ndarray]


def folder_masks(folder: str | Path, images: Iterable[str] = ()) -> Masks:
    """Masks from image files, white where the object is, named like the images (the suffix may differ).

    Raises KeypointError for a folder without images, for two masks of one name, and for an image without a mask: at
    once for those named in `images`, later when asked for its mask.
    """
    folder, files = Path(folder), {}
    for path in list_images(folder):
        if path.stem in files:
            raise KeypointError(f"{folder} has two masks named {path.stem}; leave one.")
        files[path.stem] = path
    if not files:
        raise KeypointError(f"{folder} has no masks; put an image there for each image, white where the object is.")

    def file_of(name: str) -> Path:
        path = files.get(Path(name).stem)
        if path is None:
            raise KeypointError(f"{folder} has no mask for {name}; add {Path(name).stem}.png, or leave masks out.")
        return path

    for name in images:
        file_of(name)
    return lambda name: load_image(file_of(name)).mean(-1).round().astype(np.uint8)
