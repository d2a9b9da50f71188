"""File names that stay in their folder, and files that are complete or absent."""

from __future__ import annotations

import os
import re
from pathlib import Path


def sanitize_name(name: str, default: str = "keypoints") -> str:
    """A file name made of the last part of `name` that cannot leave its folder: letters, digits, ` ._-`.

    Works for names typed on any system (both kinds of slash, drive letters, reserved device names).
    """
    last = re.split(r"[\\/]", str(name))[-1]
    clean = re.sub(r"[^\w .-]", "_", last)[:100].strip(" .")
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", clean):
        clean = f"_{clean}"
    return clean or default


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, even after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
