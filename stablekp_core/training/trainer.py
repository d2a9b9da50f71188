"""Learning the tokens: the loop around the step.

Images, views and noise are drawn from the seed and the number of the step alone; a run that was stopped therefore
continues bit for bit, and any number of processes uses the same data.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from copy import copy

import torch

from ..attention import tiled
from ..backbone.backbone import Backbone
from ..backbone.devices import out_of_memory
from ..config import TrainConfig
from ..errors import KeypointError
from ..images import affine
from ..images.image_set import ImageSet
from ..images.latent_cache import LatentSource
from ..images.masks import Masks
from ..images.preprocessing import fitting_input
from ..keypoints.readouts import Readout
from ..keypoints.tokens import KeypointTokens
from ..randomness import generator_for, image_order
from ..selection import ranking
from ..selection.choice import Choice
from ..selection.probe import held_out
from .distributed import Ranks
from .fixed_features import FeatureSource
from .step import StepOutput, step_losses, training_step

_log = logging.getLogger(__name__)
SIZED = 50  # images whose shape is looked at


class TrainingDiverged(KeypointError):
    """The loss is not a finite number; `tokens` are those of the last finite one (None before the first step)."""

    def __init__(self, step: int, tokens: KeypointTokens | None):
        kept = " The last good tokens were kept." if tokens is not None else ""
        super().__init__(
            f"The loss is not a finite number at step {step}; lower the learning rate, or use fp32 if you "
            f"trained in fp16.{kept}"
        )
        self.tokens = tokens


class Trainer:
    """The state of a training run: tokens, optimiser, step, losses. `train` does a whole run with it.

    Arguments as for `train`. Raises KeypointError for start tokens of another model or number.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: ImageSet,
        config: TrainConfig,
        start: KeypointTokens | None = None,
        notice: Callable[[str], None] = _log.warning,
        masks: Masks | None = None,
    ):
        # A shallow copy: this run may set `recompute` without changing the caller's backbone.
        self.backbone = backbone = copy(backbone)
        self.config = config = fitted(config, backbone, images)
        self.notice, self.ranks = notice, Ranks.current()
        learn, held = held_out(len(images), config)
        self.source, self.held = (
            LatentSource(backbone, some, config.image_size, config.resize, masks) if some is not None else None
            for some in ((images.pick(learn), images.pick(held)) if held else (images, None))
        )
        self.images = images
        if start is not None:
            start.check_model(backbone.hash, backbone.width)
            if len(start.embeddings) != config.tokens:
                raise KeypointError(
                    f"The tokens to continue from hold {len(start.embeddings)} tokens, but {config.tokens} "
                    f"were asked for; set tokens to {len(start.embeddings)}."
                )
            first = start.embeddings.clone()
        else:
            first = torch.randn(config.tokens, backbone.width, generator=generator_for(config.seed, "tokens"))
        self.features = FeatureSource(backbone, self.source, config) if config.gradient == "cached" else None
        self.tokens = first.to(backbone.device).requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.tokens], lr=config.learning_rate)
        self.step, self.losses = 0, deque()
        self.ratios: list[float] = []  # of the cheap self-checks after each round (rounds.py)
        self.recent = deque(maxlen=max(1, 100 // config.batch_size))  # choices of the last images
        self.micro_batch = config.micro_batch or config.batch_size
        self._good = self.tokens.detach().clone()

    def run_step(self) -> None:
        """One optimiser step. When memory runs out it is done again in smaller pieces, with the same result; raises
        KeypointError when one image does not fit."""
        while True:
            try:
                self._accumulate()
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._make_smaller(error)
        self.ranks.sum(self.tokens.grad)
        self.optimizer.step()
        self.step += 1

    def _make_smaller(self, error: RuntimeError) -> None:
        if tiled.halve_tiles():
            self.notice(f"Out of memory: going on with tiles of {tiled.TILE_BYTES >> 20} MB; the result is the same.")
        elif self.micro_batch > 1:
            self.micro_batch = (self.micro_batch + 1) // 2
            self.notice(f"Out of memory: going on with {self.micro_batch} images per pass; the result is the same.")
        elif self.config.gradient == "exact" and not self.backbone.recompute:
            self.backbone.recompute = True
            self.notice("Out of memory: going on by computing the UNet's blocks twice; the result is the same.")
        else:
            raise KeypointError(
                "There is not enough memory for one image; lower image_size, map_size or tokens, or use bf16."
            ) from error

    def _accumulate(self) -> None:
        """Gradients and losses of this step's batch, over the micro-batches of this process."""
        config, b = self.config, self.config.batch_size
        order = image_order(config.seed, self.step * b, b, len(self.source))
        g = generator_for(config.seed, "step", self.step)
        theta = affine.random_affine(b, config.rotation, config.scale, config.translation, g)
        side = self.source.side // self.backbone.factor
        noise = torch.randn(2, b, 4, side, side, generator=g)
        slots = torch.randint(config.view_pool, (b,), generator=g).tolist() if config.view_pool else None
        self.optimizer.zero_grad(set_to_none=True)
        sums, chosen = torch.zeros(3, device=self.backbone.device), []
        mine = self.ranks.share(b)
        for part in (mine[i : i + self.micro_batch] for i in range(0, len(mine), self.micro_batch)):
            indices = [self.source.usable(order[j]) for j in part]
            pooled = slots and [slots[j] for j in part]
            if pooled:
                theta[part] = self._pooled_views(indices, pooled)
            out = self._losses(indices, theta[part], pooled, noise[:, part])
            (out.total.sum() / b).backward()
            sums += torch.stack([out.total.sum(), out.localization.sum(), out.equivariance.sum()]).detach() / b
            chosen.append(out.chosen)
        if self.tokens.grad is None:  # a process without an image in this batch still takes part
            self.tokens.grad = torch.zeros_like(self.tokens)
        self.losses.append(self.ranks.sum(sums))
        if chosen:
            self.recent.append(torch.cat(chosen))

    def _losses(
        self, indices: list[int], theta: torch.Tensor, slots: list[int] | None, noise: torch.Tensor
    ) -> StepOutput:
        """The losses of some images and their views theta [B, 2, 3], with noise [2, B, 4, h, w]."""
        config, backbone = self.config, self.backbone
        identity = affine.identity_affine(len(indices))
        area = self.source.area(indices * 2, torch.cat([identity, theta]), config.map_size)
        noise = noise.to(backbone.device)
        if self.features is None:
            latents, views = self.source.latents(indices), self.source.view_latents(indices, theta, slots)
            return training_step(backbone, config, self.tokens, latents, views, theta, noise.flatten(0, 1), area)
        found = self.features.queries(indices, identity, [None] * len(indices))
        if slots:
            views = self.features.queries(indices, theta, slots)
        else:
            with torch.no_grad():
                noisy = backbone.add_noise(self.source.view_latents(indices, theta), noise[1], config.timestep)
                views = backbone.fixed_queries(noisy, config.timestep)
        logits = backbone.logits([torch.cat(both) for both in zip(found, views, strict=True)], self.tokens)
        return step_losses(config, logits, theta, area)

    def _pooled_views(self, images: list[int], slots: list[int]) -> torch.Tensor:
        """View number `slot` of the pool of each image, theta [B, 2, 3]: the same view whenever it is used."""
        c = self.config
        return torch.cat(
            [
                affine.random_affine(1, c.rotation, c.scale, c.translation, generator_for(c.seed, "view", image, slot))
                for image, slot in zip(images, slots, strict=True)
            ]
        )

    def finite(self) -> bool:
        """Whether the last loss and the tokens are finite numbers."""
        return bool(torch.isfinite(self.losses[-1]).all() & torch.isfinite(self.tokens).all())

    def check_finite(self) -> None:
        """Raise TrainingDiverged when the last loss or the tokens are not finite; otherwise remember the tokens."""
        if not self.finite():
            self.tokens.data.copy_(self._good)
            while self.losses and not bool(torch.isfinite(self.losses[-1]).all()):
                self.losses.pop()
                if self.recent:
                    self.recent.pop()
            raise TrainingDiverged(self.step, self.snapshot() if self.recent else None)
        self._good.copy_(self.tokens.detach())

    def snapshot(self) -> KeypointTokens:
        """The current tokens, with the K of them that the last hundred images voted for (Eq. 10)."""
        if not self.recent:
            chosen, votes = torch.arange(self.config.keypoints), torch.zeros(self.config.tokens)
        else:
            chosen, votes = ranking.most_voted(
                torch.cat([x.flatten() for x in self.recent]).cpu(), self.config.tokens, self.config.keypoints
            )
        return self.result(Choice(chosen, votes[chosen]))

    def result(self, choice: Choice) -> KeypointTokens:
        """The current tokens, with the keypoints of `choice`."""
        return KeypointTokens(
            self.tokens.detach().cpu().clone(),
            config=self.config.to_dict(),
            model_name=self.backbone.name,
            model_hash=self.backbone.hash,
            losses=tuple(float(x[0]) for x in self.losses),
            other=choice.other and Readout(**_readout(choice.other)),
            check=choice.check,
            **_readout(choice),
        )


def fitted(config: TrainConfig, backbone: Backbone, images: ImageSet) -> TrainConfig:
    """The configuration with resize "auto" replaced by what suits the images, and the sides of the model input and of
    the maps with it, so that tokens are read as they were learned. A side that was asked for stays."""
    if config.resize != "auto":
        return config
    side = backbone.input_side(config.image_size)
    mode, larger = fitting_input(images.sizes(SIZED), side, backbone.input_step)
    if config.image_size or larger == side:
        return config.replace(resize=mode)
    _log.info("the images are far from square: the model input has %d pixels a side instead of %d", larger, side)
    maps = min(round(config.map_size * larger / side), 1024)
    return config.replace(resize=mode, image_size=larger, map_size=maps)


def _readout(choice: Choice) -> dict:
    """The fields of a choice that tokens keep."""
    return dict(
        chosen=tuple(choice.chosen.tolist()),
        votes=tuple(choice.votes.tolist()),
        scores=choice.peak_scores,
        spatial_prior=choice.spatial_prior,
        refined=choice.refined,
        occlusion=choice.occlusion,
    )
