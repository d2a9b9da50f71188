"""The small built-in model's captions: it has no text encoder, only one learned word per part and per colour."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from ..errors import KeypointError

FILE = Path("words") / "words.safetensors"


@dataclass(frozen=True, eq=False)
class CaptionWords:
    """part: float32 [words, D]; color: float32 [colours, D]. kinds: for each kind of figure the row in `part` of its
    first word and the names of its parts, the background first; color_names: of the rows of `color`."""

    part: torch.Tensor
    color: torch.Tensor
    kinds: dict[str, tuple[int, tuple[str, ...]]]
    color_names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> CaptionWords | None:
        """The words in a model's folder, or None where it has none."""
        path = folder / FILE
        if not path.is_file():
            return None
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata()
            kinds = {kind: (row, tuple(names)) for kind, (row, names) in json.loads(header["kinds"]).items()}
            return cls(file.get_tensor("part"), file.get_tensor("color"), kinds, tuple(json.loads(header["colors"])))

    def tokens(self, kind: str, colors: list[int]) -> torch.Tensor:
        """[L, D]: the caption of a kind of figure whose background and parts have these colours (rows of `color`)."""
        row, names = self.kinds[kind]
        return (self.part[row : row + len(names)] + self.color[colors]) / math.sqrt(2)

    def caption(self, text: str, generator: torch.Generator) -> torch.Tensor:
        """[L, D]: the caption that `text` asks for, such as "a doll with red head, green torso, white background".

        The kind of figure is named in the singular; what `text` gives no colour gets one from `generator`, so that no
        two parts are alike while colours last.
        """
        words = re.findall(r"[a-z]+", text.lower())
        kind = next((kind for kind in self.kinds if {kind, kind.removesuffix("s")} & set(words)), None)
        if kind is None:
            raise KeypointError(
                f"{text!r} names none of what this small model can draw; begin with "
                f"{' or '.join('a ' + kind.removesuffix('s') for kind in sorted(self.kinds))}."
            )
        names, asked = self.kinds[kind][1], {}
        colors = "|".join(self.color_names)
        for color, name in re.findall(rf"\b({colors}) ({'|'.join(names)})\b", " ".join(words)):
            asked[names.index(name)] = self.color_names.index(color)
        free = [
            c for c in torch.randperm(len(self.color_names), generator=generator).tolist() if c not in asked.values()
        ]
        free += torch.randint(len(self.color_names), (len(names),), generator=generator).tolist()
        return self.tokens(kind, [asked[i] if i in asked else free.pop(0) for i in range(len(names))])
