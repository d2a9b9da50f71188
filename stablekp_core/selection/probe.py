"""The positions and maps of tokens on left-out images, in several views: the data of the self-check.

self_check.py computes the numbers from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..attention.readout import peaks
from ..config import TrainConfig
from ..images import affine
from ..images.latent_cache import LatentSource
from ..keypoints.self_check import ReadoutCheck, mean_check
from ..randomness import generator_for
from .choice import Choice, Seen
from .features import FeatureExtractor
from .positions import FeatureStore, seen_positions
from .predictive import informativeness
from .self_check import Found, check_readout, map_area

SEEN = 25  # the most images of the check where none were left out
IN_TURN = 3  # parts of few images, each left out once
FEW, FEWEST_HELD, MOST_HELD = 12, 4, 50  # images


@dataclass
class Probe:
    """Tokens on J images in views theta [V, 2, 3], of which the first is the image itself. position: peaks of all
    learned tokens, [J, V, N, 2] in the unit square of the image. area: the share of the image that their maps cover,
    [J, N] in [0, 1]. store: the features that refined tokens are read from, if any."""

    theta: torch.Tensor
    position: torch.Tensor
    area: torch.Tensor
    store: FeatureStore

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        extractor: FeatureExtractor,
        indices: Sequence[int],
        refined: bool,
        on_image: Callable[[int], None],
    ) -> Probe:
        """Extract them from images `indices` of the extractor's source; on_image is called with the number of images
        done."""
        theta = probe_views(extractor.config)
        store, position, area = FeatureStore(theta, extractor.backbone.device), [], []
        for done, index in enumerate(indices, 1):
            maps, features = extractor.views(index, theta, refined)
            if features is not None:
                extractor.keep(store, index, features)
            xy = (peaks(maps).flip(-1) + 0.5) / maps.shape[-1]
            position.append(seen_positions(affine.view_to_image(xy, theta.to(xy.device)).cpu(), theta))
            area.append(map_area(maps[0]).cpu())
            on_image(done)
        return cls(theta, torch.stack(position), torch.stack(area), store)

    def pick(self, rows: Sequence[int]) -> Probe:
        """The same of some of the images."""
        rows = list(rows)
        return Probe(self.theta, self.position[rows], self.area[rows], self.store.pick(rows))

    def learned(self, chosen: torch.Tensor, known: torch.Tensor) -> Found:
        """The positions of the learned tokens `chosen` [K]; known: their positions on the images chosen on,
        [I, K, 2]."""
        return self._found(known, self.position[:, :, chosen], self.area[:, chosen])

    def refined(self, tokens: torch.Tensor, known: torch.Tensor) -> Found:
        """The positions of refined tokens [K, D]; known: their positions on the images refined on, [I, K, 2]."""
        area = [map_area(maps.unflatten(0, (-1, len(self.theta)))[:, 0]).cpu() for maps in self.store.maps(tokens)]
        return self._found(known, self.store.locate_in_views(tokens), torch.cat(area))

    def _found(self, known: torch.Tensor, views: torch.Tensor, area: torch.Tensor) -> Found:
        where = views.median(1).values  # [J, K, 2]
        return Found(known, views, affine.visible(where, self.theta), area)


def held_out(images: int, config: TrainConfig) -> tuple[list[int], list[int]]:
    """Which of so many images are learned from, and which are left out for the self-check: a share, at least
    `FEWEST_HELD`, at most `MOST_HELD`; none of fewer than `FEW`, which are left out in turn when tokens are chosen."""
    if not config.check_share or images < FEW:
        return list(range(images)), []
    count = min(max(FEWEST_HELD, round(config.check_share * images)), MOST_HELD)
    held = torch.randperm(images, generator=generator_for(config.seed, "left out"))[:count].sort().values.tolist()
    return [i for i in range(images) if i not in set(held)], held


def probe_views(config: TrainConfig) -> torch.Tensor:
    """The views of the self-check, [V, 2, 3]: the image itself and as many random views as tokens are chosen on."""
    c = config
    random = affine.random_affine(
        c.selection_views, c.rotation, c.scale, c.translation, generator_for(c.seed, "check views")
    )
    return torch.cat([affine.identity_affine(1), random])


def probed_images(
    source: LatentSource, images: Sequence[int], held: LatentSource | None, config: TrainConfig
) -> list[int]:
    """The images of the self-check: those of `held`; without these, all of few images, each to be left out in
    turn, or, where nothing is to be left out, the last of `images` of the source."""
    if held is not None:
        return list(dict.fromkeys(held.usable(i) for i in range(len(held))))
    return [source.usable(i) for i in (images if config.check_share else images[-SEEN:])]


def check_choices(choices: Sequence[Choice], seen: Seen, probe: Probe) -> list[ReadoutCheck]:
    """The numbers of the learned and, where there is one, the refined read-out, on images that `seen` does not hold (or
    holds, where nothing was left out)."""
    others = torch.ones(seen.position.shape[2], dtype=torch.bool)
    others[torch.cat([choice.chosen for choice in choices])] = False
    weight = informativeness(seen.position, seen.score) * others  # [N]
    out = []
    for choice in choices:
        if choice.refined is None:
            found = probe.learned(choice.chosen, choice.where)
        else:
            found = probe.refined(choice.refined.flatten(1), choice.where[: len(seen.stores.views)])
        known = seen.position[: len(found.known)].mean(1)  # [I, N, 2]
        out.append(check_readout(found, known, probe.position.mean(1), weight))
    return out


def check_in_turn(
    choices: Sequence[Choice],
    seen: Seen,
    probe: Probe,
    choose: Callable[[Seen], list[Choice]],
    on_part: Callable[[int], None],
) -> list[ReadoutCheck]:
    """The same where the probe's images are those of `seen`: each part of them is left out once, tokens are chosen and
    refined on the others, and the numbers are means over the parts. Which keypoints are of no use is told of `choices`,
    the final ones."""
    images = list(range(len(probe.position)))
    parts = []
    for part in range(IN_TURN):
        known, left_out = [i for i in images if i % IN_TURN != part], images[part::IN_TURN]
        if left_out and known:
            some = seen.pick(known)
            parts.append(check_choices(choose(some), some, probe.pick(left_out)))
        on_part(part + 1)
    return [
        mean_check(checks, whole) for *checks, whole in zip(*parts, check_choices(choices, seen, probe), strict=True)
    ]
