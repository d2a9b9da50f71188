"""Keypoints of images, and the file formats they go out to and come in from.

Pixel frame everywhere: x right, y down, continuous; pixel (0, 0) covers [0, 1) x [0, 1), its centre is (0.5, 0.5).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import KeypointError

VISIBLE_CONFIDENCE = 0.5  # default confidence from which COCO's v is 2 (visible)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """K keypoints in each of B rows; a row is one instance (figure) in one image.

    xy: float32 [B, K, 2], pixels of the original image. confidence: float32 [B, K] in [0, 1]; 0 means that nothing
    is known about the point. sizes: int64 [B, 2], (width, height) of the row's image. names: K different names.
    skeleton: 0-based index pairs. images: B image names. colors: K RGB triples 0..255, or empty for the palette.
    image_index: int64 [B], which image a row belongs to; counts up from 0 unless an image has several rows or none.
    Raises KeypointError when shapes disagree or a value is not finite.
    """

    xy: np.ndarray
    confidence: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    images: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    image_index: np.ndarray | None = None

    def __post_init__(self) -> None:
        xy = _array("xy", self.xy, np.float32)
        if xy.ndim != 3 or xy.shape[2] != 2:
            raise KeypointError(f"keypoint positions have shape {list(xy.shape)}, but [rows, keypoints, 2] is needed.")
        rows, count = xy.shape[:2]
        index = np.arange(rows) if self.image_index is None else self.image_index
        values = {
            "xy": xy,
            "confidence": _array("confidence", self.confidence, np.float32, (rows, count)),
            "sizes": _array("sizes", self.sizes, np.int64, (rows, 2)),
            "image_index": _array("image_index", index, np.int64, (rows,)),
            "names": tuple(str(n) for n in self.names) or tuple(f"kp{i}" for i in range(count)),
            "skeleton": tuple((int(a), int(b)) for a, b in self.skeleton),
            "images": tuple(str(n) for n in self.images) or ("",) * rows,
            "colors": tuple((int(r), int(g), int(b)) for r, g, b in self.colors),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check(rows, count)

    def _check(self, rows: int, count: int) -> None:
        if self.confidence.size and not (0.0 <= self.confidence.min() and self.confidence.max() <= 1.0):
            raise KeypointError(f"confidence runs from {self.confidence.min():g} to {self.confidence.max():g}, but it "
                                f"must lie in 0..1.")
        if rows and self.sizes.min() < 1:
            raise KeypointError("an image size is not positive; give (width, height) in pixels for each row.")
        for what, length, allowed in (("names", len(self.names), {count}), ("images", len(self.images), {rows}),
                                      ("colors", len(self.colors), {0, count})):
            if length not in allowed:
                raise KeypointError(f"{length} {what} were given for {rows} rows of {count} keypoints; the numbers "
                                    f"must agree.")
        if len(set(self.names)) != count:
            raise KeypointError(f"two keypoints have the same name in {list(self.names)}; names must differ.")
        if any(not (0 <= a < count and 0 <= b < count and a != b) for a, b in self.skeleton):
            raise KeypointError(f"a skeleton edge joins a keypoint that does not exist, or itself; use pairs of "
                                f"different numbers from 0 to {count - 1}.")
        if any(not 0 <= value <= 255 for color in self.colors for value in color):
            raise KeypointError("a keypoint colour lies outside 0..255; give red, green and blue from 0 to 255.")

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_keypoints(self) -> int:
        """K."""
        return self.xy.shape[1]

    # ------------------------------------------------------------------------------------------------ choosing

    def select(self, indices: Sequence[int]) -> Keypoints:
        """Keypoints `indices` in this order (each at most once); skeleton edges to dropped points go."""
        indices = [int(i) for i in indices]
        if len(set(indices)) != len(indices) or not all(0 <= i < self.num_keypoints for i in indices):
            raise KeypointError(f"keypoints {indices} were asked for, but they must be different numbers from 0 to "
                                f"{self.num_keypoints - 1}.")
        new_index = {old: new for new, old in enumerate(indices)}
        edges = tuple((new_index[a], new_index[b]) for a, b in self.skeleton if a in new_index and b in new_index)
        return replace(self, xy=self.xy[:, indices], confidence=self.confidence[:, indices], skeleton=edges,
                       names=tuple(self.names[i] for i in indices),
                       colors=tuple(self.colors[i] for i in indices) if self.colors else ())

    def rows(self, indices: Sequence[int]) -> Keypoints:
        """These rows, with their image_index unchanged."""
        index = np.asarray(indices, dtype=np.int64)
        return replace(self, xy=self.xy[index], confidence=self.confidence[index], sizes=self.sizes[index],
                       images=tuple(self.images[i] for i in index), image_index=self.image_index[index])

    def frame(self, i: int) -> Keypoints:
        """Row i alone (B = 1), with image_index 0."""
        if not -len(self) <= i < len(self):
            raise KeypointError(f"row {i} was asked for, but there are {len(self)} rows, counted from 0.")
        return replace(self.rows([i]), image_index=np.zeros(1, dtype=np.int64))

    def instances(self, image: int) -> Keypoints:
        """All rows whose image_index is `image`; may be empty."""
        return self.rows(np.flatnonzero(self.image_index == image))

    @staticmethod
    def concat(parts: Sequence[Keypoints]) -> Keypoints:
        """One after the other; images of later parts are counted on. All must have the same keypoints."""
        if not parts:
            raise KeypointError("no keypoints were given to put together; give at least one.")
        first, index, start = parts[0], [], 0
        for part in parts:
            if part.names != first.names:
                raise KeypointError(f"keypoints named {', '.join(part.names)} cannot be put together with keypoints "
                                    f"named {', '.join(first.names)}; detect all of them with the same tokens.")
            index.append(part.image_index + start)
            start = int(index[-1].max()) + 1 if len(part) else start
        return replace(first, xy=np.concatenate([p.xy for p in parts]), sizes=np.concatenate([p.sizes for p in parts]),
                       confidence=np.concatenate([p.confidence for p in parts]),
                       images=tuple(name for p in parts for name in p.images), image_index=np.concatenate(index))

    # ---------------------------------------------------------------------------------------------------- COCO

    def to_coco(self, threshold: float = VISIBLE_CONFIDENCE) -> dict[str, Any]:
        """COCO keypoint annotations as plain Python; coordinates and scores survive a round trip exactly.

        v is 2 where confidence >= `threshold`, 1 below it, and 0 ("not labelled") where confidence is exactly 0.
        `scores` holds the confidences; `area` is that of the box around the points with v > 0.
        """
        first_row = {int(image): row for row, image in reversed(list(enumerate(self.image_index)))}
        images = [{"id": image + 1, "file_name": self.images[row], "width": int(self.sizes[row, 0]),
                   "height": int(self.sizes[row, 1])} for image, row in sorted(first_row.items())]
        category = {"id": 1, "name": "object", "supercategory": "object", "keypoints": list(self.names),
                    "skeleton": [[a + 1, b + 1] for a, b in self.skeleton]}
        if self.colors:
            category["keypoint_colors"] = [list(color) for color in self.colors]
        annotations = [self._annotation(row, threshold) for row in range(len(self))]
        return {"images": images, "annotations": annotations, "categories": [category]}

    def _annotation(self, row: int, threshold: float) -> dict[str, Any]:
        confidence = self.confidence[row]
        v = np.where(confidence >= threshold, 2, 1) * (confidence > 0)
        flat = [value for (x, y), seen in zip(self.xy[row], v) for value in (_short(x), _short(y), int(seen))]
        box = [0.0, 0.0, 0.0, 0.0]
        if v.any():
            low, high = self.xy[row][v > 0].min(axis=0), self.xy[row][v > 0].max(axis=0)
            box = [_short(value) for value in (*low, *(high - low))]
        return {"id": row + 1, "image_id": int(self.image_index[row]) + 1, "category_id": 1, "keypoints": flat,
                "num_keypoints": int((v > 0).sum()), "scores": [_short(c) for c in confidence], "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0}

    @classmethod
    def from_coco(cls, data: dict[str, Any], category: str | None = None) -> Keypoints:
        """Read COCO keypoint annotations, of this program or of a labelling tool; one row per annotation.

        Rows are ordered by image, then as in the file. image_index counts the file's images, so images without an
        annotation leave gaps. Missing `scores` become 1 where v > 0, else 0. `category` picks one by name where
        the file has several kinds of annotated keypoints. Raises KeypointError for anything else than COCO.
        """
        from .coco import read_coco

        return cls(**read_coco(data, category))

    def to_json(self, threshold: float = VISIBLE_CONFIDENCE) -> str:
        """`to_coco` as JSON text."""
        return json.dumps(self.to_coco(threshold))

    @classmethod
    def from_json(cls, text: str, category: str | None = None) -> Keypoints:
        """The inverse of `to_json`; `text` is JSON text, not a path."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise KeypointError(f"the keypoints are not JSON ({error}); give COCO keypoint JSON.") from error
        return cls.from_coco(data, category)

    @classmethod
    def load(cls, path: str | Path, category: str | None = None) -> Keypoints:
        """Read a COCO keypoint JSON file."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise KeypointError(f"{path} cannot be read ({error}); give a COCO keypoint JSON file.") from error
        try:
            return cls.from_json(text, category)
        except KeypointError as error:
            raise KeypointError(f"{path.name}: {error}") from error

    # ------------------------------------------------------------------------------------------- other formats

    def to_csv(self) -> str:
        """A table, one line per point: image, row, width, height, keypoint, name, x, y, confidence."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("image", "row", "width", "height", "keypoint", "name", "x", "y", "confidence"))
        for row, image in enumerate(self.images):
            for k, name in enumerate(self.names):
                x, y = self.xy[row, k]
                writer.writerow((image, row, *map(int, self.sizes[row]), k, name, _short(x), _short(y),
                                 _short(self.confidence[row, k])))
        return out.getvalue()

    def to_tracks(self, threshold: float = VISIBLE_CONFIDENCE) -> dict[str, np.ndarray]:
        """Rows as video frames: `track_path` float32 [B, K, 2] pixels, `track_visibility` bool [B, K]."""
        return {"track_path": self.xy.copy(), "track_visibility": self.confidence >= threshold}

    def to_point_json(self, row: int = 0) -> str:
        """One row as the JSON text `[{"x": …, "y": …}, …]`, K points in pixels, that point editors exchange."""
        return json.dumps([{"x": _short(x), "y": _short(y)} for x, y in self.frame(row).xy[0]])

    def to_track_json(self) -> str:
        """Rows as video frames: a JSON list of K tracks, each a list of B `{"x": …, "y": …}` in pixels."""
        tracks = [[{"x": _short(x), "y": _short(y)} for x, y in self.xy[:, k]] for k in range(self.num_keypoints)]
        return json.dumps(tracks)


def _short(value: Any) -> float:
    """The shortest decimal that reads back as the same float32, so that files are small and lossless."""
    return float(str(np.float32(value)))


def _array(name: str, value: Any, dtype: type, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A fresh array of this type and shape; an empty one takes any shape of no elements."""
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
