"""One of the two ways to read tokens, with the keypoints that were chosen for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .spatial_prior import SpatialPrior

if TYPE_CHECKING:
    from .tokens import KeypointTokens


@dataclass(frozen=True, eq=False)
class Readout:
    """The keypoints of one read-out, chosen for it: fields as in `KeypointTokens`; without `refined` the learned tokens
    are read."""

    chosen: tuple[int, ...]
    votes: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    spatial_prior: SpatialPrior | None = None
    refined: torch.Tensor | None = None
    occlusion: Mapping[str, torch.Tensor] | None = None


def numbers(readout: Readout | KeypointTokens) -> list[torch.Tensor]:
    """The tensors of a read-out that decide where keypoints are found and how sure they are."""
    prior = readout.spatial_prior
    parts = (prior and prior.mean, prior and prior.covariance, readout.refined, *(readout.occlusion or {}).values())
    return [part for part in parts if part is not None]
