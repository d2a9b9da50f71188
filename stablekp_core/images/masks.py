"""Masks that a user gives for images: attention outside a mask is ignored in training and in detection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import KeypointError
from ..keypoints.names import match_names
from .files import DECODE_ERRORS, BrokenImage, is_image_name, natural_key, pil_to_rgb, reason_of, scan_folder

#: Name of an image -> its mask: bool, uint8 or float in [0, 1], [H, W], of the image's size or a copy's of its shape.
Masks = Callable[[str], np.ndarray]


def checked_masks(masks: Masks | None) -> Masks | None:
    """`masks` as given; raises KeypointError for what is neither None nor a function of an image's name."""
    if masks is not None and not callable(masks):
        raise KeypointError(
            f"masks is a {type(masks).__name__}, but a function from an image's name to its mask is needed; use "
            "folder_masks for a folder of them."
        )
    return masks


def mask_of(masks: Masks | None, name: str) -> np.ndarray | None:
    """The mask of the image `name`, None where no masks were given at all; raises KeypointError where it lacks one."""
    if masks is None:
        return None
    mask = masks(name)
    if mask is None:
        raise KeypointError(f"there is no mask for {name}; give one for each image, white where everything counts.")
    return mask


def folder_masks(folder: str | Path, images: Iterable[str] = ()) -> Masks:
    """The masks in a folder of image files, white where the object is, named like the images (the suffix may differ;
    see `match_names`).

    Raises KeypointError for a folder without images, for two masks of one name, and for an image without a mask: at
    once for those named in `images`, later when asked for its mask.
    """
    folder = Path(folder)
    scan_folder(folder)  # raises when it is none
    files, stems = {}, set()
    for path in sorted(folder.rglob("*"), key=lambda p: (p.parent, natural_key(p))):
        if is_image_name(path) and path.is_file() and not path.name.startswith("."):
            if path.with_suffix("") in stems:
                raise KeypointError(f"{folder} has two masks named {path.stem}; leave one.")
            stems.add(path.with_suffix(""))
            files[path.relative_to(folder).as_posix()] = path
    if not files:
        raise KeypointError(f"{folder} has no masks; put an image there for each image, white where the object is.")
    known = match_names(files, images, "images")

    def file_of(name: str) -> Path:
        mask = known.get(name) or match_names(files, [name], "images").get(name)
        if mask is None:
            raise KeypointError(f"{folder} has no mask for {name}; add {Path(name).stem}.png, or leave masks out.")
        return files[mask]

    for name in images:
        file_of(name)
    return lambda name: load_mask(file_of(name))


def load_mask(path: str | Path) -> np.ndarray:
    """Read a mask file in any common form: uint8 [H, W], 255 where the object is.

    Where the file is partly transparent its opacity is the mask (a cut-out). A coloured palette counts as white where
    it is not black, and values of 0 and 1 as black and white. Raises BrokenImage.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                opacity = np.asarray(image.convert("RGBA"))[..., 3]
                if opacity.min() < 255:
                    return opacity.copy()
            palette, rgb = image.mode == "P", pil_to_rgb(image)
    except DECODE_ERRORS as error:
        raise BrokenImage(path.name, reason_of(error)) from error
    if palette and (rgb != rgb[..., :1]).any():  # numbers of classes: black is the background
        return np.where(rgb.any(-1), 255, 0).astype(np.uint8)
    grey = rgb.mean(-1).round().astype(np.uint8)
    return grey * np.uint8(255) if grey.max(initial=0) == 1 else grey
