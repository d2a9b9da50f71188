"""File names that stay in their folder, and files that are complete or absent."""

from __future__ import annotations

import codecs
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

from .errors import KeypointError

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:40] or "here"  # in names of temporary files
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def sanitize_name(name: str, default: str = "keypoints") -> str:
    """A file name made of the last part of `name` that cannot leave its folder: letters, digits, ` ._-`.

    Works for names typed on any system (both kinds of slash, drive letters, reserved device names).
    """
    last = re.split(r"[\\/]", str(name))[-1]
    clean = re.sub(r"[^\w .-]", "_", last)[:100].strip(" .")
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", clean):
        clean = f"_{clean}"
    return clean or default


def read_text(path: str | Path, wanted: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a mark, as Notepad and PowerShell write it.

    wanted: what kind of file it should be, for the message. Raises KeypointError when it cannot be read, is no text, or
    is in another encoding.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeypointError(f"{path} cannot be read ({why(error)}); give {wanted}.") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        kind = "not text" if b"\0" in data[:4096] else "text in another encoding than UTF-8"
        raise KeypointError(f"{path} is {kind}; give {wanted}, saved as UTF-8.") from error


def why(error: OSError) -> str:
    """What the system says went wrong, without its number and without names of temporary files."""
    return error.strerror or str(error)


def indices_beside(embedding: Path) -> Path | None:
    """The name of the indices that belong to the authors' published tokens of this name: celeba_embedding.pt has
    celeba_indices.pt; None for any other name."""
    if embedding.suffix.lower() != ".pt" or "embedding" not in embedding.name:
        return None
    return embedding.with_name(embedding.name.replace("embedding", "indices"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, even after a crash. Raises
    KeypointError when it cannot be written."""
    partial = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise KeypointError(f"{path} cannot be written ({why(error)}); give another place, or make room.") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def left_behind(partial: Path) -> bool:
    """Whether a file is what `write_atomically` leaves when its process, on this machine, is killed."""
    found = re.fullmatch(r"\..+\.([^.]+)\.(\d+)\.tmp", partial.name)
    if not found or found[1] != _HOST or os.name == "nt":  # there os.kill would end the process
        return False
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
