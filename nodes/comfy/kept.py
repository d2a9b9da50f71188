"""Trainings kept by their content, so that the same training is never done twice and a stopped one goes on.

A training is told by a hash of the images' pixels, the model's weights, the settings and the tokens it starts from.
Under that name ComfyUI's user folder holds the finished tokens with their contact sheet, or the state of a run that
has not finished.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import numpy as np

import stablekp_core
from stablekp_core.config import TrainConfig
from stablekp_core.errors import KeypointError

#: All that is kept, together; the least recently used goes first.
MAX_BYTES = 512 << 20


def kept_folder() -> Path:
    """Where trainings are kept: a folder of the pack's own in ComfyUI's user folder."""
    return Path(folder_paths.get_user_directory()) / "stable_keypoints" / "trainings"


@dataclass(frozen=True)
class KeptTraining:
    """The files of one training: tokens and sheet once it is finished, state while it is not."""

    tokens: Path
    sheet: Path
    state: Path

    @classmethod
    def of(cls, model, images, config: TrainConfig, start=None) -> KeptTraining:
        """The place of a training with an open Backbone on `images` (an ImageSet), from tokens or from random ones."""
        what = [stablekp_core.__version__, model.hash, str(model.dtype), {**config.to_dict(), "micro_batch": 0}]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        for _, image in images:
            digest.update(f"{image.shape}".encode())
            digest.update(np.ascontiguousarray(image))
        if start is not None:
            digest.update(start.embeddings.numpy().tobytes())
        place = kept_folder() / digest.hexdigest()[:40]
        return cls(*(place.with_suffix(ending) for ending in (".safetensors", ".png", ".state.safetensors")))

    def load(self):
        """(tokens, sheet uint8 [H, W, 3]) of a finished training, or None when there is none that can be read."""
        from PIL import Image

        from stablekp_core.keypoints.tokens import KeypointTokens

        try:
            found = KeypointTokens.load(self.tokens), np.asarray(Image.open(self.sheet).convert("RGB"))
        except (KeypointError, OSError):
            return None
        os.utime(self.tokens)
        return found

    def save(self, tokens, sheet: np.ndarray) -> None:
        """Keep a finished training in place of its state, and make room for it."""
        from PIL import Image

        self.tokens.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(self.sheet)
        tokens.save(self.tokens)
        self.forget_state()
        make_room(self.tokens)

    def forget_state(self) -> None:
        self.state.unlink(missing_ok=True)


def make_room(newest: Path, most: int = MAX_BYTES) -> None:
    """Remove the least recently used files beside `newest`, but not that one, until all take `most` bytes or less."""
    files = sorted(newest.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    files.sort(key=lambda path: path != newest)
    held = 0
    for path in files:
        sheet = path.with_suffix(".png")
        held += sum(file.stat().st_size for file in (path, sheet) if file.exists())
        if held > most and path != newest:
            path.unlink()
            sheet.unlink(missing_ok=True)
