"""The linear map from unnamed keypoints to named landmarks, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import LANDMARK_MODES
from ..errors import KeypointError
from ..files import write_atomically
from ..keypoints.keypoints import Keypoints
from ..keypoints.procrustes import fill_unseen, trust
from ..keypoints.schema import clean_labels

FORMAT = "stable-keypoints-landmark-map"
VERSION = 1
MODES = LANDMARK_MODES
_METADATA_KEY = "stable_keypoints"


@dataclass(frozen=True, eq=False)
class LandmarkMap:
    """A linear map from K keypoints to L landmarks, both in sides of the image with the origin at its centre.

    weights: float64 [2K, 2L], point-major (x0, y0, x1, …). bias: float64 [2L]. shape, trusted: float64 [K, 2]
    and [K], the mean shape of the keypoints (longer image side = 1) and their reference confidence, by which
    points that were not seen are replaced. fitted: bool [L], False for landmarks with too few labels, which stay
    missing. error: float64 [L], mean leave-one-out distance in percent of the longer image side; nan where
    not fitted. labelled: int [L], labels used. mode, ridge, rank: what was fitted (ridge relative, see
    `fit_ridge`; rank 0 means all components). images: labelled images used.
    """

    weights: np.ndarray
    bias: np.ndarray
    shape: np.ndarray
    trusted: np.ndarray
    fitted: np.ndarray
    error: np.ndarray
    labelled: np.ndarray
    keypoints: tuple[str, ...]
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    mode: str = "figure"
    ridge: float = 0.0
    rank: int = 0
    images: int = 0

    def __post_init__(self) -> None:
        k, count = len(self.keypoints), len(self.names)
        shapes = {
            "weights": (2 * k, 2 * count),
            "bias": (2 * count,),
            "shape": (k, 2),
            "trusted": (k,),
            "fitted": (count,),
            "error": (count,),
            "labelled": (count,),
        }
        for name, shape in shapes.items():
            kind = {"fitted": bool, "labelled": np.int64}.get(name, np.float64)
            value = np.array(getattr(self, name), dtype=kind)
            if value.shape != shape or not (name == "error" or np.isfinite(value).all()):
                raise KeypointError(
                    f"{name} of a landmark map has shape {list(value.shape)} or values that are not finite, "
                    f"but {list(shape)} finite numbers are needed; fit the map again."
                )
            object.__setattr__(self, name, value)
        _, edges, _ = clean_labels(count, self.names, self.skeleton, ())
        object.__setattr__(self, "skeleton", edges)

    # Use

    def apply(self, keypoints: Keypoints) -> Keypoints:
        """The landmarks of each row, in pixels of its image, with this map's names and skeleton.

        A landmark's confidence is that of the keypoints it is made of, in proportion to their weights;
        landmarks that were not fitted have confidence 0. Raises KeypointError for other keypoints than it was
        fitted to.
        """
        keypoints = self._matching(keypoints)
        rows, count = len(keypoints), len(self.names)
        features = keypoint_features(keypoints, self.shape, self.trusted)  # [B, 2K]
        unit = (features @ self.weights + self.bias).reshape(rows, count, 2) + 0.5
        share = self._shares()  # [K, L]
        confidence = np.clip(keypoints.confidence @ share, 0.0, 1.0) * self.fitted
        xy = np.where(self.fitted[:, None], unit * keypoints.sizes[:, None, :], 0.0)
        return replace(
            keypoints,
            xy=xy,
            confidence=confidence,
            occluded=np.clip(keypoints.occluded @ share, 0.0, 1.0),
            names=self.names,
            skeleton=self.skeleton,
            colors=(),
        )

    def _shares(self) -> np.ndarray:
        """How much each keypoint counts in each landmark, summing to 1 over keypoints: [K, L]."""
        blocks = self.weights.reshape(len(self.keypoints), 2, len(self.names), 2)
        share = np.abs(blocks).sum(axis=(1, 3))
        return share / np.maximum(share.sum(axis=0), 1e-12)

    def _matching(self, keypoints: Keypoints) -> Keypoints:
        if keypoints.names == self.keypoints:
            return keypoints
        if set(self.keypoints) <= set(keypoints.names):
            return keypoints.select([keypoints.names.index(name) for name in self.keypoints])
        raise KeypointError(
            f"this landmark map was fitted to the {len(self.keypoints)} keypoints {_some(self.keypoints)}, "
            f"but {len(keypoints.names)} named {_some(keypoints.names)} were given; use the tokens it was "
            f"fitted with."
        )

    def report(self) -> str:
        """A few lines of text: what was fitted, and the leave-one-out error of each landmark."""
        rank = f", {self.rank} components" if self.rank else ""
        source = f"{self.images} labelled images" if self.images else "fitted elsewhere"
        lines = [f"{self.mode} map, ridge {self.ridge:g}{rank}, {source}"]
        if np.isfinite(self.error).any():
            lines.append(f"mean leave-one-out error {np.nanmean(self.error):.2f} % of the longer image side")
        for name, error, labelled in zip(self.names, self.error, self.labelled, strict=True):
            value = "not known" if np.isnan(error) else f"{error:.2f} %"
            lines.append(f"  {name}: {value} ({labelled} labels)")
        missing = [name for name, known in zip(self.names, self.fitted, strict=True) if not known]
        if missing:
            lines.append(f"not fitted, too few labels: {', '.join(missing)}")
        return "\n".join(lines)

    # The file

    def save(self, path: str | Path) -> Path:
        """Write one .safetensors file (suffix added when absent), whole or not at all; returns its path."""
        from safetensors.numpy import save

        path = Path(path)
        if path.suffix.lower() != ".safetensors":
            path = path.with_name(path.name + ".safetensors")
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        header = {"format": FORMAT, "version": VERSION}
        header.update({name: getattr(self, name) for name in _PLAIN})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(tensors, metadata={_METADATA_KEY: json.dumps(header)}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> LandmarkMap:
        """Read and check a landmark map file; raises KeypointError for anything that is not one."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise KeypointError(f"{path} does not exist; give the path of a landmark map file (.safetensors).")
        try:
            with safe_open(str(path), framework="np") as file:
                header = _read_header(path.name, file.metadata())
                arrays = {name: file.get_tensor(name) for name in file.keys() if name in _ARRAYS}
        except SafetensorError as error:
            raise KeypointError(
                f"{path.name} is not a complete safetensors file ({error}); save the landmark map again."
            ) from error
        try:
            return cls(
                **arrays,
                **{name: header[name] for name in _PLAIN if name not in ("keypoints", "names")},
                keypoints=tuple(header["keypoints"]),
                names=tuple(header["names"]),
            )
        except KeypointError as error:
            raise KeypointError(f"{path.name}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise KeypointError(f"{path.name} is damaged ({error!r}); fit and save the map again.") from error


_ARRAYS = ("weights", "bias", "shape", "trusted", "fitted", "error", "labelled")
_PLAIN = ("keypoints", "names", "skeleton", "mode", "ridge", "rank", "images")


def keypoint_features(keypoints: Keypoints, shape: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Keypoints as features float64 [B, 2K]: in sides of the image from its centre, unseen ones replaced."""
    longer = keypoints.sizes.max(axis=1)[:, None, None]
    seen = trust(keypoints.confidence, trusted)
    xy = fill_unseen(keypoints.xy / longer, seen, shape) * longer
    return (xy / keypoints.sizes[:, None, :] - 0.5).reshape(len(xy), -1)


def _read_header(name: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {}).get(_METADATA_KEY, "null"))
    except json.JSONDecodeError as error:
        raise KeypointError(f"{name} has a damaged header ({error}); fit and save the map again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise KeypointError(f"{name} is not a landmark map; use a file that fitting landmarks wrote.")
    if header.get("version") != VERSION:
        raise KeypointError(
            f"{name} has landmark map version {header.get('version')!r}, but this program reads {VERSION}; update it."
        )
    return header


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
