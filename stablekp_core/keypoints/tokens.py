"""Learned keypoint tokens: the result of training, checked as a whole, and its edits.

All N embeddings are held, because the softmax over tokens needs the unchosen ones too. The file is tokens_file's.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import KeypointError
from .read_settings import ReadSettings
from .readouts import Readout, numbers
from .schema import check_length, check_subset, clean_labels, edges_of_subset, pick
from .self_check import LEARNED, REFINED, SelfCheck
from .spatial_prior import SpatialPrior
from .tokens_file import read_tokens, write_tokens


@dataclass(frozen=True, eq=False)
class KeypointTokens:
    """The result of training: N learned tokens, K of which are keypoints.

    embeddings: float32 [N, D] on the CPU, all N tokens. chosen: K token indices in keypoint order. votes: the number of
    images that chose each token, for the K chosen, for all N, or empty. config: the settings of the training as a plain
    dict (JSON types), for the record. reading: how the tokens are to be read; by default from `config`. model_hash:
    hash of the weights that the tokens were trained with. names, skeleton (0-based pairs), colors (RGB 0..255, or
    empty): of the K keypoints. scores: the reference peak score of each keypoint in [0, 1], or empty. losses: total
    loss (Eq. 4) of each step, or empty. spatial_prior: the distribution of the keypoints on the training images.
    refined: float32 [K, L, D], the refined tokens, one for each of L layers (selection/refinement.py), or None.
    occlusion: state_dict of the occlusion network (selection/occlusion.py), or None. other: the keypoints chosen for
    the other read-out, which the self-check found no better, or None. check: the self-check, or None. Raises
    KeypointError when the parts do not fit together.
    """

    embeddings: torch.Tensor
    chosen: tuple[int, ...]
    votes: tuple[int, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    model_name: str = ""
    model_hash: str = ""
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    scores: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    spatial_prior: SpatialPrior | None = None
    refined: torch.Tensor | None = None
    occlusion: Mapping[str, torch.Tensor] | None = None
    reading: ReadSettings | None = None
    other: Readout | None = None
    check: SelfCheck | None = None

    def __post_init__(self) -> None:
        _check_embeddings(self.embeddings)
        count = len(self.chosen)
        names, skeleton, colors = clean_labels(count, self.names, self.skeleton, self.colors)
        values = {
            # A copy, since training continues to write into its own tensor.
            "embeddings": self.embeddings.detach().to("cpu", copy=True).contiguous(),
            "chosen": tuple(int(i) for i in self.chosen),
            "votes": tuple(_whole(v) for v in self.votes),
            "names": names,
            "skeleton": skeleton,
            "colors": colors,
            "scores": tuple(float(s) for s in self.scores),
            "losses": tuple(float(v) for v in self.losses),
        }
        if self.refined is not None:
            values["refined"] = self.refined.detach().to("cpu", torch.float32, copy=True).contiguous()
        if self.occlusion is not None:
            values["occlusion"] = {k: v.detach().to("cpu", torch.float32, copy=True) for k, v in self.occlusion.items()}
        if self.reading is None:
            values["reading"] = ReadSettings.of_training(self.config)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_choice(count, self.embeddings.shape[0])
        if self.other is not None:
            self._with(self.other)

    @property
    def width(self) -> int:
        """D, the width of one embedding (768 for Stable Diffusion 1.5)."""
        return self.embeddings.shape[1]

    @property
    def num_keypoints(self) -> int:
        """K, the number of chosen tokens."""
        return len(self.chosen)

    @property
    def digest(self) -> str:
        """A hash (64 hex digits) of everything that the positions and confidences of detected keypoints depend on."""
        digest = hashlib.sha256(self.embeddings.numpy().tobytes())
        for part in numbers(self):
            digest.update(part.numpy().tobytes())
        digest.update(json.dumps([self.chosen, self.scores, self.config], sort_keys=True).encode())
        if self.other is not None:
            for part in numbers(self.other):
                digest.update(part.numpy().tobytes())
            digest.update(json.dumps([self.other.chosen, self.other.scores]).encode())
        return digest.hexdigest()

    # The two read-outs

    def read(self, how: str) -> KeypointTokens:
        """These tokens with the keypoints of a read-out: "auto", the one in use; "refined" or "learned", those chosen
        for it where there are any, else as near to it as these tokens come."""
        is_refined = self.refined is not None
        if how == "auto" or is_refined == (how == REFINED):
            return self
        if self.other is not None and (self.other.refined is not None) == (how == REFINED):
            return self._with(self.other)
        return replace(self, refined=None, occlusion=None) if how == LEARNED else self

    def _with(self, readout: Readout) -> KeypointTokens:
        """These tokens with the keypoints of `readout` alone; labels do not carry over to other keypoints."""
        return replace(self, **vars(readout), names=(), skeleton=(), colors=(), other=None)

    def _check_choice(self, count: int, tokens: int) -> None:
        if not count:
            raise KeypointError("no token is chosen, but at least 1 keypoint is needed; choose some.")
        if len(set(self.chosen)) != count or min(self.chosen) < 0 or max(self.chosen) >= tokens:
            raise KeypointError(
                f"the chosen tokens {list(self.chosen)} must be different numbers from 0 to {tokens - 1}."
            )
        check_length("votes", self.votes, {0, count, tokens}, count)
        check_length("scores", self.scores, {0, count}, count)
        if self.spatial_prior is not None and not self.spatial_prior.fits(count):
            raise KeypointError(f"the spatial prior is not that of {count} keypoints; train again.")
        if self.refined is not None and not self._refined_fits(count):
            raise KeypointError(f"the refined tokens are not those of {count} keypoints; train again.")
        if self.occlusion is not None and not self._occlusion_fits():
            raise KeypointError("the occlusion network does not fit the refined tokens; train again.")
        if not all(math.isfinite(value) for value in (*self.votes, *self.scores)):
            raise KeypointError("a vote or score is not finite; train again or use another tokens file.")

    def _refined_fits(self, count: int) -> bool:
        shape = tuple(self.refined.shape)
        fits = len(shape) == 3 and (shape[0], shape[2]) == (count, self.width)
        return fits and bool(self.refined.isfinite().all())

    def _occlusion_fits(self) -> bool:
        """Whether its weights are finite and the first layer takes the features of all layers."""
        weights = list(self.occlusion.values())
        if not weights or self.refined is None or not all(bool(w.isfinite().all()) for w in weights):
            return False
        return weights[0].ndim == 4 and weights[0].shape[1] == self.refined.shape[1] * self.width

    # Editing: each returns new tokens and leaves the embeddings alone

    def reorder(self, indices: Sequence[int]) -> KeypointTokens:
        """Keep keypoints `indices` (0-based, each at most once) in this order; edges to dropped ones go, and so do the
        keypoints of the other read-out, which are not these."""
        indices = check_subset(indices, len(self.chosen))
        votes_of_all_tokens = len(self.votes) != len(self.chosen)
        return replace(
            self,
            chosen=pick(self.chosen, indices),
            names=pick(self.names, indices),
            skeleton=edges_of_subset(self.skeleton, indices),
            votes=self.votes if votes_of_all_tokens else pick(self.votes, indices),
            colors=pick(self.colors, indices),
            scores=pick(self.scores, indices),
            spatial_prior=self.spatial_prior and self.spatial_prior.pick(indices),
            refined=None if self.refined is None else self.refined[indices],
            other=None,
        )

    def drop(self, indices: Sequence[int]) -> KeypointTokens:
        """Leave out keypoints `indices`; at least one must remain."""
        gone = set(check_subset(indices, len(self.chosen)))
        return self.reorder([i for i in range(len(self.chosen)) if i not in gone])

    def rename(self, names: Sequence[str] | Mapping[str, str]) -> KeypointTokens:
        """The same tokens with new names: K of them in order, or a mapping from some old names to new ones. Raises
        KeypointError for another number and for unknown old names."""
        if isinstance(names, Mapping):
            unknown = sorted(set(names) - set(self.names))
            if unknown:
                raise KeypointError(f"no keypoint is named {unknown[0]!r}; the names are {', '.join(self.names)}.")
            names = [names.get(name, name) for name in self.names]
        if len(names) != len(self.chosen):
            raise KeypointError(f"{len(names)} names were given for {len(self.chosen)} keypoints; give one each.")
        return replace(self, names=tuple(names))

    def with_skeleton(self, edges: Sequence[tuple[int, int]]) -> KeypointTokens:
        """The same tokens with these edges, 0-based keypoint pairs."""
        return replace(self, skeleton=tuple(edges))

    def with_colors(self, colors: Sequence[tuple[int, int, int]]) -> KeypointTokens:
        """The same tokens with K RGB colours (0..255), or none for the palette's."""
        return replace(self, colors=tuple(colors))

    def check_model(self, model_hash: str, width: int) -> None:
        """Check that these tokens fit a model with embeddings of width D = `width` and weights of hash `model_hash`.

        Raises KeypointError for another width; warns when only the weights differ, since tokens often still work.
        """
        if width != self.width:
            raise KeypointError(
                f"these tokens are {self.width} wide but the model takes {width}; use the "
                f"kind of model they were trained with ({self.model_name or 'unknown'})."
            )
        if self.model_hash and model_hash and model_hash != self.model_hash:
            warnings.warn(
                f"these tokens were trained with other weights ({self.model_name or 'unknown'}, "
                f"{self.model_hash[:12]}) than the model in use ({model_hash[:12]}); keypoints may "
                f"be worse.",
                stacklevel=2,
            )

    # The file

    def save(self, path: str | Path) -> Path:
        """Write one .safetensors file (suffix added when absent), whole or not at all; returns its path."""
        return write_tokens(self, path)

    @classmethod
    def load(cls, path: str | Path) -> KeypointTokens:
        """Read and check a tokens file; raises KeypointError for anything that is not one."""
        fields = read_tokens(path)
        try:
            return cls(**fields)
        except KeypointError as error:
            raise KeypointError(f"{Path(path).name}: {error}") from error
        except (TypeError, ValueError) as error:
            raise KeypointError(
                f"{Path(path).name} has a damaged header ({error!r}); use another tokens file."
            ) from error


def _check_embeddings(embeddings: Any) -> None:
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2 or 0 in embeddings.shape:
        shape = list(getattr(embeddings, "shape", [])) or type(embeddings).__name__
        raise KeypointError(f"the token embeddings are {shape}, but a tensor [tokens, width] is needed.")
    if embeddings.dtype != torch.float32:
        raise KeypointError(f"the token embeddings are {embeddings.dtype}, but float32 is needed.")
    if not bool(torch.isfinite(embeddings).all()):
        raise KeypointError("the token embeddings hold values that are not finite; train again or use another file.")


def _whole(value: Any) -> int | float:
    """Votes are counts, but a weighted selection gives fractions: keep whichever it is."""
    return int(value) if float(value).is_integer() else float(value)
