"""The data that the choice of keypoints works on, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..keypoints.self_check import SelfCheck
from ..keypoints.spatial_prior import SpatialPrior
from .positions import FeatureStore


@dataclass(frozen=True)
class Choice:
    """The chosen keypoints.

    chosen: int64 [K], tokens in keypoint order. votes: int64 [K], the number of images that chose each one; 0 without
    selection "votes". peak_scores: median peak score of each one in [0, 1], the reference for confidence.
    spatial_prior: the distribution of their positions on the images. refined: float32 [K, L, D], the refined tokens, or
    None. occlusion: state_dict of the occlusion network, or None. where: positions [I, K, 2] on the images chosen on,
    in their unit square. other: the choice for the other read-out, which the self-check found no
    better; check: the self-check."""

    chosen: torch.Tensor
    votes: torch.Tensor
    peak_scores: tuple[float, ...] = ()
    spatial_prior: SpatialPrior | None = None
    refined: torch.Tensor | None = None
    occlusion: dict[str, torch.Tensor] | None = None
    where: torch.Tensor | None = None
    other: Choice | None = None
    check: SelfCheck | None = None


@dataclass
class Stores:
    """Features of the images that tokens are refined on: of their views, of further images without views, and of the
    first of all these images under shapes. indices: the images of `views` and `more`. covered: the share of each
    position of `occluded` that the shapes cover, [V, 1, G, G] for each image. width: D of a token."""

    width: int
    views: FeatureStore
    more: FeatureStore
    occluded: FeatureStore
    indices: list[int] = field(default_factory=list)
    covered: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """The size of the features in bytes."""
        return sum(store.nbytes for store in (self.views, self.more, self.occluded))


@dataclass(frozen=True)
class Seen:
    """The tokens on the images chosen on: position: the peaks of all tokens in each view, [I, V, N, 2] in the unit
    square of the image. score: peak scores on the image itself, [I, N]. votes: with selection "votes" the choices
    [I, K]. stores: features to refine tokens on."""

    position: torch.Tensor
    score: torch.Tensor
    votes: torch.Tensor
    stores: Stores

    def pick(self, rows: list[int]) -> Seen:
        """Some of the images, without shapes pasted over them."""
        s, votes = self.stores, self.votes[rows] if len(self.votes) else self.votes
        stores = Stores(s.width, s.views.pick(rows), s.more, FeatureStore(s.occluded.theta, s.occluded.device))
        return Seen(self.position[rows], self.score[rows], votes, stores)
