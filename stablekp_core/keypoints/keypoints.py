"""Keypoints of images, and the file formats they go out to and come in from.

Pixel frame everywhere: x right, y down, continuous; pixel (0, 0) covers [0, 1) x [0, 1), its centre is (0.5,
0.5).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import KeypointError
from .coco import read_coco, short_float, write_coco
from .label_files import load_json, parse_json
from .schema import check_subset, checked_array, clean_labels, edges_of_subset, pick

VISIBLE_CONFIDENCE = 0.5  # default confidence from which COCO's v is 2 (visible)
#: Everything that is known of each point of each row, arrays [B, K, ...], and what is known of each row. Whatever
#: chooses, orders, joins, sends or stores keypoints goes by these two lists.
POINT_FIELDS = ("xy", "confidence", "occluded")
ROW_FIELDS = ("sizes", "images", "image_index")


class EmptyImage(NamedTuple):
    """An image without a row: its index, its name, and its size in pixels (0 where that is not known)."""

    index: int
    name: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, eq=False)
class Keypoints:
    """K keypoints in each of B rows; a row is one instance (figure) in one image.

    xy: float32 [B, K, 2], pixels of the original image. confidence: float32 [B, K] in [0, 1]; 0 means that
    nothing is known about the point. occluded: float32 [B, K] in [0, 1], the probability that the point is
    occluded; 0 where that is not known. sizes: int64 [B, 2], (width, height) of the row's image. names: K different
    names. skeleton: 0-based index pairs. images: B image names. colors: K RGB triples 0..255, or empty for the palette.
    image_index: int64 [B], which image a row belongs to; counts up from 0 unless an image has several rows or none.
    num_images: how many images these are keypoints of, with those that have no row; at least the highest image_index
    plus 1, which it is when left out. empty_images: what is known of images without a row.
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
    occluded: np.ndarray | None = None
    num_images: int | None = None
    empty_images: tuple[EmptyImage, ...] = ()

    def __post_init__(self) -> None:
        xy = checked_array("xy", self.xy, np.float32)
        if xy.ndim != 3 or xy.shape[2] != 2:
            raise KeypointError(f"keypoint positions have shape {list(xy.shape)}, but [rows, keypoints, 2] is needed.")
        rows, count = xy.shape[:2]
        index = np.arange(rows) if self.image_index is None else self.image_index
        occluded = np.zeros((rows, count)) if self.occluded is None else self.occluded
        names, skeleton, colors = clean_labels(count, self.names, self.skeleton, self.colors)
        values = {
            "xy": xy,
            "confidence": checked_array("confidence", self.confidence, np.float32, (rows, count)),
            "occluded": checked_array("occluded", occluded, np.float32, (rows, count)),
            "sizes": checked_array("sizes", self.sizes, np.int64, (rows, 2)),
            "image_index": checked_array("image_index", index, np.int64, (rows,)),
            "names": names,
            "skeleton": skeleton,
            "colors": colors,
            "images": tuple(str(n) for n in self.images) or ("",) * rows,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_values(rows)
        self._count_images()

    def _count_images(self) -> None:
        shown = set(self.image_index.tolist())
        empty = {int(e[0]): EmptyImage(int(e[0]), str(e[1]), *map(int, e[2:])) for e in self.empty_images}
        empty = tuple(empty[i] for i in sorted(empty) if i not in shown)
        least = max((*shown, *(e.index for e in empty)), default=-1) + 1
        count = least if self.num_images is None else int(self.num_images)
        if count < least:
            raise KeypointError(f"these are keypoints of {count} images, but image {least - 1} is among them.")
        object.__setattr__(self, "num_images", count)
        object.__setattr__(self, "empty_images", empty)

    def _check_values(self, rows: int) -> None:
        for name in ("confidence", "occluded"):
            values = getattr(self, name)
            if values.size and (values.min() < 0 or values.max() > 1):
                raise KeypointError(f"{name} runs from {values.min():g} to {values.max():g}, but it must lie in 0..1.")
        if rows and self.sizes.min() < 1:
            raise KeypointError("an image size is not positive; give (width, height) in pixels for each row.")
        if rows and self.image_index.min() < 0:
            raise KeypointError("an image index is negative; count the images from 0.")
        if len(self.images) != rows:
            raise KeypointError(f"{len(self.images)} image names were given for {rows} rows; give one each.")

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_keypoints(self) -> int:
        """K."""
        return self.xy.shape[1]

    @property
    def is_occluded(self) -> np.ndarray:
        """Whether each point is occluded with a probability of at least 0.5: bool [B, K]."""
        return self.occluded >= 0.5

    def image_list(self) -> list[tuple[str, tuple[int, int]]]:
        """(name, (width, height)) of all `num_images` images; "" and (0, 0) where nothing is known."""
        known: list[tuple[str, tuple[int, int]]] = [("", (0, 0))] * self.num_images
        for empty in self.empty_images:
            known[empty.index] = empty.name, (empty.width, empty.height)
        sizes = self.sizes.tolist()
        for row, index in enumerate(self.image_index.tolist()):
            known[index] = self.images[row], tuple(sizes[row])
        return known

    # Choosing

    def select(self, indices: Sequence[int]) -> Keypoints:
        """Keypoints `indices` in this order (each at most once); skeleton edges to dropped points go."""
        indices = check_subset(indices, self.num_keypoints)
        return replace(
            self,
            **{name: getattr(self, name)[:, indices] for name in POINT_FIELDS},
            skeleton=edges_of_subset(self.skeleton, indices),
            names=pick(self.names, indices),
            colors=pick(self.colors, indices),
        )

    def rows(self, indices: Sequence[int]) -> Keypoints:
        """These rows, with their image_index and the number of images unchanged."""
        index = np.asarray(indices, dtype=np.int64)
        return replace(self, **{name: _take(getattr(self, name), index) for name in (*POINT_FIELDS, *ROW_FIELDS)})

    def reordered(self, orders: np.ndarray) -> Keypoints:
        """The points of each row in another order: point k of row b is the former point orders[b, k] (int [B, K]), with
        its confidence and occlusion. Names keep their order."""
        row = np.arange(len(self))[:, None]
        return replace(self, **{name: getattr(self, name)[row, orders] for name in POINT_FIELDS})

    def frame(self, i: int) -> Keypoints:
        """Row i alone (B = 1), with image_index 0. Raises KeypointError when there is no such row."""
        if not -len(self) <= i < len(self):
            raise KeypointError(f"row {i} was asked for, but there are {len(self)} rows, counted from 0.")
        return replace(self.rows([i]), image_index=np.zeros(1, dtype=np.int64), num_images=1, empty_images=())

    def instances(self, image: int) -> Keypoints:
        """All rows whose image_index is `image`; may be empty."""
        return self.rows(np.flatnonzero(self.image_index == image))

    @staticmethod
    def concat(parts: Sequence[Keypoints]) -> Keypoints:
        """Join keypoints; the images of later parts are numbered after those of earlier ones. Raises KeypointError for
        no parts and for parts with other names."""
        if not parts:
            raise KeypointError("no keypoints were given to put together; give at least one.")
        first, start = parts[0], 0
        index, empty = [], []
        for part in parts:
            if part.names != first.names:
                raise KeypointError(
                    f"keypoints named {', '.join(part.names)} cannot be put together with "
                    f"keypoints named {', '.join(first.names)}; detect all of them with the "
                    "same tokens."
                )
            index.append(part.image_index + start)
            empty += [e._replace(index=e.index + start) for e in part.empty_images]
            start += part.num_images
        joined = {name: _join([getattr(part, name) for part in parts]) for name in (*POINT_FIELDS, *ROW_FIELDS)}
        joined["image_index"] = np.concatenate(index)
        return replace(first, **joined, num_images=start, empty_images=tuple(empty))

    # Drawing

    def draw(self, image: np.ndarray | None = None, index: int = 0, **how: Any) -> np.ndarray:
        """All figures of image number `index` over `image`, or on black; a new uint8 RGB [H, W, 3].

        image: uint8 RGB [H, W, 3], the one the keypoints were found on. how: options of
        `drawing.overlay.draw_keypoints`. Raises KeypointError when no row belongs to that image.
        """
        from ..drawing.overlay import draw_keypoints  # Pillow is loaded when something is drawn

        rows = self.instances(index)
        if not len(rows):
            raise KeypointError(f"there are no keypoints of image {index}; the images are counted from 0.")
        how = {"skeleton": self.skeleton, "colors": self.colors, "size": tuple(rows.sizes[0].tolist()), **how}
        if image is None:
            how = {"canvas": "black", **how}
        return draw_keypoints(image, rows.xy, rows.confidence, occluded=rows.is_occluded, **how)

    def contact_sheet(self, images: Mapping[int, np.ndarray] | Sequence[np.ndarray], **how: Any) -> np.ndarray:
        """Images in a grid, each with its figures; uint8 RGB [H, W, 3].

        images: uint8 RGB [h, w, 3] of the image numbers 0, 1, ..., or by number; another size than the keypoints'
        scales the points. how: options of `drawing.sheets.contact_sheet`.
        """
        from ..drawing.sheets import contact_sheet

        images = images if isinstance(images, Mapping) else dict(enumerate(images))
        figures = [self.instances(number) for number in images]
        points = [
            rows.xy * (np.array(image.shape[1::-1]) / rows.sizes[:, None])
            for rows, image in zip(figures, images.values(), strict=True)
        ]
        how = {"skeleton": self.skeleton, "colors": self.colors, **how}
        return contact_sheet(list(images.values()), points, [rows.confidence for rows in figures], **how)

    # COCO

    def to_coco(self, threshold: float = VISIBLE_CONFIDENCE) -> dict[str, Any]:
        """COCO keypoint annotations as plain Python; coordinates and scores survive a round trip exactly.

        v is 2 where confidence >= `threshold`, 1 below it or where the point is occluded (0.5 or more), and 0 ("not
        labelled") where confidence is exactly 0. `scores` holds the confidences, and `hidden`, if it is known, the
        probabilities of occlusion; `area` is that of the box around the points with v > 0.
        """
        return write_coco(self, threshold)

    @classmethod
    def from_coco(cls, data: dict[str, Any], category: str | None = None) -> Keypoints:
        """Read COCO keypoint annotations, of this program or of a labelling tool; one row per annotation.

        Rows are ordered by image, then as in the file. image_index counts the file's images, so images
        without an annotation leave gaps. Missing `scores` become 1 where v > 0, else 0. `category` picks one
        by name where the file has several kinds of annotated keypoints; kinds with the same points are one. Lines of
        the skeleton between points that do not exist are left out with a warning. Raises KeypointError for anything
        else than COCO.
        """
        return cls(**read_coco(data, category))

    def to_json(self, threshold: float = VISIBLE_CONFIDENCE) -> str:
        """`to_coco` as JSON text."""
        return json.dumps(self.to_coco(threshold))

    @classmethod
    def from_json(cls, text: str, category: str | None = None) -> Keypoints:
        """The inverse of `to_json`; `text` is JSON text, not a path."""
        return cls.from_coco(parse_json(text, "the text"), category)

    @classmethod
    def load(cls, path: str | Path, category: str | None = None) -> Keypoints:
        """Read a COCO keypoint JSON file; category and errors as for `from_coco`."""
        data = load_json(path)
        try:
            return cls.from_coco(data, category)
        except KeypointError as error:
            raise KeypointError(f"{Path(path).name}: {error}") from error

    # Other formats

    def to_csv(self) -> str:
        """A table, one line per point: image, row, width, height, keypoint, name, x, y, confidence."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("image", "row", "width", "height", "keypoint", "name", "x", "y", "confidence"))
        for row, image in enumerate(self.images):
            width, height = map(int, self.sizes[row])
            for k, name in enumerate(self.names):
                numbers = map(short_float, (*self.xy[row, k], self.confidence[row, k]))
                writer.writerow((image, row, width, height, k, name, *numbers))
        return out.getvalue()

    def to_point_json(self, row: int = 0) -> str:
        """One row as JSON text `[{"x": …, "y": …}, …]`: K points in pixels, as point editors use."""
        return json.dumps(_points(self.frame(row).xy[0]))


def _points(xy: np.ndarray) -> list[dict[str, float]]:
    return [{"x": short_float(x), "y": short_float(y)} for x, y in xy]


def _take(values: np.ndarray | tuple, index: np.ndarray) -> np.ndarray | tuple:
    return values[index] if isinstance(values, np.ndarray) else tuple(values[i] for i in index)


def _join(values: list) -> np.ndarray | tuple:
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else tuple(v for part in values for v in part)
