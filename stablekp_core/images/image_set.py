"""Sets of images, from folders, files or memory, read one at a time as RGB.

Nothing here holds more than one decoded image, so memory does not grow with the number of images.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import KeypointError
from .files import (
    IMAGE_SUFFIXES,
    MIN_SIDE,
    BrokenImage,
    SmallImage,
    check_header,
    check_unit_range,
    image_size,
    load_image,
    no_images,
    pil_to_rgb,
    scan_folder,
    stray_reason,
)

SkipCallback = Callable[[str, str], None]


class ImageSet:
    """Named images that are decoded one at a time, when they are used, and never kept.

    `len(s)`, `s.names`; iteration yields `(name, uint8 [H, W, 3] RGB)`; `s[i]` is the array of image i.
    Iteration leaves out a file that turns out to be broken and records it in `skipped`, a list of (name,
    reason); `s[i]` raises BrokenImage for it. A full iteration that finds fewer than `minimum` readable
    images ends in a KeypointError, because the check of a header cannot find damage further inside a file.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        names: Sequence[str],
        *,
        minimum: int = 1,
        skipped: Iterable[tuple[str, str]] = (),
        on_skip: SkipCallback | None = None,
    ):
        self._sources = list(sources)
        self.names = tuple(names)
        self.skipped: list[tuple[str, str]] = list(skipped)
        self.minimum = minimum
        self._on_skip = on_skip
        self._broken: set[int] = set()
        if len(self.names) != len(self._sources):
            raise KeypointError(
                f"{len(self.names)} names were given for {len(self._sources)} images; give one name for each image."
            )
        self._check_count(len(self._sources))

    @classmethod
    def from_arrays(cls, images: Sequence[Any], names: Sequence[str] | None = None, *, minimum: int = 1) -> ImageSet:
        """Images already in memory: a list of [H, W, C] arrays or tensors, or one batch [B, H, W, C].

        C is 1, 3 or 4 (alpha over white); uint8 in 0..255 or float in [0, 1]. Each is converted when it is
        used. Raises KeypointError for other shapes (a mask, a latent) and for images under `MIN_SIDE`
        pixels.
        """
        if hasattr(images, "ndim") and images.ndim == 3:
            images = [images]
        images = list(images)
        for index, image in enumerate(images):
            _check_array(image, f"image {index}")
        if names is None:
            names = [f"image_{index:05d}" for index in range(len(images))]
        return cls(images, names, minimum=minimum)

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> np.ndarray:
        source = self._sources[index]
        return load_image(source) if isinstance(source, Path) else _array_to_rgb(source)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        read = 0
        for index, name in enumerate(self.names):
            if index in self._broken:
                continue
            try:
                image = self[index]
            except BrokenImage as error:
                self._broken.add(index)
                self._skip(name, error.reason)
                continue
            read += 1
            yield name, image
        self._check_count(read)

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """(width, height) of up to `most` of the images, evenly spread over the set; of files only the header is read.
        Those that cannot be read are passed over."""
        out = []
        for index in range(0, len(self), max(1, len(self) // most))[:most]:
            source = self._sources[index]
            with suppress(BrokenImage):
                out.append(image_size(source) if isinstance(source, Path) else self[index].shape[1::-1])
        return out

    def pick(self, indices: Sequence[int]) -> ImageSet:
        """Some of the images; what they leave out is recorded here too."""
        where = {self.names[i]: i for i in indices}
        return ImageSet(
            [self._sources[i] for i in indices],
            [self.names[i] for i in indices],
            on_skip=lambda name, reason: self.skip(where[name], reason),
        )

    def skip(self, index: int, reason: str) -> None:
        """Leave image `index` out of later iterations and record why, for callers that read by index."""
        self._broken.add(index)
        self._skip(self.names[index], reason)

    def _skip(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason))
        if self._on_skip is not None:
            self._on_skip(name, reason)

    def _check_count(self, count: int) -> None:
        if count < self.minimum:
            dropped = f" ({len(self.skipped)} skipped, the first: {self.skipped[0][0]})" if self.skipped else ""
            raise KeypointError(
                f"{count} readable image{'' if count == 1 else 's'} found{dropped}, but at "
                f"least {self.minimum} {'is' if self.minimum == 1 else 'are'} needed; add "
                f"images ({', '.join(s[1:] for s in IMAGE_SUFFIXES)})."
            )


def load_folder(
    folder: str | Path,
    limit: int | None = None,
    seed: int | None = None,
    *,
    minimum: int = 1,
    on_skip: SkipCallback | None = None,
) -> ImageSet:
    """The images of a folder as an ImageSet of at most `limit`, in natural order or shuffled by `seed`.

    Only headers are read. Files that are no images are skipped and reported (`on_skip(name, reason)`). Raises
    KeypointError for a missing or empty folder, an image with a side under 16 pixels, and fewer than `minimum` images.
    """
    images, strays = scan_folder(folder)
    if not images:
        raise no_images(Path(folder), strays)
    if seed is not None:
        random.Random(seed).shuffle(images)
    return load_files(images, limit, minimum=minimum, on_skip=on_skip, strays=strays)


def load_files(
    paths: Iterable[str | Path],
    limit: int | None = None,
    *,
    minimum: int = 1,
    on_skip: SkipCallback | None = None,
    strays: Sequence[Path] = (),
    names: Sequence[str] | None = None,
) -> ImageSet:
    """Image files as an ImageSet of at most `limit`, in the given order; checks and errors as `load_folder`.

    names: of the images, instead of those of the files. strays: files to report as skipped.
    """
    if limit is not None and limit < 1:
        raise KeypointError(f"limit is {limit}, but it must be at least 1; leave it out to take every image.")
    kept: list[Path] = []
    called: list[str] = []
    skipped = [(path.name, stray_reason(path)) for path in strays]
    paths = [Path(path) for path in paths]
    for path, name in zip(paths, names or [path.name for path in paths], strict=True):
        if limit is not None and len(kept) == limit:
            break
        try:
            check_header(path)
        except BrokenImage as error:
            skipped.append((name, error.reason))
        else:
            kept.append(path)
            called.append(name)
    if on_skip is not None:
        for name, reason in skipped:
            on_skip(name, reason)
    return ImageSet(kept, called, minimum=minimum, skipped=skipped, on_skip=on_skip)


def as_image_set(images: Any) -> ImageSet:
    """The ImageSet of images of any kind.

    images: an ImageSet; the path of a folder or of an image file; one PIL image; one array or tensor [H, W, C] or a
    batch [B, H, W, C] (uint8 in 0..255 or float in [0, 1], C = 1, 3 or 4); (name, array) pairs; or an iterable of any
    of these but folders. Files are read when they are needed. Raises KeypointError for anything else.
    """
    if isinstance(images, ImageSet):
        return images
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        return load_files([path]) if path.is_file() else load_folder(path)
    if isinstance(images, Image.Image) or getattr(images, "ndim", 0) == 3:
        images = [images]
    try:
        items = list(images)
    except TypeError:
        raise KeypointError(
            f"{type(images).__name__} is not an image; give a path, a PIL image, an array [height, width, 3], a list "
            "of these, or a folder."
        ) from None
    if not items:
        raise KeypointError("no image was given; give at least one.")
    sources, names = zip(*(_source(item, number) for number, item in enumerate(items)), strict=True)
    return ImageSet(sources, names)


def _source(item: Any, number: int) -> tuple[Any, str]:
    """What an ImageSet holds of one image, and its name."""
    name = f"image_{number:05d}"
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        name, item = item
    if isinstance(item, (str, Path)):
        path = Path(item).expanduser()
        if not path.is_file():
            raise KeypointError(f"{path} is not an image file; give the path of one, or of a folder on its own.")
        return path, path.name
    if isinstance(item, Image.Image):
        item = pil_to_rgb(item)
    _check_array(item, name)
    return item, name


def _check_array(image: Any, name: str) -> None:
    shape = tuple(getattr(image, "shape", ()))
    if len(shape) != 3 or shape[2] not in (1, 3, 4):
        raise KeypointError(
            f"{name} has shape {list(shape)}, but an image is [height, width, 3]; a mask or "
            f"a latent cannot be used here, connect an image."
        )
    if min(shape[:2]) < MIN_SIDE:
        raise SmallImage(name, shape[1], shape[0])


def _array_to_rgb(image: Any) -> np.ndarray:
    """[H, W, 1 | 3 | 4] uint8, or float in [0, 1], numpy or torch -> uint8 [H, W, 3]."""
    if hasattr(image, "detach"):
        image = image.detach().float().cpu().numpy() if image.is_floating_point() else image.cpu().numpy()
    array = np.asarray(image)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        raise KeypointError(f"An image has type {array.dtype}; give uint8 from 0 to 255, or float from 0 to 1.")
    if array.dtype != np.uint8:
        check_unit_range(array)
        # Non-finite values come out of a failed VAE decode; black is what every viewer shows for them.
        unit = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0.0, 1.0)
        array = np.rint(unit * 255.0).astype(np.uint8)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.float32) / 255.0
        return np.rint(array[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.array(array)
