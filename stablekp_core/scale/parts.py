"""What a big detection run writes: Parquet parts, each whole or absent, and the plan that says which piece of
the input each part holds. A run that is started again reads the plan and makes only the parts that are
missing."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KeypointError
from ..files import left_behind, write_atomically
from ..keypoints.keypoints import POINT_FIELDS
from ..keypoints.tokens import KeypointTokens
from .inputs import Piece
from .storage import file_system

PLAN = "_plan.jsonl"  # readers of Parquet folders ignore names that begin with _ or .
_MORE_FIELDS = tuple(name for name in POINT_FIELDS if name not in ("xy", "confidence"))
_FORMAT, _VERSION = "stable-keypoints-plan", 1


@dataclass(frozen=True)
class Row:
    """One image. points: what is known of its keypoints, by the names of `POINT_FIELDS` (xy float32 [K, 2] in pixels
    of the image, the others [K] in [0, 1]); None when the image could not be read, and `error` says why. spread:
    float32 [K], see `Detection`; it is not written."""

    image_id: str
    width: int | None = None
    height: int | None = None
    points: dict[str, np.ndarray] | None = None
    spread: np.ndarray | None = None
    error: str | None = None


def part_name(number: int) -> str:
    """File name of part `number`."""
    return f"part-{number:07d}.parquet"


def part_bytes(rows: Sequence[Row], tokens: KeypointTokens, tokens_hash: str) -> bytes:
    """A Parquet file: image_id, width, height, keypoints (K lists of [x, y, confidence]), tokens, error, and each other
    field of points (`occluded`), a list of K numbers. Names and skeleton of the keypoints are JSON in the schema's
    metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            ("image_id", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("keypoints", pa.list_(pa.list_(pa.float32()))),
            ("tokens", pa.string()),
            ("error", pa.string()),
            *((name, pa.list_(pa.float32())) for name in _MORE_FIELDS),
        ],
        metadata={"keypoint_names": json.dumps(tokens.names), "skeleton": json.dumps(tokens.skeleton)},
    )
    table = pa.table(
        {
            # File names need not be valid text; Parquet's must be.
            "image_id": [r.image_id.encode("utf-8", "replace").decode() for r in rows],
            "width": [r.width for r in rows],
            "height": [r.height for r in rows],
            "keypoints": [None if r.points is None else _triples(r.points).tolist() for r in rows],
            "tokens": [tokens_hash] * len(rows),
            "error": [r.error for r in rows],
            **{name: [None if r.points is None else r.points[name].tolist() for r in rows] for name in _MORE_FIELDS},
        },
        schema,
    )
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _triples(points: dict[str, np.ndarray]) -> np.ndarray:
    """float32 [K, 3]: x, y, confidence."""
    return np.concatenate([points["xy"], points["confidence"][:, None]], 1).astype(np.float32)


class Folder:
    """The output folder, here or behind a URL; every file in it is complete."""

    def __init__(self, url: str):
        self.fs, self.path = file_system(url)
        self.path = self.path.rstrip("/")
        self.url = self.fs.unstrip_protocol(self.path)
        self._local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def names(self) -> set[str]:
        """Names of the files in the folder."""
        if not self.fs.exists(self.path):
            return set()
        self.fs.invalidate_cache()
        return {p.rstrip("/").rpartition("/")[2] for p in self.fs.ls(self.path, detail=False)}

    def read(self, name: str) -> bytes:
        """The content of the file `name`."""
        return self.fs.cat_file(f"{self.path}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all: by renaming on disks; object stores show an object once it is complete."""
        if self._local:
            Path(self.path).mkdir(parents=True, exist_ok=True)
            write_atomically(Path(self.path) / name, data)
        else:
            self.fs.pipe_file(f"{self.path}/{name}", data)

    def sweep(self) -> None:
        """Remove what processes of this machine that were killed left half written; other machines may be at work in
        the same folder."""
        if self._local and Path(self.path).is_dir():
            for leftover in Path(self.path).glob(".*.tmp"):
                if left_behind(leftover):
                    leftover.unlink(missing_ok=True)


def read_plan(folder: Folder, settings: dict[str, Any]) -> list[Piece]:
    """The pieces of an earlier run into this folder, in the order of their parts; none when there was no run.

    Raises KeypointError when that run had other settings, or when the folder holds parts without a plan.
    """
    names = folder.names()
    if PLAN not in names:
        if any(n.endswith(".parquet") for n in names):
            raise KeypointError(f"{folder.path} holds Parquet files but no {PLAN}; give an empty folder.")
        return []
    lines = folder.read(PLAN).decode().splitlines()
    header = json.loads(lines[0]) if lines else {}
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise KeypointError(f"{PLAN} in {folder.path} was not written by this program; give an empty folder.")
    settings = json.loads(json.dumps(settings))
    different = [k for k in settings if header["settings"].get(k) != settings[k]]
    if different:
        raise KeypointError(
            f"{folder.path} holds keypoints found with another {different[0]} "
            f"({header['settings'].get(different[0])}); give another folder, or the same settings."
        )
    return [Piece.from_json(line) for line in lines[1:]]


def write_plan(folder: Folder, settings: dict[str, Any], pieces: Sequence[Piece]) -> None:
    """Write the plan that `read_plan` reads: the settings (JSON values), then one piece a line."""
    header = json.dumps({"format": _FORMAT, "version": _VERSION, "settings": settings})
    folder.write(PLAN, "\n".join([header, *(piece.to_json() for piece in pieces), ""]).encode())
