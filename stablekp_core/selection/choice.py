"""What choosing works on, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..keypoints.self_check import SelfCheck
from ..keypoints.spatial_prior import SpatialPrior
from .positions import FeatureStore


@dataclass(frozen=True)
class Choice:
    """chosen: int64 [K] in keypoint order. votes: for each the number of images that chose it, 0 where that was not the
    rule. peak_scores: median score of each one's peak in [0, 1], the reference that confidence is measured against.
    spatial_prior: where they lie on the images. refined: float32 [K, L, D], the tokens fitted anew to where they were
    found, or None. occlusion: state_dict of the occlusion network, where images were seen under shapes. where:
    positions [I, K, 2] on the images chosen on. other: the choice for the other read-out, which the self-check found no
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
    """Features of the images that tokens are refined on: their views, further images as they are, and the first of all
    these under shapes. indices: the images of `views` and `more`. covered [V, 1, G, G]: how much of each position of
    `occluded` the shapes cover. width: D of a token."""

    width: int
    views: FeatureStore
    more: FeatureStore
    occluded: FeatureStore
    indices: list[int] = field(default_factory=list)
    covered: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory of the features."""
        return sum(store.nbytes for store in (self.views, self.more, self.occluded))


@dataclass(frozen=True)
class Seen:
    """What the images chosen on show: peaks of all tokens brought back to the image [I, V, N, 2], their scores on the
    image itself [I, N], with selection "votes" the choices [I, K], and the features to refine tokens on."""

    position: torch.Tensor
    score: torch.Tensor
    votes: torch.Tensor
    stores: Stores

    def pick(self, rows: list[int]) -> Seen:
        """Some of the images, without shapes pasted over them."""
        s, votes = self.stores, self.votes[rows] if len(self.votes) else self.votes
        stores = Stores(s.width, s.views.pick(rows), s.more, FeatureStore(s.occluded.theta, s.occluded.device))
        return Seen(self.position[rows], self.score[rows], votes, stores)
