"""Corrections of keypoints made by hand, as data that is applied on top of whatever the detector finds.

JSON form: {"version": 1, "names": [all keypoints there were], "images": [{"image": file name or number from 0,
"figure": 0, "size": [width, height], "points": {name: {"x": …, "y": …, "state": "visible"}}}]}. x and y are pixels of
an image of that size; a point without them stays where it is detected, and only its state changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import KeypointError
from .keypoints import Keypoints

VERSION = 1
STATES = ("visible", "occluded", "deleted")
_MOST_CHARACTERS = 32_000_000
_MOST_POINTS = 1_000_000
_FARTHEST = 1e6  # pixels
_FILLED = 0.5  # confidence of a point that no detection, only edits of other frames, say is there


@dataclass(frozen=True)
class PointEdit:
    """What a person said about one point: its state, and its place (pixels, or None for the detected one)."""

    state: str = "visible"
    xy: tuple[float, float] | None = None


@dataclass(frozen=True)
class FigureEdits:
    """The edits of one figure in one image of `size` (width, height); `points` by keypoint name."""

    image: str | int
    figure: int
    size: tuple[int, int]
    points: Mapping[str, PointEdit]


@dataclass(frozen=True)
class KeypointEdits:
    """All edits. names: the keypoints there were when the edits were made; empty when not known."""

    figures: tuple[FigureEdits, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> KeypointEdits:
        """Read and check edits; empty text is no edits. Raises KeypointError in one sentence for anything else."""
        if not text.strip():
            return cls()
        if len(text) > _MOST_CHARACTERS:
            raise KeypointError(f"the edits are {len(text)} characters long, but {_MOST_CHARACTERS} are the most.")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise KeypointError(f"the edits are not JSON ({error}); empty the field, or edit again.") from error
        if not isinstance(data, dict) or not isinstance(data.get("images"), list):
            raise KeypointError("the edits have no list of images; empty the field, or edit again.")
        if data.get("version") != VERSION:
            raise KeypointError(
                f"the edits have version {data.get('version')!r}, but this program reads {VERSION}; update it."
            )
        names = data.get("names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise KeypointError("the names of the edits are not a list of texts; edit again.")
        figures = tuple(_read_figure(entry, number) for number, entry in enumerate(data["images"]))
        if sum(len(figure.points) for figure in figures) > _MOST_POINTS:
            raise KeypointError(f"there are more than {_MOST_POINTS} edits; apply them in several nodes.")
        return cls(figures, tuple(names))

    def to_json(self) -> str:
        """The inverse of `from_json`; no edits are empty text."""
        if not self.figures:
            return ""
        images = [
            {
                "image": figure.image,
                "figure": figure.figure,
                "size": list(figure.size),
                "points": {
                    name: {**({"x": edit.xy[0], "y": edit.xy[1]} if edit.xy else {}), "state": edit.state}
                    for name, edit in figure.points.items()
                },
            }
            for figure in self.figures
        ]
        return json.dumps({"version": VERSION, "names": list(self.names), "images": images})


@dataclass(frozen=True, eq=False)
class Edited:
    """Keypoints with the edits applied. edited: bool [B, K], points that an edit speaks of. spread: bool [B, K],
    points of frames between edited ones that follow them. unused: what was left out and why, one sentence each.
    """

    keypoints: Keypoints
    edited: np.ndarray
    spread: np.ndarray
    unused: tuple[str, ...] = field(default=())

    def report(self) -> str:
        """A few lines of text."""
        images = len(set(self.keypoints.image_index[self.edited.any(axis=1)].tolist()))
        lines = [f"{int(self.edited.sum())} points edited in {images} of {_image_count(self.keypoints)} images"]
        if self.spread.any():
            lines.append(f"{int(self.spread.sum())} points between edited frames follow them")
        return "\n".join([*lines, *self.unused])


def image_keys(keypoints: Keypoints) -> list[str | int]:
    """What edits call the image of each row: its file name where that names one image only, else its number."""
    images: dict[str, set[int]] = {}
    for name, index in zip(keypoints.images, keypoints.image_index, strict=True):
        images.setdefault(name, set()).add(int(index))
    return [
        name if name and len(images[name]) == 1 else int(index)
        for name, index in zip(keypoints.images, keypoints.image_index, strict=True)
    ]


def figure_numbers(keypoints: Keypoints) -> np.ndarray:
    """int64 [B]: which figure of its image a row is, counted from 0 in the order of the rows."""
    seen: dict[int, int] = {}
    numbers = np.zeros(len(keypoints), dtype=np.int64)
    for row, index in enumerate(keypoints.image_index.tolist()):
        numbers[row] = seen.get(index, 0)
        seen[index] = int(numbers[row]) + 1
    return numbers


def apply_edits(keypoints: Keypoints, edits: KeypointEdits, *, spread: bool = False, threshold: float = 0.0) -> Edited:
    """Keypoints with edits on top: a point that is visible or occluded gets confidence 1, a deleted one 0.

    Images match by name, or by number where the edits have numbers; points match by name; edits in pixels of a
    resized copy are scaled. spread: the same figure's points in frames between two edited ones move too, by the
    smoothly changing offset of the edits; where the detection between is missing or below `threshold` they follow the
    path of the edits themselves. Frames are in order of image_index. Edits that match nothing are named in `unused`.
    """
    xy, confidence = keypoints.xy.astype(np.float64), keypoints.confidence.copy()
    occluded = keypoints.occluded.copy()
    edited = np.zeros(confidence.shape, dtype=bool)
    rows = _row_lookup(keypoints)
    column = {name: k for k, name in enumerate(keypoints.names)}
    absent: list[str] = []
    unknown: dict[str, None] = {}
    for figure in edits.figures:
        row = rows.get((figure.image, figure.figure))
        if row is None:
            absent.append(f"{figure.image}" + (f" (figure {figure.figure})" if figure.figure else ""))
            continue
        scale = keypoints.sizes[row] / np.array(figure.size)
        for name, edit in figure.points.items():
            if name not in column:
                unknown[name] = None
                continue
            k = column[name]
            edited[row, k] = True
            confidence[row, k] = edit.state != "deleted"
            occluded[row, k] = edit.state == "occluded"
            if edit.xy is not None:
                xy[row, k] = np.array(edit.xy) * scale
    between = np.zeros_like(edited)
    if spread:
        between = _spread(keypoints, xy, confidence, occluded, edited, threshold)
    done = replace(keypoints, xy=xy, confidence=confidence, occluded=occluded)
    return Edited(done, edited, between, _unused(keypoints, edits, absent, list(unknown)))


def _row_lookup(keypoints: Keypoints) -> dict[tuple[str | int, int], int]:
    """(image name or number, figure) -> row."""
    rows: dict[tuple[str | int, int], int] = {}
    for row, figure in enumerate(figure_numbers(keypoints).tolist()):
        rows[int(keypoints.image_index[row]), figure] = row
        if keypoints.images[row]:
            rows.setdefault((keypoints.images[row], figure), row)
    return rows


def _spread(keypoints, xy, confidence, occluded, edited, threshold: float) -> np.ndarray:
    """Change points between edited frames in place; bool [B, K] of those that were."""
    spread = np.zeros_like(edited)
    numbers = figure_numbers(keypoints)
    for figure in np.unique(numbers):
        rows = np.flatnonzero(numbers == figure)
        rows = rows[np.argsort(keypoints.image_index[rows], kind="stable")]
        for k in np.flatnonzero(edited[rows].any(axis=0)):
            for chain in _chains(rows, edited[:, k], confidence[:, k]):
                _spread_chain(keypoints, rows, chain, int(k), xy, confidence, occluded, edited, spread, threshold)
    return spread


def _chains(rows: np.ndarray, edited: np.ndarray, confidence: np.ndarray) -> list[list[int]]:
    """Edited rows, in runs of points that are there and runs of deleted ones; runs of one need no spreading."""
    chains: list[list[int]] = []
    for row in rows[edited[rows]].tolist():
        if chains and (confidence[chains[-1][-1]] > 0) == (confidence[row] > 0):
            chains[-1].append(row)
        else:
            chains.append([row])
    return [chain for chain in chains if len(chain) > 1]


def _spread_chain(keypoints, rows, chain, k, xy, confidence, occluded, edited, spread, threshold) -> None:
    frames = keypoints.image_index
    first, last = frames[chain[0]], frames[chain[-1]]
    between = [r for r in rows.tolist() if first < frames[r] < last and not edited[r, k]]
    if not between:
        return
    spread[between, k] = True
    if confidence[chain[0], k] == 0:
        confidence[between, k] = occluded[between, k] = 0.0
        return
    times, wanted = frames[chain].astype(np.float64), frames[between].astype(np.float64)
    detected = (keypoints.confidence[:, k] > 0) & (keypoints.confidence[:, k] >= threshold)
    path = _curve(times, xy[chain, k], wanted)  # [R, 2]
    placed = path
    if detected[chain].all():
        offset = _curve(times, xy[chain, k] - keypoints.xy[chain, k], wanted)
        placed = np.where(detected[between, None], keypoints.xy[between, k] + offset, path)
    xy[between, k] = placed
    confidence[between, k] = np.where(detected[between], confidence[between, k], _FILLED)
    before = np.searchsorted(times, wanted) - 1
    covered = occluded[chain, k] >= 0.5
    occluded[between, k] = np.where(covered[before] & covered[before + 1], 1.0, 0.0)


def _curve(times: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values [C, 2] at `times` [C] along a smooth curve that does not overshoot, at `wanted` [R]: [R, 2]."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(times, values, axis=0)(wanted)


def _unused(keypoints: Keypoints, edits: KeypointEdits, absent: list[str], unknown: list[str]) -> tuple[str, ...]:
    lines = []
    if edits.names and len(edits.names) != keypoints.num_keypoints:
        lines.append(
            f"the edits were made on {len(edits.names)} keypoints, but {keypoints.num_keypoints} arrive now; "
            "points with the same name keep their edits"
        )
    if unknown:
        lines.append(f"left out, no keypoint has that name now: {_some(unknown)}")
    if absent:
        lines.append(f"left out, the image does not arrive now: {_some(absent)}")
    return tuple(lines)


def _some(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _image_count(keypoints: Keypoints) -> int:
    return len(set(keypoints.image_index.tolist()))


# Reading


def _read_figure(entry: Any, number: int) -> FigureEdits:
    where = f"image {number} of the edits"
    if not isinstance(entry, dict) or not isinstance(entry.get("points"), dict):
        raise KeypointError(f"{where} has no points by name; edit again.")
    image, figure = entry.get("image"), entry.get("figure", 0)
    if not (isinstance(image, str) and image or _whole(image)):
        raise KeypointError(f"{where} is called {image!r}, but it must be a file name or a number from 0.")
    if not _whole(figure):
        raise KeypointError(f"the figure of {where} is {figure!r}, but it must be a number from 0.")
    size = entry.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(_whole(side) and side > 0 for side in size)):
        raise KeypointError(f"the size of {where} is {size!r}, but it must be [width, height] in pixels.")
    points = {name: _read_point(value, f"{name!r} in {where}") for name, value in entry["points"].items()}
    return FigureEdits(image, figure, (size[0], size[1]), points)


def _read_point(value: Any, where: str) -> PointEdit:
    if not isinstance(value, dict) or value.get("state", "visible") not in STATES:
        raise KeypointError(f"the state of {where} is none of {', '.join(STATES)}; edit again.")
    x, y = value.get("x"), value.get("y")
    if x is None and y is None:
        return PointEdit(value.get("state", "visible"))
    if not (_number(x) and _number(y)):
        raise KeypointError(f"the place of {where} is ({x!r}, {y!r}), but two numbers in pixels are needed.")
    return PointEdit(value.get("state", "visible"), (float(x), float(y)))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _FARTHEST


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _FARTHEST
