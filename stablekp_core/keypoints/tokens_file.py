"""The file of keypoint tokens: one safetensors file with a versioned JSON header.

Knows the layout of the file and how to recognise a damaged one; tokens.py checks the values.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import KeypointError
from ..files import write_atomically
from .read_settings import ReadSettings
from .readouts import Readout
from .self_check import SelfCheck
from .spatial_prior import SpatialPrior

if TYPE_CHECKING:
    from .tokens import KeypointTokens

FORMAT = "stable-keypoints-tokens"
VERSION = 1
_METADATA_KEY = "stable_keypoints"
_PROMPT = "mean of tokens, layer by layer"  # how refined tokens were fitted
_OCCLUDER = "occluder_"  # and the number of a weight
_OTHER = "other_"  # before the tensors of the other read-out
_TENSORS = ("embeddings", "scores", "losses", "peers_mean", "peers_covariance", "refined")
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


def write_tokens(tokens: KeypointTokens, path: str | Path) -> Path:
    """Write one .safetensors file (suffix added when absent), whole or not at all; returns its path. Raises
    KeypointError for the suffix of a pickle file."""
    path = Path(path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise KeypointError(f"{path.name} asks for a pickle file; tokens are saved as .safetensors only.")
    if path.suffix.lower() != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    tensors = {"embeddings": tokens.embeddings}
    if tokens.losses:
        tensors["losses"] = torch.tensor(tokens.losses, dtype=torch.float64)
    tensors |= _readout_tensors(tokens)
    if tokens.other is not None:
        tensors |= {_OTHER + key: value for key, value in _readout_tensors(tokens.other).items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "chosen": tokens.chosen,
        "votes": tokens.votes,
        "config": tokens.config,
        "model_name": tokens.model_name,
        "model_hash": tokens.model_hash,
        "names": tokens.names,
        "skeleton": tokens.skeleton,
        "colors": tokens.colors,
        "reading": tokens.reading.to_dict(),
        "peers_images": tokens.spatial_prior.images if tokens.spatial_prior else 0,
        "refined_prompt": _PROMPT,
    }
    if tokens.other is not None:
        images = tokens.other.spatial_prior.images if tokens.other.spatial_prior else 0
        header["other"] = {"chosen": tokens.other.chosen, "votes": tokens.other.votes, "peers_images": images}
    if tokens.check is not None:
        header["check"] = tokens.check.to_dict()
    data = save(tensors, metadata={_METADATA_KEY: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    return path


def _readout_tensors(readout: KeypointTokens | Readout) -> dict[str, torch.Tensor]:
    """What is stored of one read-out, by the names in the file."""
    tensors = {}
    if readout.scores:
        tensors["scores"] = torch.tensor(readout.scores, dtype=torch.float64)
    if readout.spatial_prior is not None:
        tensors["peers_mean"] = readout.spatial_prior.mean
        tensors["peers_covariance"] = readout.spatial_prior.covariance.contiguous()
    if readout.refined is not None:
        tensors["refined"] = readout.refined.float().contiguous()
    for i, weight in enumerate((readout.occlusion or {}).values()):
        tensors[f"{_OCCLUDER}{i}"] = weight.contiguous()
    return tensors


def read_tokens(path: str | Path) -> dict[str, Any]:
    """The fields of `KeypointTokens` from a tokens file; raises KeypointError for anything that is not one."""
    path = Path(path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise KeypointError(
            f"{path.name} is a pickle file, which can run code when opened; only .safetensors token files are read."
        )
    if not path.is_file():
        raise KeypointError(f"{path} does not exist; give the path of a keypoint tokens file (.safetensors).")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = _read_header(path.name, file.metadata())
            stored = set(file.keys())
            plain = {key: key.removeprefix(_OTHER) for key in stored}
            wanted = [key for key, name in plain.items() if name in _TENSORS or name.startswith(_OCCLUDER)]
            # Copies: Windows cannot replace a file that tensors are still mapped to.
            tensors = {key: file.get_tensor(key).clone() for key in wanted}
    except SafetensorError as error:
        raise KeypointError(f"{path.name} is not a complete safetensors file ({error}); save it again.") from error
    return _from_parts(path.name, header, tensors)


def _from_parts(name: str, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if "embeddings" not in tensors:
        raise KeypointError(f"{name} has no embeddings; it is damaged, use another tokens file.")
    try:
        own = {key: value for key, value in tensors.items() if not key.startswith(_OTHER)}
        return dict(
            **_readout(name, header, own, header.get("refined_prompt")),
            embeddings=tensors["embeddings"],
            config=dict(header["config"]),
            model_name=str(header["model_name"]),
            model_hash=str(header["model_hash"]),
            names=tuple(header["names"]),
            skeleton=tuple(header["skeleton"]),
            colors=tuple(header["colors"]),
            losses=_vector(tensors, "losses"),
            reading=ReadSettings.from_dict(header["reading"]) if "reading" in header else None,
            other=_other(name, header, tensors),
            check=SelfCheck.from_dict(header["check"]) if "check" in header else None,
        )
    except KeypointError as error:
        raise KeypointError(f"{name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise KeypointError(f"{name} has a damaged header ({error!r}); use another tokens file.") from error


def _read_header(name: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or _METADATA_KEY not in metadata:
        raise KeypointError(
            f"{name} is a safetensors file but not a keypoint tokens file; use one that Save "
            f"Keypoint Tokens or the train command wrote."
        )
    try:
        header = json.loads(metadata[_METADATA_KEY])
    except json.JSONDecodeError as error:
        raise KeypointError(f"{name} has a damaged header ({error}); use another tokens file.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise KeypointError(f"{name} does not have the format {FORMAT}; use a keypoint tokens file.")
    if header.get("version") != VERSION:
        raise KeypointError(
            f"{name} has tokens format version {header.get('version')!r}, but this program "
            f"reads version {VERSION}; update it."
        )
    return header


def _readout(name: str, header: dict[str, Any], tensors: dict[str, torch.Tensor], prompt: str | None) -> dict[str, Any]:
    """The fields of a `Readout`."""
    refined = _refined(name, header, tensors, prompt)
    return dict(
        chosen=tuple(header["chosen"]),
        votes=tuple(header["votes"]),
        scores=_vector(tensors, "scores"),
        spatial_prior=_spatial_prior(header, tensors),
        refined=refined,
        occlusion=_occlusion(tensors) if refined is not None else None,
    )


def _other(name: str, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Readout | None:
    if "other" not in header:
        return None
    own = {key.removeprefix(_OTHER): value for key, value in tensors.items() if key.startswith(_OTHER)}
    return Readout(**_readout(name, header["other"], own, header.get("refined_prompt")))


def _spatial_prior(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> SpatialPrior | None:
    if "peers_mean" not in tensors:
        return None
    return SpatialPrior(tensors["peers_mean"], tensors["peers_covariance"], int(header["peers_images"]))


def _refined(
    name: str, header: dict[str, Any], tensors: dict[str, torch.Tensor], prompt: str | None
) -> torch.Tensor | None:
    if "refined" in tensors and prompt != _PROMPT:
        warnings.warn(
            f"{name} was refined by an earlier version, in a format that is not read any more; its learned tokens are "
            "used. Train again for better keypoints.",
            stacklevel=2,
        )
        return None
    refined = tensors.get("refined")
    # Files of earlier versions may hold mirrored tokens behind those of the keypoints.
    return None if refined is None else refined[: len(header["chosen"])]


def _occlusion(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The state_dict of the occlusion network: weight and bias of every second module are stored in order."""
    stored = [tensors[f"{_OCCLUDER}{i}"] for i in range(sum(key.startswith(_OCCLUDER) for key in tensors))]
    names = (f"{module}.{part}" for module in range(0, 2 * len(stored), 2) for part in ("weight", "bias"))
    return dict(zip(names, stored, strict=False)) or None


def _vector(tensors: dict[str, torch.Tensor], key: str) -> tuple[float, ...]:
    return tuple(tensors[key].flatten().tolist()) if key in tensors else ()
