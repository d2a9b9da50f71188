"""Captions of images, read from the files that captioning tools write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import KeypointError


def read_captions(path: str | Path) -> dict[str, str]:
    """Captions by image name: from a folder of .txt files named like the images, or a .json, .jsonl or .csv
    file.

    JSON is a mapping from name to text; .jsonl and .csv have file_name and text. Raises KeypointError
    otherwise.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return {file.stem: file.read_text("utf-8-sig").strip() for file in sorted(path.glob("*.txt"))}
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".json":
            return {str(name): str(value) for name, value in json.loads(text).items()}
        if path.suffix.lower() == ".csv":
            table = list(csv.DictReader(io.StringIO(text)))
        else:
            table = [json.loads(line) for line in text.splitlines() if line.strip()]
        return {str(row["file_name"]): str(row["text"] or "") for row in table}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise KeypointError(
            f"{path} holds no captions ({error!r}); give a folder of .txt files, a .json mapping from image "
            f"name to text, or a .jsonl or .csv file with file_name and text."
        ) from error


def caption_of(name: str, captions: Mapping[str, str] | None, default: str) -> str:
    """The caption of image `name`: under its full name, else under its name without the extension, else `default`."""
    captions = captions or {}
    stem = name.rsplit(".", 1)[0]
    return captions.get(name, captions.get(stem, default))
