"""Matching the file names of images between two lists, whatever tools wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from ..errors import KeypointError

# What labelling tools make of a file's name: Label Studio puts a hash before it, Roboflow one behind it.
_RENAMED = (
    re.compile(r"^[0-9a-f]{8}-(?P<name>.+)$"),
    re.compile(r"^(?P<name>.+)_(?P<suffix>jpe?g|png|webp|bmp|tiff?)\.rf\.[0-9a-zA-Z]+\.\w+$"),
)


def path_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a name, from the last to the first: both kinds of slash, and the addresses by which
    Label Studio names local files."""
    text = name.split("?d=", 1)[1] if "?d=" in name else name
    text = unquote(text) if "?d=" in name or "://" in name else text
    return tuple(part for part in reversed(text.replace("\\", "/").split("/")) if part not in ("", "."))


def match_names(ours: Iterable[str], theirs: Iterable[str], what: str = "labels") -> dict[str, str]:
    """Each name of `theirs` -> the one of `ours` that is the same image; names without a match are left out.

    Names go together by their files' names, with the suffix if any has the same, else without it, else as tools
    rename files (`1a2b3c4d-bird.jpg`, `bird_jpg.rf.0f….jpg`); among several the one that shares most folders from the
    right. Raises KeypointError when two are equally near, or two of `theirs` (`what` they are, in plural) come to one
    of `ours`.
    """
    indexes = [_index(ours, form) for form in _FORMS]
    partner: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in dict.fromkeys(theirs):
        found = _nearest(name, indexes)
        if len(found) > 1:
            raise KeypointError(
                f"{name} of the {what} may be {found[0]} or {found[1]}; name the images with their folders, so that "
                "it is clear which is meant."
            )
        if found:
            ours_name = found[0]
            if ours_name in owner:
                raise KeypointError(
                    f"{owner[ours_name]} and {name} of the {what} both go with {ours_name}; name the images with "
                    "their folders, so that it is clear which is meant."
                )
            partner[name], owner[ours_name] = ours_name, name
    return partner


def _stem(file: str) -> str:
    return file.rsplit(".", 1)[0] if "." in file[1:] else file


def _original(file: str) -> str:
    """The stem that a tool has put its hash to, or the stem."""
    for form in _RENAMED:
        found = form.match(file)
        if found:
            return found["name"] if "suffix" in found.groupdict() else _stem(found["name"])
    return _stem(file)


_FORMS = (lambda file: file, _stem, _original)


def _index(names: Iterable[str], form) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        parts = path_parts(name)
        if parts:
            index.setdefault(form(parts[0]), []).append(name)
    return index


def _nearest(name: str, indexes: list[dict[str, list[str]]]) -> list[str]:
    """The names that match in the strictest form that any does, and share most folders."""
    parts = path_parts(name)
    if not parts:
        return []
    for form, index in zip(_FORMS, indexes, strict=True):
        candidates = index.get(form(parts[0]), [])
        if candidates:
            shared = [_shared(parts, path_parts(other)) for other in candidates]
            return [other for other, count in zip(candidates, shared, strict=True) if count == max(shared)]
    return []


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many folders two paths share, going up from the file."""
    count = 0
    for left, right in zip(a[1:], b[1:], strict=False):
        if left != right:
            break
        count += 1
    return count
