"""Captions of images, read from the files that captioning tools write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import KeypointError
from ..files import read_text
from ..keypoints.names import match_names

_WANTED = "captions: a folder of .txt or .caption files, a .json mapping from image name to text, or a .jsonl or .csv "
_WANTED += "file with file_name and text"
_SUFFIXES = (".txt", ".caption")
_KEYS = ("caption", "text", "tags")  # of an entry with several; kohya's scripts write caption and tags


def read_captions(path: str | Path) -> dict[str, str]:
    """Captions by image name: from a folder of .txt or .caption files named like the images, or a .json, .jsonl or .csv
    file.

    JSON is a mapping from name to text, or to an entry with caption, text or tags (kohya); .jsonl and .csv have
    file_name and text. Images whose caption is null or empty have none. Raises KeypointError otherwise.
    """
    path = Path(path)
    if path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.suffix.lower() in _SUFFIXES and not f.name.startswith(".")]
        if not files:
            raise KeypointError(f"{path} has no {' or '.join(_SUFFIXES)} files; give {_WANTED}.")
        found = {file.stem: read_text(file, "a text file").strip() for file in reversed(files)}  # .caption comes first
        return {name: text for name, text in sorted(found.items()) if text}
    text = read_text(path, _WANTED)
    try:
        if path.suffix.lower() == ".json":
            pairs = list(json.loads(text).items())
        elif path.suffix.lower() == ".csv":
            pairs = _table(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            pairs = [(row["file_name"], {k: row[k] for k in _KEYS if k in row}) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise KeypointError(f"{path} holds no captions ({error!r}); give {_WANTED}.") from error
    except KeypointError as error:
        raise KeypointError(f"{path}: {error}") from error
    captions = {str(name): _text(value, f"{path}: {name}") for name, value in pairs}
    return {name: caption for name, caption in captions.items() if caption}


def _table(text: str) -> list[tuple[str, Any]]:
    """file_name and text of a .csv file; a line with a comma too many would lose what is behind it."""
    rows = list(csv.DictReader(io.StringIO(text)))
    for number, row in enumerate(rows, 2):
        if None in row:
            raise KeypointError(f"line {number} has too many columns; put a text with commas into quotation marks.")
    return [(row["file_name"], row["text"]) for row in rows]


def _text(value: Any, where: str) -> str:
    """The caption that a JSON value is; "" for none."""
    if isinstance(value, Mapping):
        key = next((key for key in _KEYS if value.get(key)), None)
        if key is None and not any(key in value for key in _KEYS):
            raise KeypointError(f"{where} has no {', '.join(_KEYS)}, but {', '.join(map(str, value))}; give {_WANTED}.")
        value = value.get(key) if key else None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    if value is not None and not isinstance(value, str):
        raise KeypointError(f"{where} is {value!r} and no text; give {_WANTED}.")
    return (value or "").strip()


class Captions:
    """Captions of the images of an export; counts what has no match.

    without: images asked for that have no caption of their own. unused: names of captions that no image has asked for.
    """

    def __init__(self, captions: Mapping[str, str] | None, names: Iterable[str], default: str = ""):
        """captions: by name as tools write it, matched by `match_names`, which raises KeypointError where it is not
        clear; names: of the images that will be asked for, where they are known."""
        self._captions, self._default, self._given = captions or {}, default, captions is not None
        exact = {n for n in names if n in self._captions or _stem(n) in self._captions}
        rest = [n for n in self._captions if n not in exact and n not in {_stem(e) for e in exact}]
        pairs = match_names([n for n in names if n and n not in exact], rest, "captions")
        self._by_image = {image: caption for caption, image in pairs.items()}
        self._used: set[str] = set()
        self.without = 0

    def of(self, name: str) -> str:
        """The caption of an image, or the default."""
        for key in (name, _stem(name), self._by_image.get(name)):
            if key in self._captions:
                self._used.add(key)
                return self._captions[key]
        self.without += self._given
        return self._default

    @property
    def unused(self) -> list[str]:
        """Names of captions that belong to no image."""
        return [name for name in self._captions if name not in self._used]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]
