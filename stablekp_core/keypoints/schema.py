"""The labels of keypoints: names, skeleton edges, colours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import KeypointError

Edges = tuple[tuple[int, int], ...]
Colors = tuple[tuple[int, int, int], ...]


def clean_labels(
    count: int,
    names: Sequence[str],
    skeleton: Sequence[Sequence[int]],
    colors: Sequence[Sequence[int]],
) -> tuple[tuple[str, ...], Edges, Colors]:
    """Check and normalise the labels of `count` keypoints; empty names become kp0, kp1, …

    names: all different. skeleton: 0-based pairs. colors: RGB in 0..255, or empty for the palette.
    Raises KeypointError.
    """
    names = tuple(str(name) for name in names) or tuple(f"kp{i}" for i in range(count))
    try:
        edges = tuple((int(a), int(b)) for a, b in skeleton)
        rgb = tuple((int(r), int(g), int(b)) for r, g, b in colors)
    except (TypeError, ValueError) as error:
        raise KeypointError(
            f"a skeleton edge is not a pair of numbers, or a colour not three of them ({error}); correct it."
        ) from error
    check_length("names", names, {count}, count)
    check_length("colors", rgb, {0, count}, count)
    if len(set(names)) != count:
        raise KeypointError(f"two keypoints have the same name in {list(names)}; names must differ.")
    if any(not (0 <= a < count and 0 <= b < count and a != b) for a, b in edges):
        raise KeypointError(
            f"a skeleton edge joins a keypoint that does not exist, or itself; use pairs of different "
            f"numbers from 0 to {count - 1}."
        )
    if any(not 0 <= value <= 255 for color in rgb for value in color):
        raise KeypointError("a keypoint colour lies outside 0..255; give red, green and blue from 0 to 255.")
    return names, edges, rgb


def check_length(what: str, values: Sequence[Any], allowed: set[int], count: int) -> None:
    """Raise KeypointError unless there are as many `values` as one of `allowed`."""
    if len(values) not in allowed:
        raise KeypointError(f"{len(values)} {what} were given for {count} keypoints; give one each.")


def check_subset(indices: Sequence[int], count: int) -> list[int]:
    """`indices` as ints; raises KeypointError unless they are different keypoints of `count`."""
    given = list(indices)
    if not all(isinstance(i, (int, np.integer)) for i in given):
        raise KeypointError(f"keypoints {given} were asked for, but they must be numbers from 0 to {count - 1}.")
    indices = [int(i) for i in given]
    if len(set(indices)) != len(indices) or not all(0 <= i < count for i in indices):
        raise KeypointError(
            f"keypoints {indices} were asked for, but they must be different numbers from 0 to {count - 1}."
        )
    return indices


def edges_of_subset(edges: Sequence[tuple[int, int]], indices: Sequence[int]) -> Edges:
    """Skeleton edges after keeping keypoints `indices` in that order; edges to dropped keypoints go."""
    new_index = {old: new for new, old in enumerate(indices)}
    return tuple((new_index[a], new_index[b]) for a, b in edges if a in new_index and b in new_index)


def pick(values: Sequence[Any], indices: Sequence[int]) -> tuple:
    """`values` at `indices`; empty stays empty."""
    return tuple(values[i] for i in indices) if values else ()


def format_skeleton(edges: Sequence[tuple[int, int]], names: Sequence[str] = ()) -> str:
    """Edges as text "0-1, 1-2", or with names where given: "nose-neck, neck-left hip"."""
    return ", ".join(f"{names[a]}-{names[b]}" if names else f"{a}-{b}" for a, b in edges)


def parse_skeleton(text: str, count: int, names: Sequence[str] = ()) -> Edges:
    """The inverse of `format_skeleton`, for `count` keypoints: edges between commas, semicolons or lines.

    Each end is a number from 0 to count - 1 or one of `names`, which may contain hyphens themselves; an edge
    given twice counts once. Empty text is no edges. Raises KeypointError naming the part that cannot be read.
    """
    index = {str(name).strip(): i for i, name in enumerate(names)}
    edges: list[tuple[int, int]] = []
    for part in re.split(r"[,;\n]", text):
        if part.strip():
            edge = _parse_edge(part.strip(), count, index)
            if edge not in edges and edge[::-1] not in edges:
                edges.append(edge)
    return tuple(edges)


def _parse_edge(text: str, count: int, index: dict[str, int]) -> tuple[int, int]:
    ends = None
    dashes = list(re.finditer("[-–—]", text))
    for dash in dashes:
        a, b = (_point(end.strip(), count, index) for end in (text[: dash.start()], text[dash.end() :]))
        if a is not None and b is not None:
            ends = a, b
            break
    if ends is None:
        known = f" or a name ({', '.join(list(index)[:4])}…)" if index else ""
        raise KeypointError(
            f"{text!r} is no edge; write two keypoints with a hyphen, as in 0-1, each a number from 0 to "
            f"{count - 1}{known}."
        )
    if ends[0] == ends[1]:
        raise KeypointError(f"{text!r} joins a keypoint with itself; an edge needs two different ones.")
    return ends


def _point(text: str, count: int, index: dict[str, int]) -> int | None:
    if text in index:
        return index[text]
    return int(text) if re.fullmatch(r"[0-9]+", text) and int(text) < count else None


def checked_array(name: str, value: Any, dtype: type, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A new array of this type and shape; an empty one may be given in any shape without elements. Raises KeypointError
    for another shape and for values that are not finite."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KeypointError(f"{name} is not an array of numbers ({error}); give numbers.") from error
    if not np.isfinite(array).all():
        raise KeypointError(f"{name} holds a value that is not finite; mark a missing point by confidence 0.")
    if shape is not None and array.shape != shape:
        if array.size or 0 not in shape:
            raise KeypointError(f"{name} has shape {list(array.shape)}, but {list(shape)} is needed.")
        array = array.reshape(shape)
    return array.astype(dtype)
