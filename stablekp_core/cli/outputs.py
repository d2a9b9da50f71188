"""Checks of the outputs of a command before its work starts: no file is lost, no error is found too late."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import KeypointError
from ..files import write_atomically

#: Kind of file -> suffixes it may have ("" = none).
SUFFIXES = {
    "tokens": (".safetensors", ""),
    "landmark map": (".safetensors", ""),
    "guidance": (".safetensors", ""),
    "JSON": (".json", ""),
    "table": (".csv", ".tsv", ".txt", ""),
    "text": (".txt", ""),
}
_OURS = {
    "tokens": "stable-keypoints-tokens",
    "landmark map": "stable-keypoints-landmark-map",
    "guidance": "stable-keypoints-guidance",
}


@dataclass(frozen=True)
class Output:
    """A file or folder that a command writes. kind: one of `SUFFIXES`, "image" or "folder"."""

    path: Path
    kind: str

    @property
    def file(self) -> Path:
        """Where it will lie: tokens and maps get their suffix when it is absent."""
        if self.kind in _OURS and self.path.suffix.lower() != ".safetensors":
            return self.path.with_name(self.path.name + ".safetensors")
        return self.path


def check_outputs(outputs: Iterable[Output | None], inputs: Iterable[Path | str | None] = ()) -> None:
    """Raise KeypointError unless all `outputs` can be written and none of them takes something away: an input (or an
    image of a folder that is one), another output, or a file of another kind."""
    outputs = [output for output in outputs if output is not None]
    taken = {_real(Path(path)) for path in inputs if path is not None and Path(path).exists()}
    read = {path for path in taken if path.is_dir()}
    for output in outputs:
        _check_suffix(output)
        _check_place(output)
        real = _real(output.file)
        if real in taken:
            raise KeypointError(
                f"{output.file} would be written over {_what(real, outputs, output)}; give another name."
            )
        if output.kind != "folder" and output.file.exists():
            if real.parent in read and output.kind == "image":
                raise KeypointError(f"{output.file} lies among the images that are read; give another name or folder.")
            _check_kind(output)
        taken.add(real)


def _what(real: Path, outputs: Sequence[Output], now: Output) -> str:
    twice = any(other is not now and _real(other.file) == real for other in outputs)
    return "another result of this command" if twice else "one of the files it is made from"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _check_suffix(output: Output) -> None:
    suffix = output.path.suffix.lower()
    if output.kind == "image":
        from PIL import Image

        writable = Image.registered_extensions().get(suffix) in Image.SAVE
        if not writable:
            raise KeypointError(f"{output.path.name} does not say what kind of image to write; end it in .png or .jpg.")
    elif output.kind != "folder" and suffix not in SUFFIXES[output.kind]:
        raise KeypointError(
            f"{output.path.name} is no name for {_a(output.kind)}; end it in {SUFFIXES[output.kind][0]}."
        )


def _check_place(output: Output) -> None:
    path = output.file
    if output.kind == "folder":
        if path.exists() and not path.is_dir():
            raise KeypointError(f"{path} is a file, but a folder is to be written there; give another name.")
        place = path
    else:
        if path.is_dir():
            raise KeypointError(f"{path} is a folder; give the name of a file in it.")
        place = path.parent
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise KeypointError(f"{place} is a file, so {path} cannot be written; give another folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise KeypointError(f"{place} may not be written to, so {path} cannot be written; give another folder.")
    if path.is_file() and not os.access(path, os.W_OK):
        raise KeypointError(f"{path} may not be written; give another name.")


def _check_kind(output: Output) -> None:
    """Only a file of the same kind may be replaced: a model is not lost to tokens of its name."""
    path, same = output.file, True
    if output.kind in _OURS:
        same = format_of(path) == _OURS[output.kind]
    elif output.kind == "image":
        from PIL import Image

        try:
            with Image.open(path):
                pass
        except (OSError, ValueError, SyntaxError):
            same = False
    else:
        with contextlib.suppress(OSError):
            start = path.open("rb").read(4096).lstrip()
            same = not start or (start[:1] in b"{[" if output.kind == "JSON" else b"\0" not in start)
    if not same:
        raise KeypointError(f"{path} exists and is not {_a(output.kind)}; give another name, or take it away first.")


def format_of(path: Path) -> str:
    """Which of this program's safetensors files it is, by its header; "" for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            return str(json.loads((file.metadata() or {}).get("stable_keypoints", "{}")).get("format", ""))
    except (SafetensorError, OSError, ValueError, AttributeError):
        return ""


def _a(kind: str) -> str:
    return {"tokens": "keypoint tokens", "image": "an image", "JSON": "JSON", "text": "text"}.get(kind, f"a {kind}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (text if text.endswith("\n") else text + "\n").encode("utf-8", "surrogatepass"))


def save_image(path: Path, image) -> None:
    """Write uint8 RGB [H, W, 3]; the folder is made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
