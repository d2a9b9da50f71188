"""After training: look at some training pictures and choose the K tokens that become keypoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..attention.readout import peaks
from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..images import affine
from ..images.latent_cache import LatentSource
from ..keypoints.spatial_prior import SpatialPrior
from ..randomness import generator_for
from . import ranking
from .features import Look
from .occlusion import OccluderNet
from .positions import Places
from .predictive import most_predictive, telling
from .refinement import refine, refine_candidates

FEATURE_BYTES = 2 << 30  # kept to refine tokens; pictures beyond are left out
CANDIDATES = 100  # tokens that are refined roughly before K of them are chosen
SHARPNESS = 3.0  # how much less a candidate counts per nat by which its places are missed


@dataclass(frozen=True)
class Choice:
    """chosen: int64 [K] in keypoint order. votes: for each the number of pictures that chose it, 0 where that was not
    the rule. heights: median height of each one's peak in [0, 1], which confidence is measured against. partners: the
    token that each one is in a mirror, when it was asked for. peers: where they lie on the pictures. refined: float32
    [K, L, D], the tokens fitted anew to where they were found, behind them their partners, or None. occluder: tells
    what lies in front of things, where pictures were looked at under shapes."""

    chosen: torch.Tensor
    votes: torch.Tensor
    heights: tuple[float, ...] = ()
    partners: tuple[int, ...] = ()
    peers: SpatialPrior | None = None
    refined: torch.Tensor | None = None
    occluder: OccluderNet | None = None


@dataclass
class _Kept:
    """Features of the pictures that tokens are refined on: their views, those seen in a mirror, further pictures as
    they are, and the first of all these under shapes, and so in a mirror. indices: the pictures of `plain` and `more`.
    covered [V, 1, G, G]: how much of each place of `occluded` the shapes cover."""

    plain: Places
    mirrored: Places
    more: Places
    occluded: Places
    occluded_mirrored: Places
    indices: list[int] = field(default_factory=list)
    covered: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(p.nbytes for p in (self.plain, self.mirrored, self.more, self.occluded, self.occluded_mirrored))


@torch.no_grad()
def choose_tokens(
    backbone: Backbone,
    tokens: torch.Tensor,
    source: LatentSource,
    config: TrainConfig,
    at_once: int = 8,
    on_picture: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose K of tokens [N, D] on up to `selection_images` pictures of the training set, and refine them on up to
    `refine_images`, which are looked at once more under shapes (`occluded_views`).

    Selection "votes": the K tokens most often chosen by the training's own rule on single views. "consistency": the
    tokens whose peak stays on the same spot over affine views. "prediction": those from whose positions over the
    pictures the positions of all tokens can be told best; where tokens are refined, the best `CANDIDATES` are refined
    roughly first and chosen by where they are then. at_once: views or pictures per pass. on_picture is called with the
    looks at pictures done, of how many, and may raise to stop.
    """
    look, kept = Look(backbone, tokens, source, config, at_once), _kept(config, backbone.device)
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    pictures, extra = order[: config.selection_images], order[config.selection_images : config.refine_images]
    under = min(config.refine_images, len(order)) if config.occluded_views else 0
    looks, done = len(pictures) + len(extra) + under, 0

    def count(some: int) -> None:
        nonlocal done
        for _ in range(some):
            done += 1
            if on_picture is not None:
                on_picture(done, looks)

    everywhere, height, choices = _look_at_views(look, kept, pictures, count)  # [I, V, N, 2], [I, N]
    _look_at_more(look, kept, extra, count)
    _look_under_shapes(look, kept, under, count)
    position, votes = everywhere[:, : len(kept.plain.theta)], torch.zeros(len(tokens), dtype=torch.long)
    if config.selection == "votes":
        chosen, votes = ranking.most_voted(choices, len(tokens), config.keypoints)
    elif config.selection == "consistency":
        seen = affine.visible(position[:, 0], kept.plain.theta)
        chosen, _ = ranking.most_consistent(position, seen, height, config.keypoints)
    elif len(kept.plain):
        chosen, position = _choose_refined(position, height, kept.plain, config.keypoints)
    else:
        chosen = most_predictive(position, height, config.keypoints)
    partners = ()
    if config.flip_symmetry:
        partners = ranking.mirror_partners(everywhere[:, 0, chosen], everywhere[:, -1])
    usual = tuple(height[:, chosen].median(0).values.tolist())
    where, refined, occluder = position[:, :, chosen].mean(1), None, None  # [I, K, 2]
    if len(kept.plain):
        refined, where = _refined(position[: len(kept.plain), :, chosen], kept)
        refined = refined.unflatten(-1, (-1, tokens.shape[1]))  # [K, L, D]
    if len(kept.occluded):
        random = generator_for(config.seed, "occluder net")
        occluder = OccluderNet.learn(kept.occluded.features, kept.covered, random, backbone.device)
    return Choice(chosen, votes[chosen], usual, partners, SpatialPrior.of(where), refined, occluder)


def _kept(config: TrainConfig, device: torch.device) -> _Kept:
    """Nothing yet, for views drawn from the seed; with flip_symmetry, the picture in a mirror too."""
    c = config
    views = 0 if c.selection == "votes" else c.selection_views
    random = [
        affine.random_affine(n, c.rotation, c.scale, c.translation, generator_for(c.seed, purpose))
        for n, purpose in ((views, "selection views"), (c.occluded_views, "occluded views"))
    ]
    plain = torch.cat([affine.identity_affine(1), random[0]])
    flips = int(c.flip_symmetry)
    theta = plain, affine.mirror(plain[:flips]), plain[:1], random[1], affine.mirror(random[1][:flips])
    return _Kept(*(Places(t, device) for t in theta))


def _look_at_views(
    look: Look, kept: _Kept, pictures: list[int], count: Callable[[int], None]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of pictures: the peaks of all tokens [I, V, N, 2] brought back to the picture, the mirrored view last, the
    heights [I, N] of those on the picture itself, and with selection "votes" the choices [I, K]."""
    c, plain = look.config, len(kept.plain.theta)
    theta = torch.cat([kept.plain.theta, kept.mirrored.theta])
    positions, heights, choices = [], [], []
    for done, picture in enumerate(pictures):
        index, room = look.source.usable(picture), 2 * kept.nbytes < FEATURE_BYTES
        maps, features = look.views(index, theta, room and done < c.refine_images)  # [V, N, R, R]
        if features is not None:
            kept.indices.append(index)
            look.keep(kept.plain, index, features[:plain])
            if c.flip_symmetry:
                look.keep(kept.mirrored, index, features[plain:])
        peak = peaks(maps)  # [V, N, 2]
        xy = (peak.flip(-1) + 0.5) / c.map_size
        positions.append(affine.view_to_picture(xy, theta.to(xy.device)).cpu())
        heights.append(maps[0].flatten(1).amax(1).cpu())
        if c.selection == "votes":
            choices.append(_vote(maps[:1], peak[:1], c))
        count(1)
    return torch.stack(positions), torch.stack(heights), torch.stack(choices) if choices else torch.empty(0)


def _look_at_more(look: Look, kept: _Kept, pictures: list[int], count: Callable[[int], None]) -> None:
    """Pictures as they are, several at a time."""
    for start in range(0, len(pictures), look.at_once):
        some = [look.source.usable(picture) for picture in pictures[start : start + look.at_once]]
        if 4 * kept.nbytes < 3 * FEATURE_BYTES:
            for index, features in zip(some, look.features(some).split(1), strict=True):  # [1, D, G, G]
                kept.indices.append(index)
                look.keep(kept.more, index, features)
        count(len(some))


def _look_under_shapes(look: Look, kept: _Kept, pictures: int, count: Callable[[int], None]) -> None:
    """The first of the pictures kept, under shapes."""
    for index in kept.indices[:pictures]:
        if kept.nbytes < FEATURE_BYTES:
            features, covered = look.occluded(index, kept.occluded.theta)
            look.keep(kept.occluded, index, features)
            kept.covered.append(covered.cpu())
            if len(kept.occluded_mirrored) < len(kept.mirrored):
                look.keep(kept.occluded_mirrored, index, look.occluded(index, kept.occluded_mirrored.theta)[0])
        count(1)
    count(pictures - len(kept.indices[:pictures]))  # those that found no room


def _choose_refined(
    position: torch.Tensor, height: torch.Tensor, places: Places, keypoints: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The K of the tokens at positions [I, V, N, 2] with peaks of height [I, N] that tell most of each other once they
    are refined roughly: their numbers int64 [K], and positions as given but for them, where they are then."""
    best = telling(position, height).argsort(descending=True, stable=True)[: max(CANDIDATES, keypoints)]
    where, missed = refine_candidates(position[: len(places), :, best], places)
    sharp = torch.exp(SHARPNESS * (missed.min() - missed)).expand(len(where), -1)  # [I, C]
    chosen = most_predictive(where, sharp, keypoints)
    position = position[: len(places)].clone()
    position[:, :, best] = where
    return best[chosen], position


def _vote(maps: torch.Tensor, peak: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    """int64 [K]: the tokens that the training's rule picks on one picture, maps [1, N, R, R] and peak [1, N, 2]."""
    c = config
    return ranking.spread_choice(maps, peak, c.keypoints, c.candidates, c.sigma, c.closeness, c.border)[0].cpu()


def _refined(position: torch.Tensor, kept: _Kept) -> tuple[torch.Tensor, torch.Tensor]:
    """Refined tokens [K, L*D], with those of the partners behind where there are mirrored pictures, and where the
    former lie on all pictures [I, K, 2]; position [I, V, K, 2]: where views found them."""
    refined = refine(position, kept.plain, kept.more, occluded=kept.occluded)
    peak, where = kept.plain.locate(refined)
    if len(kept.more):
        where = torch.cat([where, kept.more.locate(refined)[1]])
    if len(kept.mirrored):
        partners = refine(peak[:, None], kept.mirrored, occluded=kept.occluded_mirrored)
        refined = torch.cat([refined, partners])
    return refined, where
