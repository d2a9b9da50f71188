"""Files of data sets: found or named as missing, read, and stamped so that a changed file is noticed."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import KeypointError
from ...images.files import load_image
from ..mat_file import without_fields


def missing(path: Path, where: str) -> KeypointError:
    """The error for a file that is not there, with the place it comes from."""
    return KeypointError(f"{path} is missing; it comes with {where}.")


def require(path: Path, where: str) -> Path:
    """`path` if it exists; raises `missing` otherwise."""
    if not path.exists():
        raise missing(path, where)
    return path


def read_image(path: Path, where: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB; raises KeypointError when the file is missing, BrokenImage when it is damaged."""
    return load_image(require(path, where))


def read_lines(path: Path, where: str) -> list[str]:
    """The lines of a text file that are not empty."""
    text = require(path, where).read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def read_mat(path: Path, where: str, unwanted: Collection[str] = (), **options) -> dict[str, Any]:
    """The variables of a MATLAB file; fields of structures named in `unwanted` are passed over and cost no memory.

    Raises KeypointError when it is missing or damaged."""
    loadmat = optional_module("scipy.io", path.name).loadmat
    problem = optional_module("scipy.io.matlab", path.name).MatReadError
    try:
        require(path, where)
        return loadmat(without_fields(path, unwanted) if unwanted else path, **options)
    except (problem, zlib.error, OSError, TypeError, ValueError, NotImplementedError, IndexError) as error:
        if isinstance(error, KeypointError):
            raise
        raise KeypointError(
            f"{path} is not a MATLAB file that scipy can read ({error}); it comes with {where}."
        ) from error


def file_stamp(path: Path) -> str:
    """Size and time of the last change; "absent" when there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def optional_module(name: str, what: str):
    """The module `name` (scipy or h5py); KeypointError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise KeypointError(
            f"{what} needs {name.split('.')[0]}, which is not installed; install it with: pip install "
            '"stable-keypoints[eval]".'
        ) from error


def seeded(*parts: Any) -> np.random.Generator:
    """A generator that depends on these values alone, so that a crop is the same in every run and worker."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "backslashreplace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def count_check(names: Sequence[Any], labels: Sequence[Any], files: str) -> None:
    """Raise KeypointError when two files that belong together list different numbers of images."""
    if len(names) != len(labels):
        raise KeypointError(
            f"{files} do not belong together: {len(names)} images, {len(labels)} labels; use both files "
            "of the same download."
        )
