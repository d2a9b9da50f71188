"""Edits of the keypoints of tokens, written as lines of text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..drawing.palette import palette
from ..errors import KeypointError
from .schema import parse_skeleton

if TYPE_CHECKING:
    from .tokens import KeypointTokens


def edit_tokens(tokens: KeypointTokens, text: str) -> KeypointTokens:
    """Apply edits, one per line, to the keypoints of tokens; the embeddings stay as they are.

    drop 3 kp7 · rename 0 nose · reorder 2 0 1 (points not mentioned follow in their old order) · recolour 0
    #ff8000 (or 255,128,0; recolor works too) · skeleton 0-1, 1-2 (replaces all edges; nothing after the word
    removes them). Points are numbers or names as they were before the first line, whatever other lines do; a
    `#` followed by a space starts a comment. Raises KeypointError with the line for anything else.
    """
    edits = _Edits(tokens)
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"(?:^|\s)#(?:\s|$)", line, maxsplit=1)[0].strip()
        if words:
            command, _, rest = words.partition(" ")
            try:
                edits.apply(command.lower(), rest.strip())
            except KeypointError as error:
                raise KeypointError(f"line {number}, {words!r}: {error}") from error
    return edits.result()


class _Edits:
    """Edits collected in terms of the original points, and carried out together at the end."""

    def __init__(self, tokens: KeypointTokens):
        self.tokens = tokens
        self.count = tokens.num_keypoints
        self.dropped: set[int] = set()
        self.names = list(tokens.names)
        self.first: list[int] = []
        self.colors: dict[int, tuple[int, int, int]] = {}
        self.skeleton = tokens.skeleton

    def apply(self, command: str, rest: str) -> None:
        actions = {
            "drop": self._drop,
            "rename": self._rename,
            "reorder": self._reorder,
            "recolour": self._recolour,
            "recolor": self._recolour,
            "skeleton": self._edges,
        }
        if command not in actions:
            raise KeypointError(f"{command!r} is no edit; use drop, rename, reorder, recolour or skeleton.")
        actions[command](rest)

    def result(self) -> KeypointTokens:
        tokens = self.tokens.with_skeleton(self.skeleton).rename(self.names)
        if self.colors:
            colors = list(tokens.colors or palette(self.count))
            for index, color in self.colors.items():
                colors[index] = color
            tokens = tokens.with_colors(colors)
        order = self.first + [i for i in range(self.count) if i not in self.first]
        kept = [i for i in order if i not in self.dropped]
        if not kept:
            raise KeypointError(f"all {self.count} keypoints would be dropped; keep at least one.")
        return tokens.reorder(kept)

    def _point(self, word: str) -> int:
        if word in self.tokens.names:
            return self.tokens.names.index(word)
        if re.fullmatch(r"[0-9]+", word) and int(word) < self.count:
            return int(word)
        raise KeypointError(f"there is no keypoint {word!r}; give a number from 0 to {self.count - 1}, or a name.")

    def _points(self, rest: str) -> list[int]:
        """Points between spaces or commas; names with spaces are found whole where commas separate them."""
        parts = [part.strip() for part in rest.split(",") if part.strip()]
        found = []
        for part in parts:
            found += [self._point(part)] if part in self.tokens.names else [self._point(w) for w in part.split()]
        if not found:
            raise KeypointError("no keypoint is mentioned; give numbers or names.")
        return found

    def _split(self, rest: str, what: str) -> tuple[int, str]:
        """A point at the start of `rest`, perhaps a name with spaces, and what follows it."""
        for name in sorted(self.tokens.names, key=len, reverse=True):
            if re.match(rf"{re.escape(name)}(\s|=)", rest):
                return self._point(name), rest[len(name) :].strip().removeprefix("=").strip()
        word, value = re.match(r"(\S*?)(?:\s*=\s*|\s+|$)(.*)", rest).groups()
        if not value:
            raise KeypointError(f"give a keypoint and its {what}, such as 0 {'nose' if what == 'name' else '#ff8000'}.")
        return self._point(word), value

    def _drop(self, rest: str) -> None:
        self.dropped |= set(self._points(rest))

    def _rename(self, rest: str) -> None:
        index, name = self._split(rest, "name")
        if not name:
            raise KeypointError("the new name is empty; give a name.")
        self.names[index] = name

    def _reorder(self, rest: str) -> None:
        order = self._points(rest)
        if len(set(order)) != len(order):
            raise KeypointError("a keypoint is mentioned twice; mention each once.")
        self.first = order

    def _recolour(self, rest: str) -> None:
        index, value = self._split(rest, "colour")
        self.colors[index] = _color(value)

    def _edges(self, rest: str) -> None:
        self.skeleton = parse_skeleton(rest, self.count, self.tokens.names)


def _color(text: str) -> tuple[int, int, int]:
    hexadecimal = re.fullmatch(r"#?([0-9a-fA-F]{6})", text)
    if hexadecimal:
        value = hexadecimal[1]
        return int(value[:2], 16), int(value[2:4], 16), int(value[4:], 16)
    numbers = re.fullmatch(r"\(?\s*(\d+)\s*[, ]\s*(\d+)\s*[, ]\s*(\d+)\s*\)?", text)
    if numbers and all(int(v) <= 255 for v in numbers.groups()):
        return int(numbers[1]), int(numbers[2]), int(numbers[3])
    raise KeypointError(f"{text!r} is no colour; write #ff8000 or 255,128,0.")
