"""The checkpoint of a training run: one safetensors file, written atomically. It holds no state of random generators,
since every step draws from the seed and its own number."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..config import TrainConfig
from ..errors import KeypointError
from ..files import write_atomically

_FORMAT = "stable-keypoints-training"
_VERSION = 1


def save_state(path: Path, trainer) -> None:
    """Write the state of a Trainer to `path`: tokens, moments of Adam, losses, recent choices, step."""
    from safetensors.torch import save

    adam = trainer.optimizer.state[trainer.tokens]
    tensors = {
        "tokens": trainer.tokens,
        "exp_avg": adam["exp_avg"],
        "exp_avg_sq": adam["exp_avg_sq"],
        "losses": torch.stack(list(trainer.losses)[: trainer.step]),
    }
    tensors |= {f"recent.{i}": x for i, x in enumerate(trainer.recent)}
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "step": trainer.step,
        "ratios": trainer.ratios,
        "config": trainer.config.to_dict(),
        "model": trainer.backbone.hash,
        "pictures": len(trainer.source),
    }
    data = save(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        metadata={"stable_keypoints": json.dumps(header)},
    )
    write_atomically(path, data)


def load_state(path: Path, trainer) -> None:
    """Read the state of a run into a new Trainer of the same configuration; only `steps` and `micro_batch` may differ.

    Raises KeypointError when the file is not a checkpoint or belongs to another run.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("stable_keypoints", "{}"))
            # Copies: Windows cannot replace a file that tensors are still mapped to.
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise KeypointError(f"{path.name} is not a training checkpoint; delete it to start afresh.") from error
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise KeypointError(f"{path.name} is not a training checkpoint of this version; delete it to start afresh.")
    saved = TrainConfig.from_dict(header["config"])
    now = {**trainer.config.to_dict(), "steps": 0, "micro_batch": 0}
    different = [k for k, v in {**saved.to_dict(), "steps": 0, "micro_batch": 0}.items() if now[k] != v]
    if header["model"] != trainer.backbone.hash:
        different.append("model")
    if header["pictures"] != len(trainer.source):
        different.append("number of images")
    if different:
        raise KeypointError(
            f"{path.name} belongs to a run with another {different[0]}; use the same settings, or delete "
            "it to start afresh."
        )
    trainer.tokens.data.copy_(tensors["tokens"])
    trainer.optimizer.state[trainer.tokens] = {
        "step": torch.tensor(float(header["step"])),
        "exp_avg": tensors["exp_avg"].to(trainer.tokens.device),
        "exp_avg_sq": tensors["exp_avg_sq"].to(trainer.tokens.device),
    }
    trainer.step = header["step"]
    trainer.ratios = list(header.get("ratios", []))
    trainer.losses.extend(tensors["losses"].to(trainer.tokens.device))
    recent = sorted((k for k in tensors if k.startswith("recent.")), key=lambda k: int(k.split(".")[1]))
    trainer.recent.extend(tensors[k].to(trainer.tokens.device) for k in recent)
    trainer.check_finite()
