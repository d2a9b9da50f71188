"""How tokens are to be read: the small versioned record that lies with them in their file.

Detection needs these values and nothing else of the training's settings, so that a training option that is retired
never makes an old file unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import KeypointError

VERSION = 1
LEARNED_PROMPT, ZERO_PROMPT = "learned tokens", "zero token"


@dataclass(frozen=True)
class ReadSettings:
    """map_size: R, side of the token maps. sigma: of the training's Gaussian, in pixels of the map. timestep: of 1000,
    the noise that the model sees. resize, image_size: how an image becomes the model input, and its side in pixels (0:
    what the model was made for). rotation (degrees), scale, translation (half image sides): ranges of the random views
    that detection averages. upsample: where the resolution of maps is raised, "logits" or "maps". prompt: what the UNet
    is conditioned on while the learned tokens are read, "learned tokens" or "zero token"."""

    map_size: int = 128
    sigma: float = 2.0
    timestep: int = 0
    resize: str = "squash"
    image_size: int = 0
    rotation: float = 15.0
    scale: tuple[float, float] = (0.8, 1.0)
    translation: float = 0.25
    upsample: str = "logits"
    prompt: str = LEARNED_PROMPT

    @classmethod
    def of_training(cls, config: Mapping[str, Any]) -> ReadSettings:
        """From a training's settings as a plain mapping; settings that it lacks have their defaults."""
        known = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        if known.get("resize") == "auto":  # a training writes what it came to; this one never saw an image
            del known["resize"]
        prompt = ZERO_PROMPT if config.get("gradient") == "cached" else LEARNED_PROMPT
        return cls._of(known | {"prompt": prompt})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the record's version."""
        return {"version": VERSION, **asdict(self), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ReadSettings:
        """The inverse of `to_dict`. Raises KeypointError for a record of a newer version or with other values."""
        values = dict(record)
        version = values.pop("version", None)
        if version != VERSION:
            raise KeypointError(
                f"the record of how to read the tokens has version {version!r}, but this program reads version "
                f"{VERSION}; update it."
            )
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise KeypointError(f"the record of how to read the tokens holds {unknown[0]!r}, which is not known.")
        return cls._of(values)

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> ReadSettings:
        kinds = {f.name: type(f.default) for f in fields(cls)}
        try:
            clean = {k: tuple(map(float, v)) if k == "scale" else kinds[k](v) for k, v in values.items()}
        except (TypeError, ValueError) as error:
            raise KeypointError(f"the record of how to read the tokens is damaged ({error}); train again.") from error
        out = cls(**clean)
        sizes = out.map_size >= 1 and out.image_size >= 0 and 0 <= out.timestep < 1000 and out.sigma > 0
        if not sizes or len(out.scale) != 2 or out.upsample not in ("logits", "maps"):
            raise KeypointError("the record of how to read the tokens holds values out of range; train again.")
        return out
