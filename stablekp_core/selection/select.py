"""After training: choose the K tokens that become keypoints on some training images, and refine them."""

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
from ..progress import EXTRACTING, Progress, silent
from ..randomness import generator_for
from . import ranking
from .features import FeatureExtractor
from .occlusion import learn_occlusion
from .positions import FeatureStore
from .predictive import informativeness, most_predictive
from .refinement import refine, refine_candidates

FEATURE_BYTES = 2 << 30  # kept to refine tokens; images beyond are left out
CANDIDATES = 100  # tokens that are refined roughly before K of them are chosen
SHARPNESS = 3.0  # how much less a candidate counts per nat by which its positions are missed


@dataclass(frozen=True)
class Choice:
    """chosen: int64 [K] in keypoint order. votes: for each the number of images that chose it, 0 where that was not the
    rule. peak_scores: median score of each one's peak in [0, 1], the reference that confidence is measured against.
    spatial_prior: where they lie on the images. refined: float32 [K, L, D], the tokens fitted anew to where they were
    found, or None. occlusion: state_dict of the occlusion network, where images were seen under shapes."""

    chosen: torch.Tensor
    votes: torch.Tensor
    peak_scores: tuple[float, ...] = ()
    spatial_prior: SpatialPrior | None = None
    refined: torch.Tensor | None = None
    occlusion: dict[str, torch.Tensor] | None = None


@dataclass
class _Stores:
    """Features of the images that tokens are refined on: their views, further images as they are, and the first of all
    these under shapes. indices: the images of `views` and `more`. covered [V, 1, G, G]: how much of each position of
    `occluded` the shapes cover."""

    views: FeatureStore
    more: FeatureStore
    occluded: FeatureStore
    indices: list[int] = field(default_factory=list)
    covered: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(store.nbytes for store in (self.views, self.more, self.occluded))


@torch.no_grad()
def choose_tokens(
    backbone: Backbone,
    tokens: torch.Tensor,
    source: LatentSource,
    config: TrainConfig,
    at_once: int = 8,
    on_progress: Progress | None = None,
) -> Choice:
    """Choose K of tokens [N, D] on up to `selection_images` images of the training set, and refine them on up to
    `refine_images`, whose features are extracted once more under shapes (`occluded_views`).

    Selection "votes": the K tokens most often chosen by the training's own rule on single views (Eq. 10). "prediction":
    those from whose positions over the images the positions of all tokens can be told best; where tokens are refined,
    the best `CANDIDATES` are refined roughly first and chosen by where they are then. at_once: views or images per
    pass. on_progress may raise to stop.
    """
    extractor, stores = FeatureExtractor(backbone, tokens, source, config, at_once), _stores(config, backbone.device)
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    images, extra = order[: config.selection_images], order[config.selection_images : config.refine_images]
    under = min(config.refine_images, len(order)) if config.occluded_views else 0
    total, done = len(images) + len(extra) + under, 0
    on_progress = on_progress or silent

    def count(some: int) -> None:
        nonlocal done
        for _ in range(some):
            done += 1
            on_progress(EXTRACTING, done, total)

    position, score, choices = _extract_views(extractor, stores, images, count)  # [I, V, N, 2], [I, N]
    _extract_more(extractor, stores, extra, count)
    _extract_under_shapes(extractor, stores, under, count)
    votes = torch.zeros(len(tokens), dtype=torch.long)
    if config.selection == "votes":
        chosen, votes = ranking.most_voted(choices, len(tokens), config.keypoints)
    elif len(stores.views):
        chosen, position = _choose_refined(position, score, stores.views, config.keypoints, on_progress)
    else:
        chosen = most_predictive(position, score, config.keypoints, on_progress)
    reference = tuple(score[:, chosen].median(0).values.tolist())
    where, refined, occlusion = position[:, :, chosen].mean(1), None, None  # [I, K, 2]
    if len(stores.views):
        refined, where = _refined(position[: len(stores.views), :, chosen], stores, on_progress)
        refined = refined.unflatten(-1, (-1, tokens.shape[1]))  # [K, L, D]
    if len(stores.occluded):
        random = generator_for(config.seed, "occluder net")
        occlusion = learn_occlusion(stores.occluded.features, stores.covered, random, backbone.device, on_progress)
    return Choice(chosen, votes[chosen], reference, SpatialPrior.of(where), refined, occlusion)


def _stores(config: TrainConfig, device: torch.device) -> _Stores:
    """Empty stores, for views drawn from the seed."""
    c = config
    views = 0 if c.selection == "votes" else c.selection_views
    random = [
        affine.random_affine(n, c.rotation, c.scale, c.translation, generator_for(c.seed, purpose))
        for n, purpose in ((views, "selection views"), (c.occluded_views, "occluded views"))
    ]
    identity = affine.identity_affine(1)
    theta = torch.cat([identity, random[0]]), identity, random[1]
    return _Stores(*(FeatureStore(t, device) for t in theta))


def _extract_views(
    extractor: FeatureExtractor, stores: _Stores, images: list[int], count: Callable[[int], None]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of images: the peaks of all tokens [I, V, N, 2] brought back to the image, the scores [I, N] of those on
    the image itself, and with selection "votes" the choices [I, K]."""
    c, theta = extractor.config, stores.views.theta
    positions, scores, choices = [], [], []
    for done, image in enumerate(images):
        index, room = extractor.source.usable(image), 2 * stores.nbytes < FEATURE_BYTES
        maps, features = extractor.views(index, theta, room and done < c.refine_images)  # [V, N, R, R]
        if features is not None:
            stores.indices.append(index)
            extractor.keep(stores.views, index, features)
        peak = peaks(maps)  # [V, N, 2]
        xy = (peak.flip(-1) + 0.5) / c.map_size
        positions.append(seen_positions(affine.view_to_image(xy, theta.to(xy.device)).cpu(), theta.cpu()))
        scores.append(maps[0].flatten(1).amax(1).cpu())
        if c.selection == "votes":
            choices.append(_vote(maps[:1], peak[:1], c))
        count(1)
    return torch.stack(positions), torch.stack(scores), torch.stack(choices) if choices else torch.empty(0)


def seen_positions(position: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Positions [V, N, 2] that views [V, 2, 3] of an image give, in its unit square; where a view cannot see a token,
    by where the first view, the image itself, has it, its peak is a stray one: the mean of those that do takes its
    place."""
    seen = affine.visible(position[:1], theta)[0]  # [V, N]
    seen[0] = True
    weight = seen[..., None].to(position)
    mean = (position * weight).sum(0) / weight.sum(0)  # [N, 2]
    return torch.where(seen[..., None], position, mean)


def _extract_more(
    extractor: FeatureExtractor, stores: _Stores, images: list[int], count: Callable[[int], None]
) -> None:
    """Images as they are, several at a time."""
    for start in range(0, len(images), extractor.at_once):
        some = [extractor.source.usable(image) for image in images[start : start + extractor.at_once]]
        if 4 * stores.nbytes < 3 * FEATURE_BYTES:
            for index, features in zip(some, extractor.features(some).split(1), strict=True):  # [1, D, G, G]
                stores.indices.append(index)
                extractor.keep(stores.more, index, features)
        count(len(some))


def _extract_under_shapes(
    extractor: FeatureExtractor, stores: _Stores, images: int, count: Callable[[int], None]
) -> None:
    """The first of the images kept, under shapes."""
    for index in stores.indices[:images]:
        if stores.nbytes < FEATURE_BYTES:
            features, covered = extractor.occluded(index, stores.occluded.theta)
            extractor.keep(stores.occluded, index, features)
            stores.covered.append(covered.cpu())
        count(1)
    count(images - len(stores.indices[:images]))  # those that found no room


def _choose_refined(
    position: torch.Tensor, score: torch.Tensor, store: FeatureStore, keypoints: int, on_progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """The K of the tokens at positions [I, V, N, 2] with peak scores [I, N] that tell most of each other once they are
    refined roughly: their numbers int64 [K], and positions as given but for them, where they are then."""
    best = informativeness(position, score).argsort(descending=True, stable=True)[: max(CANDIDATES, keypoints)]
    where, missed = refine_candidates(position[: len(store), :, best], store, on_progress)
    sharp = torch.exp(SHARPNESS * (missed.min() - missed)).expand(len(where), -1)  # [I, C]
    chosen = most_predictive(where, sharp, keypoints)
    position = position[: len(store)].clone()
    position[:, :, best] = where
    return best[chosen], position


def _vote(maps: torch.Tensor, peak: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    """int64 [K]: the tokens that the training's rule picks on one image, maps [1, N, R, R] and peak [1, N, 2]."""
    c = config
    return ranking.spread_choice(maps, peak, c.keypoints, c.candidates, c.sigma, c.closeness, c.border)[0].cpu()


def _refined(position: torch.Tensor, stores: _Stores, on_progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    """Refined tokens [K, L*D], and where they lie on all images [I, K, 2]; position [I, V, K, 2]: where views found
    them."""
    refined = refine(position, stores.views, stores.more, occluded=stores.occluded, on_progress=on_progress)
    where = stores.views.locate(refined)[1]
    if len(stores.more):
        where = torch.cat([where, stores.more.locate(refined)[1]])
    return refined, where
