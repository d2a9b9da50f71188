"""Keypoint readers: linear classifiers of spatial positions that find the keypoints in noisy latents.

One reader per timestep. It is refinement's classifier (selection/refinement.py), fitted to the features of noisy
latents, with the positions that the detector finds on the clean images as targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import KeypointError
from ..keypoints.schema import clean_labels
from .readers_file import read_guidance, write_guidance


@dataclass(frozen=True, eq=False)
class KeypointGuidance:
    """What `fit_guidance` leaves behind.

    timesteps: T increasing timesteps of 1000. readers: float32 [T, K, L, D], one embedding per keypoint and captured
    layer. prompt: float32 [1, D], the prompt under which the UNet's features are taken. errors: for each timestep the
    mean distance from the detector's keypoints on images that were left out of the fit, in sides of the image;
    guess_error: that of always guessing the mean. tokens_digest, model_hash: of the tokens and the UNet these readers
    belong to; model_name: for messages. names, skeleton, colors: the keypoints', as in `KeypointTokens`. Raises
    KeypointError when the parts do not fit together.
    """

    timesteps: tuple[int, ...]
    readers: torch.Tensor
    prompt: torch.Tensor
    errors: tuple[float, ...]
    guess_error: float
    tokens_digest: str
    model_hash: str
    model_name: str = ""
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    colors: tuple[tuple[int, int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        shape, steps = tuple(self.readers.shape), tuple(int(t) for t in self.timesteps)
        if len(shape) != 4 or shape[0] != len(steps) or 0 in shape or tuple(self.prompt.shape) != (1, shape[3]):
            raise KeypointError(
                f"readers of shape {list(shape)} do not fit {len(steps)} timesteps and a prompt of shape "
                f"{list(self.prompt.shape)}; fit the guidance again."
            )
        if list(steps) != sorted(set(steps)) or steps[0] < 0 or steps[-1] > 999:
            raise KeypointError(f"the timesteps {list(steps)} must increase from 0 or more to 999 at most.")
        if not (self.readers.isfinite().all() and self.prompt.isfinite().all()) or len(self.errors) != len(steps):
            raise KeypointError("the readers are damaged (a value is missing or not finite); fit the guidance again.")
        names, skeleton, colors = clean_labels(shape[1], self.names, self.skeleton, self.colors)
        for name, value in dict(timesteps=steps, names=names, skeleton=skeleton, colors=colors).items():
            object.__setattr__(self, name, value)

    @property
    def num_keypoints(self) -> int:
        """K."""
        return self.readers.shape[1]

    def at(self, timestep: float) -> torch.Tensor:
        """The reader [K, L, D] of any timestep: between two fitted ones it is interpolated linearly."""
        steps = self.timesteps
        if timestep <= steps[0]:
            return self.readers[0]
        for i in range(1, len(steps)):
            if timestep <= steps[i]:
                share = (timestep - steps[i - 1]) / (steps[i] - steps[i - 1])
                return self.readers[i - 1].lerp(self.readers[i], share)
        return self.readers[-1]

    def to(self, device: torch.device | str) -> KeypointGuidance:
        """The same with readers and prompt on `device`."""
        parts = {k: v for k, v in self.__dict__.items() if k not in ("readers", "prompt")}
        return KeypointGuidance(readers=self.readers.to(device), prompt=self.prompt.to(device), **parts)

    def check_model(self, model_hash: str, model_name: str = "") -> None:
        """Raise KeypointError unless these readers were fitted to the UNet with this hash."""
        if model_hash != self.model_hash:
            raise KeypointError(
                f"this guidance was fitted to {self.model_name or 'another model'} ({self.model_hash[:12]}), but the "
                f"model in use is {model_name or 'another one'} ({model_hash[:12]}); fit guidance for this model."
            )

    def check_tokens(self, digest: str) -> None:
        """Raise KeypointError unless these readers were fitted for the tokens with this digest."""
        if digest != self.tokens_digest:
            raise KeypointError(
                f"this guidance was fitted for other tokens ({self.tokens_digest[:12]}) than those given "
                f"({digest[:12]}); fit guidance for these tokens."
            )

    def report(self) -> str:
        """How well the keypoints are read at each timestep, as text."""
        lines = [f"{'timestep':>8}  error, % of the side, on images left out (always the mean: {self.guess_error:.1%})"]
        lines += [f"{t:8d}  {100 * e:.1f}" for t, e in zip(self.timesteps, self.errors, strict=True)]
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write one .guidance.safetensors file (suffix added when absent), whole or not at all; returns its path."""
        return write_guidance(self, path)

    @classmethod
    def load(cls, path: str | Path) -> KeypointGuidance:
        """Read and check a guidance file; raises KeypointError for anything that is not one."""
        fields = read_guidance(path)
        try:
            return cls(**fields)
        except KeypointError as error:
            raise KeypointError(f"{Path(path).name}: {error}") from error
