"""After training: choose the K tokens that become keypoints (Eq. 10, or by prediction), and refine them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..attention.readout import peaks
from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..images import affine
from ..images.latent_cache import LatentSource
from ..keypoints.self_check import REFINED, SelfCheck, better_readout
from ..keypoints.spatial_prior import SpatialPrior
from ..progress import CHECKING, EXTRACTING, Progress, silent
from ..randomness import generator_for
from . import ranking
from .choice import Choice, Seen, Stores
from .features import FeatureExtractor
from .occlusion import learn_occlusion
from .positions import FeatureStore, seen_positions
from .predictive import informativeness, most_predictive
from .probe import IN_TURN, Probe, check_choices, check_in_turn, probed_images
from .refinement import refine, refine_candidates

FEATURE_BYTES = 2 << 30  # of features kept for refinement; further images are left out
CANDIDATES = 100  # tokens that are refined roughly before K of them are chosen
SHARPNESS = 3.0  # a candidate counts exp(-SHARPNESS) times less for each nat of negative log-likelihood


@torch.no_grad()
def choose_tokens(
    backbone: Backbone,
    tokens: torch.Tensor,
    source: LatentSource,
    config: TrainConfig,
    at_once: int = 8,
    on_progress: Progress | None = None,
    held: LatentSource | None = None,
) -> Choice:
    """Choose K of tokens [N, D] on up to `selection_images` training images, and refine them on up to `refine_images`
    of them, whose features are extracted once more under shapes (`occluded_views`).

    Selection "votes": the K tokens that the rule of training picks on most images (Eq. 10). "prediction": those from
    whose positions the positions of all tokens are predicted best (`most_predictive`); with refinement, the best
    `CANDIDATES` are refined roughly first and chosen by their positions after it. at_once: views or images per pass.
    held: images left out of training, for the self-check, which also picks the read-out. on_progress may raise to stop.
    """
    extractor, stores = FeatureExtractor(backbone, tokens, source, config, at_once), _stores(config, backbone)
    order = torch.randperm(len(source), generator=generator_for(config.seed, "selection")).tolist()
    images, extra = order[: config.selection_images], order[config.selection_images : config.refine_images]
    under = min(config.refine_images, len(order)) if config.occluded_views else 0
    total, done = len(images) + len(extra) + under, 0
    on_progress = on_progress or silent
    on_progress(EXTRACTING, 0, total)

    def count(some: int) -> None:
        nonlocal done
        for _ in range(some):
            done += 1
            on_progress(EXTRACTING, done, total)

    seen = Seen(*_extract_views(extractor, stores, images, count), stores)
    _extract_more(extractor, stores, extra, count)
    _extract_under_shapes(extractor, stores, under, count)
    choices = _choices(seen, config, on_progress)
    looking = FeatureExtractor(backbone, tokens, held or source, config, at_once)
    check = _checked(choices, seen, looking, probed_images(source, images, held, config), held, on_progress)
    learned, refined = (*choices, None)[:2]
    best, other = (refined, learned) if check.used == REFINED else (learned, refined)
    return replace(best, other=other, check=check)


def _checked(
    choices: list[Choice],
    seen: Seen,
    looking: FeatureExtractor,
    images: list[int],
    held: LatentSource | None,
    on_progress: Progress,
) -> SelfCheck:
    """The self-check of the choices, on images of the extractor's source."""
    config, parts = looking.config, IN_TURN if held is None and looking.config.check_share and len(images) > 1 else 0
    total = len(images) + parts
    on_progress(CHECKING, 0, total)
    probe = Probe.of(looking, images, bool(len(seen.stores.views)), lambda done: on_progress(CHECKING, done, total))
    if parts:
        on_part = lambda part: on_progress(CHECKING, len(images) + part, total)  # noqa: E731
        checks = check_in_turn(choices, seen, probe, lambda some: _choices(some, config, silent), on_part)
        how = "left out in turn"
    else:
        how, checks = "left out" if held is not None else "seen", check_choices(choices, seen, probe)
    names = tuple(held.images.names[i] for i in images) if held is not None else ()
    used = better_readout(*checks, keypoints=config.keypoints)
    return SelfCheck(len(images), how, used, *checks, names=names, keypoints=config.keypoints)


def _choices(seen: Seen, config: TrainConfig, on_progress: Progress) -> list[Choice]:
    """The choice for the learned read-out and, where tokens are refined, that for the refined one."""
    plain = replace(seen, stores=replace(seen.stores, views=seen.stores.views.pick([])))
    if not len(seen.stores.views):
        return [_choice(plain, config, on_progress)]
    return [_choice(plain, config, silent), _choice(seen, config, on_progress)]


def _choice(seen: Seen, config: TrainConfig, on_progress: Progress) -> Choice:
    """The K tokens of one read-out: refined where there are features to refine them on."""
    position, score, stores = seen.position, seen.score, seen.stores
    votes = torch.zeros(position.shape[2], dtype=torch.long)
    if config.selection == "votes":
        chosen, votes = ranking.most_voted(seen.votes, len(votes), config.keypoints)
    elif len(stores.views):
        chosen, position = _choose_refined(position, score, stores.views, config.keypoints, on_progress)
    else:
        chosen = most_predictive(position, score, config.keypoints, on_progress)
    reference = tuple(score[:, chosen].median(0).values.tolist())
    if not len(stores.views):
        where = position[:, :, chosen].mean(1)  # [I, K, 2]
        return Choice(chosen, votes[chosen], reference, SpatialPrior.of(where), where=where)
    refined, where = _refined(position[: len(stores.views), :, chosen], stores, on_progress)
    refined, occlusion = refined.unflatten(-1, (-1, stores.width)), None  # [K, L, D]
    if len(stores.occluded):
        random = generator_for(config.seed, "occluder net")
        occlusion = learn_occlusion(stores.occluded.features, stores.covered, random, stores.views.device, on_progress)
    return Choice(chosen, votes[chosen], reference, SpatialPrior.of(where), refined, occlusion, where)


def _stores(config: TrainConfig, backbone: Backbone) -> Stores:
    """Empty stores, for views drawn from the seed."""
    c = config
    views = 0 if c.selection == "votes" else c.selection_views
    random = [
        affine.random_affine(n, c.rotation, c.scale, c.translation, generator_for(c.seed, purpose))
        for n, purpose in ((views, "selection views"), (c.occluded_views, "occluded views"))
    ]
    identity = affine.identity_affine(1)
    theta = torch.cat([identity, random[0]]), identity, random[1]
    return Stores(backbone.width, *(FeatureStore(t, backbone.device) for t in theta))


def _extract_views(
    extractor: FeatureExtractor, stores: Stores, images: list[int], count: Callable[[int], None]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token maps of the views of images: the peaks of all tokens [I, V, N, 2] in the unit square of the image, the peak
    scores [I, N] on the image itself, and with selection "votes" the choices [I, K]."""
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


def _extract_more(extractor: FeatureExtractor, stores: Stores, images: list[int], count: Callable[[int], None]) -> None:
    """Features of images without views, several at a time."""
    for start in range(0, len(images), extractor.at_once):
        some = [extractor.source.usable(image) for image in images[start : start + extractor.at_once]]
        if 4 * stores.nbytes < 3 * FEATURE_BYTES:
            for index, features in zip(some, extractor.features(some).split(1), strict=True):  # [1, D, G, G]
                stores.indices.append(index)
                extractor.keep(stores.more, index, features)
        count(len(some))


def _extract_under_shapes(
    extractor: FeatureExtractor, stores: Stores, images: int, count: Callable[[int], None]
) -> None:
    """Features of the first of the images kept, under shapes."""
    for index in stores.indices[:images]:
        if stores.nbytes < FEATURE_BYTES:
            features, covered = extractor.occluded(index, stores.occluded.theta)
            extractor.keep(stores.occluded, index, features)
            stores.covered.append(covered.cpu())
        count(1)
    count(images - len(stores.indices[:images]))  # those that did not fit into memory


def _choose_refined(
    position: torch.Tensor, score: torch.Tensor, store: FeatureStore, keypoints: int, on_progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose K tokens by prediction after refining the most informative ones roughly.

    position: [I, V, N, 2] in the unit square of the image. score: peak scores [I, N]. Returns the tokens, int64 [K],
    and the positions [I, V, N, 2], for the refined candidates those after refinement.
    """
    best = informativeness(position, score).argsort(descending=True, stable=True)[: max(CANDIDATES, keypoints)]
    where, missed = refine_candidates(position[: len(store), :, best], store, on_progress)
    sharp = torch.exp(SHARPNESS * (missed.min() - missed)).expand(len(where), -1)  # [I, C]
    chosen = most_predictive(where, sharp, keypoints)
    position = position[: len(store)].clone()
    position[:, :, best] = where
    return best[chosen], position


def _vote(maps: torch.Tensor, peak: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    """The tokens that the rule of training picks on one image, int64 [K]; maps [1, N, R, R], peak [1, N, 2]."""
    c = config
    return ranking.spread_choice(maps, peak, c.keypoints, c.candidates, c.sigma, c.closeness, c.border)[0].cpu()


def _refined(position: torch.Tensor, stores: Stores, on_progress: Progress) -> tuple[torch.Tensor, torch.Tensor]:
    """Refined tokens [K, L*D], and their positions on all images [I, K, 2]; position: where views found them,
    [I, V, K, 2]. Both in the unit square of the image."""
    refined = refine(position, stores.views, stores.more, occluded=stores.occluded, on_progress=on_progress)
    where = stores.views.locate(refined)[1]
    if len(stores.more):
        where = torch.cat([where, stores.more.locate(refined)[1]])
    return refined, where
