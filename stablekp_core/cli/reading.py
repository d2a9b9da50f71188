"""Opening what a command is given: images in folders and files, keypoints and the images they were found on."""

from __future__ import annotations

import argparse
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import KeypointError
from ..images.files import BrokenImage, list_images, load_image, natural_key
from ..images.image_set import ImageSet, load_files, load_folder
from ..keypoints.keypoints import Keypoints
from ..keypoints.names import match_names
from ..keypoints.sizes import fit_to_image

_log = logging.getLogger(__name__)


def skipped(name: str, reason: str) -> None:
    """Say that an image is left out."""
    _log.warning("skipped %s: %s", name, reason)


def open_images(paths: Sequence[Path]) -> ImageSet:
    """The images of folders and files, one after the other; images of one name in several folders are named with their
    folders. Files in the order in which a shell lists them (frame1, frame10, frame2) are put into natural order."""
    if len(paths) == 1 and paths[0].is_dir():
        return load_folder(paths[0], on_skip=skipped)
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    if not any(path.is_dir() for path in paths) and len({file.parent for file in files}) == 1:
        natural = sorted(files, key=natural_key)
        if files != natural and files == sorted(files):
            _log.warning(
                "The files came in alphabetical order; they are taken in natural order, frame2 before frame10."
            )
            files = natural
    names = None
    if max(Counter(file.name for file in files).values(), default=0) > 1:
        common = Path(os.path.commonpath([file.resolve().parent for file in files]))
        names = [file.resolve().relative_to(common).as_posix() for file in files]
        twice, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise KeypointError(f"{twice} was given {count} times; give each image once.")
    return load_files(files, on_skip=skipped, names=names)


def natural_notice(found: Keypoints) -> None:
    """Say it when the images of keypoints that are taken for frames stand in alphabetical order."""
    names = [name for name, _ in found.image_list() if name]
    if len(set(names)) == len(names) and names == sorted(names) != sorted(names, key=lambda n: natural_key(Path(n))):
        _log.warning(
            "The frames stand in alphabetical order (%s); time is taken to go so. Detect on the folder, or on files in "
            "their natural order, for frame2 to come before frame10.",
            ", ".join(names[:3]),
        )


def load_keypoints(args: argparse.Namespace) -> Keypoints:
    """The file and category that `arguments.add_keypoints` asks for."""
    return Keypoints.load(args.keypoints, args.category)


def image_files(folder: Path, found: Keypoints, source: Path) -> dict[str, Path]:
    """The file in `folder` of each image name of the keypoints; raises KeypointError for one that is not there.

    source: where the keypoints come from, for the message."""
    names = list(dict.fromkeys(found.images))
    files = {name: folder / name for name in names if name and (folder / name).is_file()}
    if len(files) < len(names) and folder.is_dir():
        listed = {path.name: path for path in list_images(folder)}
        rest = [name for name in names if name not in files]
        files |= {name: listed[ours] for name, ours in match_names(listed, rest, "keypoints").items()}
    missing = [name for name in names if name not in files]
    if missing:
        raise KeypointError(
            f"{folder / missing[0]} is named by {source.name} but is not there; give the folder the keypoints were "
            "found on."
        )
    return {name: files[name] for name in names}


def images_with_keypoints(files: dict[str, Path], found: Keypoints) -> Iterator[tuple[str, np.ndarray, Keypoints]]:
    """Each image with its rows, scaled where the image is a copy of another size. Broken images are named and left
    out; raises KeypointError when all are broken, and for images of another shape."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(found.images):
        rows.setdefault(name, []).append(row)
    read = 0
    for name, file in files.items():
        try:
            image = load_image(file)
        except BrokenImage as error:
            skipped(name, error.reason)
            continue
        read += 1
        yield name, image, fit_to_image(found.rows(rows[name]), (image.shape[1], image.shape[0]))
    if not read:
        raise KeypointError("None of the images can be read; give the folder the keypoints were found on.")
