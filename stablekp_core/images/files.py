"""One image file at a time: find it, look at its header, decode it to RGB."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import KeypointError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MIN_SIDE = 16
_EXIF_ORIENTATION = 0x0112

# What Pillow is known to raise on damaged or unsupported files, apart from which nothing may be swallowed.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    OverflowError,
    Image.DecompressionBombError,
)


class BrokenImage(KeypointError):
    """One file that cannot be read as an image; `reason` says why, without the file's name."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name} cannot be read as an image ({reason}); replace the file or take it out.")
        self.name, self.reason = name, reason


class SmallImage(KeypointError):
    """One image with a side under `MIN_SIDE` pixels."""

    def __init__(self, name: str, width: int, height: int):
        super().__init__(
            f"{name} is {width}x{height} pixels, but images need at least {MIN_SIDE} pixels on "
            f"each side; use a larger image or take it out."
        )


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly inside `folder`, in natural order (frame2 before frame10), without hidden ones.

    Raises KeypointError when `folder` is not a folder. The list may be empty.
    """
    return scan_folder(folder)[0]


def load_image(path: str | Path) -> np.ndarray:
    """Read one image as RGB, uint8 [H, W, 3].

    EXIF orientation is applied, transparency is laid over white, palettes and grey become RGB, 16-bit grey is
    scaled to 8 bits, and of an animation or a multi-page file the first image is taken.
    Raises BrokenImage or SmallImage (both KeypointError).
    """
    return _decode(Path(path).name, path)


def decode_image(name: str, data: bytes) -> np.ndarray:
    """An encoded image as RGB, uint8 [H, W, 3]; rules and errors are those of `load_image`."""
    return _decode(name, io.BytesIO(data))


def _decode(name: str, file) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            rgb = pil_to_rgb(ImageOps.exif_transpose(opened))
    except _DECODE_ERRORS as error:
        raise BrokenImage(name, reason_of(error)) from error
    if min(rgb.shape[:2]) < MIN_SIDE:
        raise SmallImage(name, rgb.shape[1], rgb.shape[0])
    return rgb


def pil_to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] of a PIL image, by the rules of `load_image` but for its EXIF orientation."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(np.asarray(image).astype(np.float64), image.mode)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.array(image.convert("RGB"))  # a copy: the caller may write into it


def _deep_grey_to_rgb(grey: np.ndarray, mode: str) -> np.ndarray:
    """Grey of more than 8 bits [H, W] -> uint8 [H, W, 3]; Pillow's own conversion would clip at 255."""
    grey = np.nan_to_num(grey)
    peak = float(grey.max(initial=0.0))
    if mode == "F" and peak <= 1.0:
        scale = 255.0
    elif mode.startswith("I;16") or peak > 255.0:
        scale = 255.0 / 65535.0
    else:
        scale = 1.0
    eight_bit = np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def check_header(path: Path) -> None:
    """Look at the file's header only (no pixel is decoded); raises BrokenImage or SmallImage."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
    except _DECODE_ERRORS as error:
        raise BrokenImage(path.name, reason_of(error)) from error
    if min(width, height) < MIN_SIDE:
        raise SmallImage(path.name, width, height)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) as `load_image` would give them, EXIF orientation applied; only the header is read. Raises
    BrokenImage."""
    try:
        with Image.open(path) as opened:
            (width, height), turn = opened.size, opened.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODE_ERRORS as error:
        raise BrokenImage(Path(path).name, reason_of(error)) from error
    return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def reason_of(error: BaseException) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in any known format"
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def scan_folder(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Image files and stray files of `folder`, both in natural order."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise KeypointError(f"{folder} {what}, but a folder of images is needed; give the folder's path.")
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural)
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    strays = [p for p in files if p.suffix.lower() not in IMAGE_SUFFIXES]
    return images, strays


def _natural(path: Path) -> tuple:
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], path.name


def fingerprint(folder: str | Path) -> str:
    """Hash of the names, sizes and modification times of the images in `folder`."""
    digest = hashlib.sha256()
    for path in list_images(folder):
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
