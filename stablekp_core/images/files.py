"""One image file at a time: find it, check its header, decode it to RGB."""

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

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: Images that are read where Pillow can (with its plug-ins), and those that never are; the latter are named.
_IF_PILLOW_CAN = (".avif", ".heic", ".heif")
_NOT_READ = (*_IF_PILLOW_CAN, ".gif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".raw")
MIN_SIDE = 16
OVERSHOOT = 0.25  # how far beyond 0 to 1 sharp edges of a resampled float image may go
_EXIF_ORIENTATION, _TIFF_BITS = 0x0112, 258

# What Pillow is known to raise on damaged or unsupported files, apart from which nothing may be swallowed.
DECODE_ERRORS = (
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

    EXIF orientation is applied, transparency is laid over white, palettes and grey become RGB, deeper grey is
    scaled to 8 bits by the depth that the file says, and of an animation or a multi-page file the first image is taken.
    Raises BrokenImage or SmallImage (both KeypointError).
    """
    return _decode(Path(path).name, path)


def decode_image(name: str, data: bytes) -> np.ndarray:
    """An encoded image (the content of a file) as RGB, uint8 [H, W, 3]; rules and errors are those of `load_image`."""
    return _decode(name, io.BytesIO(data))


def _decode(name: str, file) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            rgb = pil_to_rgb(ImageOps.exif_transpose(opened))
    except DECODE_ERRORS as error:
        raise BrokenImage(name, reason_of(error)) from error
    if min(rgb.shape[:2]) < MIN_SIDE:
        raise SmallImage(name, rgb.shape[1], rgb.shape[0])
    return rgb


def pil_to_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image as RGB, uint8 [H, W, 3]: the rules of `load_image` without its EXIF orientation."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(np.asarray(image).astype(np.float64), _white_of(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.array(image.convert("RGB"))  # a copy: the caller may write into it


def _white_of(image: Image.Image) -> float:
    """The value of white in a deep grey image, from its depth as the file says: 10, 12, 14 or 16 bits, or float."""
    if image.mode == "F":
        return 1.0
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, (16,))[0]
    if bits in (10, 12, 14):
        return float(2**bits - 1)
    if bits == 32:  # white is hardly ever 2 ** 32; the largest value in the file decides
        peak = image.getextrema()[1]
        return 255.0 if peak <= 255 else 65535.0
    return 65535.0


def _deep_grey_to_rgb(grey: np.ndarray, white: float) -> np.ndarray:
    """Grey of more than 8 bits [H, W] -> uint8 [H, W, 3]; Pillow's own conversion would clip at 255."""
    grey = np.nan_to_num(grey)
    if white == 1.0:
        check_unit_range(grey)
    eight_bit = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def check_unit_range(values: np.ndarray) -> None:
    """Raise KeypointError for float values that are not an image's, 0 to 1 with what resampling may overshoot."""
    finite = values[np.isfinite(values)]
    if finite.size and not (-OVERSHOOT <= finite.min() and finite.max() <= 1 + OVERSHOOT):
        raise KeypointError(
            f"a float image has values from {finite.min():g} to {finite.max():g}; give float from 0 to 1, or uint8 "
            "from 0 to 255."
        )


def check_header(path: Path) -> None:
    """Check a file by its header alone (no pixel is decoded); raises BrokenImage or SmallImage."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
    except DECODE_ERRORS as error:
        raise BrokenImage(path.name, reason_of(error)) from error
    if min(width, height) < MIN_SIDE:
        raise SmallImage(path.name, width, height)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) as `load_image` would give them, EXIF orientation applied; only the header is read. Raises
    BrokenImage."""
    try:
        with Image.open(path) as opened:
            (width, height), turn = opened.size, opened.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODE_ERRORS as error:
        raise BrokenImage(Path(path).name, reason_of(error)) from error
    return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def reason_of(error: BaseException) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in any known format"
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def scan_folder(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The image files and the other files of `folder`, both in natural order, without hidden ones. Raises KeypointError
    when it is not a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise KeypointError(f"{folder} {what}, but a folder of images is needed; give the folder's path.")
    files = sorted(
        (p for p in folder.iterdir() if not p.name.startswith(".") and (p.is_file() or not p.exists())), key=natural_key
    )
    images = [p for p in files if is_image_name(p) and p.exists()]
    return images, [p for p in files if p not in set(images)]


def is_image_name(path: Path) -> bool:
    """Whether a file of this name is an image that can be read here."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix in _IF_PILLOW_CAN and suffix in Image.registered_extensions())


def stray_reason(path: Path) -> str:
    """Why a file of `scan_folder` is not among the images."""
    if not path.exists():
        return "a broken link"
    if path.suffix.lower() in _NOT_READ:
        return "this kind of image is not read; save it as png or jpg"
    return "not an image file"


def no_images(folder: Path, strays: list[Path]) -> KeypointError:
    """The error for a folder without images, with what lies there instead."""
    text = f"{folder} has no images"
    if strays:
        text += f" but {len(strays)} other files, such as {strays[0].name} ({stray_reason(strays[0])})"
    below = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    if below:
        text += f"; images are not looked for in its folders ({', '.join(below[:3])})"
    return KeypointError(f"{text}; put {', '.join(s[1:] for s in IMAGE_SUFFIXES)} files into it.")


def natural_key(path: Path) -> tuple:
    """Sorting key under which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], path.name


def fingerprint(folder: str | Path) -> str:
    """A hash of the names, sizes and modification times of the images in `folder`. Raises KeypointError when it is not
    a folder."""
    digest = hashlib.sha256()
    for path in list_images(folder):
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
