"""What an evaluation keeps on disk: tokens and found keypoints, under names that depend on all they were made
from.

Files are written completely or not at all. Nothing in them is a pickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..files import write_atomically
from ..keypoints.tokens import KeypointTokens

_FORMAT = 1
_ARRAYS = ("xy", "confidence", "landmarks", "visible")


@dataclass(frozen=True, eq=False)
class Points:
    """Keypoints and labels of B images: xy [B, K, 2] and landmarks [B, L, 2], float64 in the unit square of
    each image; confidence [B, K]; visible bool [B, L]; names of the images; skipped (name, reason) of
    unusable ones."""

    xy: np.ndarray
    confidence: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray
    names: list[str]
    skipped: list[tuple[str, str]]

    @staticmethod
    def empty(skipped: Sequence[tuple[str, str]] = ()) -> Points:
        """No image at all."""
        return Points(
            np.zeros((0, 0, 2)),
            np.zeros((0, 0)),
            np.zeros((0, 0, 2)),
            np.zeros((0, 0), bool),
            [],
            list(skipped),
        )

    @staticmethod
    def concat(parts: Sequence[Points]) -> Points:
        """One after the other; parts without an image only add to `skipped`."""
        skipped = [entry for part in parts for entry in part.skipped]
        full = [part for part in parts if part.names]
        if not full:
            return Points.empty(skipped)
        arrays = (np.concatenate([getattr(part, name) for part in full]) for name in _ARRAYS)
        return Points(*arrays, [name for part in full for name in part.names], skipped)

    def to_bytes(self) -> bytes:
        """An .npz file."""
        about = json.dumps({"names": self.names, "skipped": self.skipped}).encode()
        file = io.BytesIO()
        np.savez(file, about=np.frombuffer(about, np.uint8), **{name: getattr(self, name) for name in _ARRAYS})
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Points:
        """The inverse of `to_bytes`; raises ValueError, KeyError or BadZipFile for anything else."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            return Points(*(file[name] for name in _ARRAYS), about["names"], [tuple(s) for s in about["skipped"]])


class StageCache:
    """A folder of finished stages; without a folder nothing is kept or loaded."""

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def key(self, stage: str, **parts: Any) -> str:
        """A name for what `stage` makes of `parts` (JSON values)."""
        text = json.dumps({**parts, "version": __version__, "format": _FORMAT}, sort_keys=True)
        return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    def path(self, name: str) -> Path | None:
        """Where the file `name` of the cache lies; None without a folder."""
        return None if self.folder is None else self.folder / name

    def load_tokens(self, key: str) -> tuple[KeypointTokens, list[tuple[str, str]]] | None:
        """Tokens and the images that were skipped in training, or None."""
        path, about = self.path(f"{key}.safetensors"), self.path(f"{key}.json")
        if path is None or not path.is_file() or not about.is_file():
            return None
        return KeypointTokens.load(path), [tuple(s) for s in json.loads(about.read_text("utf-8"))["skipped"]]

    def save_tokens(self, key: str, tokens: KeypointTokens, skipped: Sequence[tuple[str, str]]) -> None:
        """Keep tokens and the (name, reason) of the images that were skipped in training."""
        if self.folder is not None:
            tokens.save(self.path(f"{key}.safetensors"))
            write_atomically(self.path(f"{key}.json"), json.dumps({"skipped": list(skipped)}).encode())

    def load_points(self, name: str) -> Points | None:
        """A finished shard, or None; one that is damaged is made again."""
        path = self.path(f"{name}.npz")
        if path is None or not path.is_file():
            return None
        try:
            return Points.from_bytes(path.read_bytes())
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError):
            return None

    def save_points(self, name: str, points: Points) -> None:
        """Keep a finished shard."""
        if self.folder is not None:
            path = self.path(f"{name}.npz")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, points.to_bytes())


def model_key(backbone) -> str:
    """A key for the numbers of a model: its weights and its dtype."""
    return f"{backbone.hash} {backbone.dtype}"
