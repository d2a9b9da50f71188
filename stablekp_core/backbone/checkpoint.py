"""Opening models: a single-file Stable Diffusion 1.5 checkpoint, a diffusers folder, the demo, a hub id.

Only the UNet and the VAE are read, only from safetensors, and only the tensors needed. Files and folders
never touch the network. Any other kind of file is refused by a sentence that names it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import KeypointError
from . import ldm_conversion
from .ldm_conversion import unet_from_ldm, vae_from_ldm
from .recognition import (
    EPSILON,
    UNET_PREFIX,
    VAE_PREFIX,
    outer_prefix,
    told_prediction,
    unsupported_config,
    unsupported_file,
    without_prefix,
)

__all__ = ["DEMO_FOLDER", "LoadedModel", "load_model", "unet_from_ldm", "vae_from_ldm", "weights_hash"]

DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "tiny_sd"
_USE = "use a Stable Diffusion 1.4 or 1.5 checkpoint (.safetensors, UNet and VAE in one file) or a diffusers folder"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_WEIGHTS = "diffusion_pytorch_model"
_SAMPLES = 256  # values per tensor that enter the hash


@dataclass(frozen=True)
class LoadedModel:
    """A UNet and a VAE, frozen, on the CPU, in evaluation mode.

    `name`: file stem, folder name, hub id or `demo`. `hash`: see `weights_hash`; taken of the weights as
    stored, so it does not depend on the dtype asked for. `dtype`: of the UNet; the VAE may be stored in
    another one. `prediction`: what the UNet tells of a noisy image, "epsilon" or "v_prediction", as far as the file or
    the folder's scheduler says; keypoints do not depend on it, generating does.
    """

    unet: Any
    vae: Any
    name: str
    hash: str
    dtype: torch.dtype
    prediction: str = EPSILON


def load_model(model: str | Path, dtype: torch.dtype | None = None) -> LoadedModel:
    """Load the UNet and the VAE of a Stable Diffusion 1.x model.

    `model`: a `.safetensors` file in the original (LDM) layout; a diffusers folder with `unet/` and `vae/`;
    `demo`, the model that comes with this package; or a hub id `organisation/name`, taken as such only when
    no such path exists, downloaded once and then read from the hub's cache. `dtype`: None keeps each part
    in the dtype of its file (float8 becomes float16). Raises KeypointError naming what was given and what
    is needed.
    """
    if str(model) == "demo":
        if not DEMO_FOLDER.is_dir():
            raise KeypointError(
                f"The demo model is missing from this installation ({DEMO_FOLDER}); install the package again."
            )
        return _load_folder(DEMO_FOLDER, "demo", dtype)
    path = Path(model).expanduser()
    if path.is_dir():
        return _load_folder(path, path.resolve().name, dtype)
    if path.suffix.lower() in _PICKLES and not _is_hub_id(str(model)):
        raise KeypointError(f"{path.name} is a pickle file, which can run any code when opened; {_USE}.")
    if path.is_file():
        return _load_file(path, dtype)
    if _is_hub_id(str(model)):
        return _load_folder(_download(str(model)), str(model), dtype)
    raise KeypointError(f"There is no file or folder {path}; {_USE}, or 'demo' for the built-in model.")


def weights_hash(unet: torch.nn.Module) -> str:
    """A SHA-256 (64 hex digits) that identifies the weights of a UNet, in well under a second.

    It is taken over the sorted parameter names in diffusers' naming, their shapes, and up to 256 evenly spaced values
    of each, rounded to float16. So the file layout does not matter, a float32 model and its float16 copy
    have the same hash, and any fine-tuning or merged LoRA has another one. A bfloat16 copy has lost bits that
    float16 keeps, so it has another hash too.
    """
    return _hash_state(unet.state_dict())


def _hash_state(state: Mapping[str, torch.Tensor]) -> str:
    digest, samples = hashlib.sha256(), []
    for key in sorted(state):
        values = state[key].detach().reshape(-1)
        step = max(1, values.numel() // _SAMPLES)
        samples.append(values[::step][:_SAMPLES].to(torch.float16))
        digest.update(f"{key}{tuple(state[key].shape)};".encode())
    # One transfer for all: on a GPU, a copy per tensor would wait hundreds of times.
    digest.update(torch.cat(samples).cpu().numpy().astype("<f2").tobytes())
    return digest.hexdigest()


def _load_file(path: Path, dtype: torch.dtype | None) -> LoadedModel:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with _open(path) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        prediction, outer = told_prediction(shapes, file.metadata()), outer_prefix(shapes)
        shapes = without_prefix(shapes, outer)
        problem = unsupported_file(shapes)
        if problem:
            raise KeypointError(f"{path.name} is {problem}; {_USE}.")
        try:
            parts = []
            for model_class, prefix, layout in (
                (UNet2DConditionModel, UNET_PREFIX, ldm_conversion.unet_layout),
                (AutoencoderKL, VAE_PREFIX, ldm_conversion.vae_layout),
            ):
                config, names = layout(without_prefix(shapes, prefix))
                tensors = {new: file.get_tensor(outer + prefix + old) for old, new in names.items()}
                parts.append((model_class, config, tensors))
            return _assemble(*parts, path.stem, dtype, prediction)
        except KeypointError as error:
            raise KeypointError(f"{path.name}: {error}") from None


def _load_folder(folder: Path, name: str, dtype: torch.dtype | None) -> LoadedModel:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for part in ("unet", "vae"):
        if not (folder / part).is_dir():
            what = (
                "holds a diffusion transformer (such as Stable Diffusion 3 or Flux)"
                if (folder / "transformer").is_dir()
                else f"has no {part}/ folder"
            )
            raise KeypointError(f"The folder {folder} {what}; {_USE} with unet/ and vae/ inside.")
    parts = []
    for part, model_class in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        config = _read_config(folder / part, model_class.__name__)
        if part == "unet":
            problem = unsupported_config(config)
            if problem:
                raise KeypointError(f"The folder {folder} holds {problem}; {_USE}.")
        parts.append((model_class, config, ldm_conversion.modern_vae_names(_read_weights(folder / part))))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    prediction = _read_json(scheduler).get("prediction_type", EPSILON) if scheduler.is_file() else EPSILON
    try:
        return _assemble(*parts, name, dtype, prediction)
    except KeypointError as error:
        raise KeypointError(f"The folder {folder}: {error}") from None


def _assemble(unet_part: tuple, vae_part: tuple, name: str, dtype: torch.dtype | None, prediction: str) -> LoadedModel:
    """Each part is (diffusers class, config, tensors under diffusers names)."""
    digest = _hash_state(unet_part[2])
    unet, vae = (
        ldm_conversion.build(model_class, config, _cast(state, dtype))
        for model_class, config, state in (unet_part, vae_part)
    )
    return LoadedModel(unet, vae, name, digest, unet.dtype, prediction)


def _cast(state: dict[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Copies of all tensors in one dtype: the one asked for, else the one most weights have.

    Tensors are read as windows into the file: without the copies, a file that is overwritten while in use would
    change the model.
    """
    if dtype is None:
        dtype = Counter(value.dtype for value in state.values()).most_common(1)[0][0]
        if dtype.itemsize == 1:
            dtype = torch.float16  # float8 is a storage format: no layer computes in it
    cast = {key: value.to(dtype, copy=True) for key, value in state.items()}
    for key, value in cast.items():
        if not bool(torch.isfinite(value).all()):
            stored = state[key].to(torch.float32)
            why = "that are too large for " + str(dtype).removeprefix("torch.") if stored.isfinite().all() else ""
            raise KeypointError(
                f"the weights hold values {why or 'that are not numbers'} ({key}); "
                f"{'use fp32' if why else 'the file is damaged or comes from a training that failed, use another'}."
            )
    return cast


def _open(path: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise KeypointError(
            f"{path.name} is not a complete safetensors file ({error}): it may be cut short "
            f"or of another type; download it again, or {_USE}."
        ) from None


def _read_config(folder: Path, wanted: str) -> dict:
    config = _read_json(folder / "config.json")
    found = config.get("_class_name", wanted)
    if found != wanted:
        raise KeypointError(f"The folder {folder} holds a {found} where a {wanted} is needed; {_USE}.")
    return config


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KeypointError(f"{path} cannot be read ({error}); {_USE}.") from None
    if not isinstance(content, dict):
        raise KeypointError(f"{path} is not a JSON object; {_USE}.")
    return content


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder: the plain file, its fp16 variant, or the shards of either."""
    files = _weight_files(folder, "") or _weight_files(folder, ".fp16")
    if not files:
        found = "only pickled weights" if any(folder.glob("*.bin")) else "no weights"
        raise KeypointError(f"The folder {folder} holds {found} ({_WEIGHTS}.safetensors is needed); {_USE}.")
    state = {}
    for file in files:
        with _open(file) as opened:
            state.update({key: opened.get_tensor(key) for key in opened.keys()})
    return state


def _weight_files(folder: Path, variant: str) -> list[Path]:
    """The file of a variant, or its shards by their index, whose name changed twice in diffusers."""
    single = folder / f"{_WEIGHTS}{variant}.safetensors"
    if single.is_file():
        return [single]
    for name in (
        f"{_WEIGHTS}.safetensors.index{variant}.json",
        f"{_WEIGHTS}.safetensors{variant}.index.json",
        f"{_WEIGHTS}{variant}.safetensors.index.json",
    ):
        if (folder / name).is_file():
            shards = _read_json(folder / name).get("weight_map", {}).values()
            return [folder / Path(shard).name for shard in sorted(set(shards))]
    return []


def _is_hub_id(model: str) -> bool:
    """`organisation/name`, and not a path whose folder is there or whose ending is a file's."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model) or Path(model).parent.exists():
        return False
    return Path(model).suffix.lower() not in (".safetensors", ".gguf", *_PICKLES)


def _download(hub_id: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    names = (
        "config.json",
        f"{_WEIGHTS}.safetensors",
        f"{_WEIGHTS}-*-of-?????.safetensors",
        f"{_WEIGHTS}.safetensors.index.json",
    )
    patterns = [f"{part}/{name}" for part in ("unet", "vae") for name in names]
    patterns.append("scheduler/scheduler_config.json")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (errors.HTTPError, OSError, ValueError) as error:
        raise KeypointError(
            f"There is no file or folder {hub_id}, and the model of that name could not be "
            f"downloaded ({type(error).__name__}); {_USE}."
        ) from None
