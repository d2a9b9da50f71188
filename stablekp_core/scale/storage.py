"""Where a big detection run reads and writes: folders of this machine, or anything behind an fsspec URL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer  # not the builtin one before Python 3.11
from pathlib import Path
from typing import Any

from ..errors import KeypointError

PATIENCE = 25  # seconds in which an address must answer


def file_system(url: str):
    """(fsspec file system, path in it); KeypointError when the URL's kind needs another package."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if url.startswith("file://") or Path(url).exists():  # a path is what it says, with all its :: and brackets
        return LocalFileSystem(), str(Path(url.removeprefix("file://")).absolute())
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise KeypointError(
            f"{url} cannot be opened ({error}); use a path, or install what its kind of URL needs."
        ) from error


def list_files(source: str) -> tuple[Any, str, list[str], str]:
    """The file system of an input, its path in it, all its files and their base; an address that cannot be reached
    raises KeypointError within `PATIENCE` seconds, whatever its library does."""

    def listing() -> tuple[Any, str, list[str], str]:
        fs, root = file_system(source)
        return fs, root, *_list(fs, root, source)

    if "://" not in source or source.startswith("file://"):
        return listing()
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(listing).result(PATIENCE)
    except KeypointError:
        raise
    except NoAnswer as error:
        raise KeypointError(
            f"{source} did not answer within {PATIENCE} s; check the address and the network."
        ) from error
    except Exception as error:  # noqa: BLE001 - every kind of storage has errors of its own
        reason = (str(error).splitlines() or [""])[0]
        raise KeypointError(
            f"{source} cannot be reached ({type(error).__name__}: {reason}); check the address and the network."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _list(fs, root: str, source: str) -> tuple[list[str], str]:
    """All files of an input, and the folder that their names are relative to."""
    if any(c in root for c in "*?[") and not fs.exists(root):
        fixed = root[: min(root.index(c) for c in "*?[" if c in root)]
        return [p for p in fs.glob(root) if fs.isfile(p)], fixed.rpartition("/")[0]
    if fs.isfile(root):
        return [root], root.rpartition("/")[0]
    if not fs.isdir(root):
        raise KeypointError(f"{source} does not exist; give a folder, a file or a pattern.")
    return fs.find(root), root.rstrip("/")
