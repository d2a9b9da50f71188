"""The file of keypoint readers: one safetensors file with a versioned JSON header (`*.guidance.safetensors`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import KeypointError
from ..files import write_atomically

if TYPE_CHECKING:
    from .readers import KeypointGuidance

FORMAT, VERSION = "stable-keypoints-guidance", 1
SUFFIX = ".guidance.safetensors"
_METADATA_KEY = "stable_keypoints"
_HEADER = (
    "timesteps",
    "errors",
    "guess_error",
    "tokens_digest",
    "model_hash",
    "model_name",
    "names",
    "skeleton",
    "colors",
)


def write_guidance(guidance: KeypointGuidance, path: str | Path) -> Path:
    """Write one file (suffix added when absent), whole or not at all; returns its path."""
    path = Path(path)
    if not path.name.lower().endswith(".safetensors"):
        path = path.with_name(path.name + SUFFIX)
    header = {"format": FORMAT, "version": VERSION} | {name: getattr(guidance, name) for name in _HEADER}
    tensors = {name: getattr(guidance, name).detach().cpu().contiguous() for name in ("readers", "prompt")}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata={_METADATA_KEY: json.dumps(header)}))
    return path


def read_guidance(path: str | Path) -> dict[str, Any]:
    """The fields of `KeypointGuidance`; raises KeypointError for anything that is not a guidance file."""
    path = Path(path)
    if not path.is_file():
        raise KeypointError(f"{path} does not exist; give a guidance file ({SUFFIX}) that fit-guidance wrote.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata, stored = file.metadata() or {}, set(file.keys())
            tensors = {name: file.get_tensor(name).float() for name in ("readers", "prompt") if name in stored}
    except SafetensorError as error:
        raise KeypointError(f"{path.name} is not a complete safetensors file ({error}); give another.") from error
    try:
        header = json.loads(metadata.get(_METADATA_KEY, "null"))
    except json.JSONDecodeError as error:
        raise KeypointError(f"{path.name} has a damaged header ({error}); fit the guidance again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise KeypointError(
            f"{path.name} is not a guidance file; give one that fit-guidance or Save Keypoint Guidance wrote."
        )
    if header.get("version") != VERSION:
        raise KeypointError(
            f"{path.name} has guidance format version {header.get('version')!r}, but this program reads version "
            f"{VERSION}; update it."
        )
    missing = [name for name in _HEADER if name not in header] + sorted({"readers", "prompt"} - set(tensors))
    if missing:
        raise KeypointError(f"{path.name} has no {missing[0]}; it is damaged, fit the guidance again.")
    values = {name: header[name] for name in _HEADER}
    for name in ("timesteps", "errors", "names"):
        values[name] = tuple(values[name])
    for name in ("skeleton", "colors"):
        values[name] = tuple(tuple(item) for item in values[name])
    return values | tensors
