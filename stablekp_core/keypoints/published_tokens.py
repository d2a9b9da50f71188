"""Tokens that the authors of the paper published or their code wrote: `embedding.pt` and `indices.pt`.

Both are tensors in torch's own files, which are pickles; they are read with `weights_only`, so nothing in them runs.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from ..config import TrainConfig
from ..errors import KeypointError
from ..files import indices_beside
from .tokens import KeypointTokens

SUFFIXES = (".pt", ".pth")
MODEL = "runwayml/stable-diffusion-v1-5"
_CANDIDATES = 25  # kappa of the authors' code


def read_published_tokens(embedding: str | Path, indices: str | Path) -> KeypointTokens:
    """The tokens of `embedding` (float32 [1, N, D]) with the keypoints of `indices` (int64 [K], most votes first).

    They carry the settings of the preset "reference", with which the authors trained and read them; detect with that
    preset. The files do not say which weights they were trained with: Stable Diffusion 1.5's. Raises KeypointError for
    files that hold something else.
    """
    path = Path(embedding)
    tokens = read_tensor(path, "[1, tokens, width]")
    if tokens.ndim != 3 or tokens.shape[0] != 1 or not tokens.is_floating_point():
        raise KeypointError(
            f"{path.name} holds {_what(tokens)}, but published tokens are floating-point [1, tokens, width]; give the "
            "file embedding.pt."
        )
    path = Path(indices)
    chosen = read_tensor(path, "[keypoints]")
    if chosen.ndim != 1 or not chosen.numel() or chosen.is_floating_point() or chosen.is_complex():
        raise KeypointError(
            f"{path.name} holds {_what(chosen)}, but the chosen tokens are whole numbers [keypoints]; give the file "
            "indices.pt."
        )
    count, kept = tokens.shape[1], chosen.numel()
    if count < 2 or kept > count or int(chosen.min()) < 0 or int(chosen.max()) >= count:
        raise KeypointError(
            f"{path.name} chooses {kept} tokens from {int(chosen.min())} to {int(chosen.max())}, but "
            f"{Path(embedding).name} has {count}; give the two files of one training."
        )
    candidates = min(count, max(_CANDIDATES, kept))
    settings = TrainConfig.preset("reference", keypoints=max(kept, 2), tokens=count, candidates=candidates)
    return KeypointTokens(
        tokens[0].to(torch.float32), tuple(chosen.tolist()), config=settings.to_dict(), model_name=MODEL
    )


def open_tokens(path: str | Path) -> KeypointTokens:
    """A tokens file, or the authors' `embedding.pt` where its `indices.pt` lies beside it."""
    indices = indices_beside(Path(path))
    return KeypointTokens.load(path) if indices is None else read_published_tokens(path, indices)


def read_tensor(path: Path, shape: str) -> torch.Tensor:
    """The one tensor in a file that torch.save wrote, on the CPU; nothing else in it is run or accepted.

    shape: what is expected, for the message. Raises KeypointError.
    """
    if not path.is_file():
        raise KeypointError(f"{path} does not exist; give a file of the authors' published tokens.")
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise KeypointError(
            f"{path.name} is not a file in which torch.save wrote a tensor {shape} ({type(error).__name__}); download "
            "it again."
        ) from error
    if not isinstance(value, torch.Tensor):
        raise KeypointError(f"{path.name} holds a {type(value).__name__}, but one tensor {shape} is needed.")
    return value.detach()


def _what(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
