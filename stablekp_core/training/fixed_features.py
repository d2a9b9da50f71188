"""A cache of queries under a fixed prompt, for training with gradient "cached", where they do not depend on tokens."""

from __future__ import annotations

import torch

from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..images.latent_cache import LatentSource, Recent, images_per_pass
from ..randomness import generator_for

CACHE_BYTES = 2 << 30


class FeatureSource:
    """The queries of images (slot None) and of the views in their pools (slot 0, 1, ...), each computed once while at
    most `CACHE_BYTES` are kept. The noise of a view is drawn once, from seed, image and slot."""

    def __init__(self, backbone: Backbone, source: LatentSource, config: TrainConfig):
        self.backbone, self.source, self.config = backbone, source, config
        self._kept = Recent(CACHE_BYTES)

    def queries(self, indices: list[int], theta: torch.Tensor, slots: list[int | None]) -> list[torch.Tensor]:
        """Queries [B, heads, s*s, d] per layer of the views theta [B, 2, 3] of some images; theta must be the same
        whenever image and slot are."""
        names = list(zip(indices, slots, strict=True))
        rows = self._kept.gather(
            names,
            lambda some: self._compute([names[j] for j in some], theta[some]),
            images_per_pass(self.backbone.device),
        ).to(self.backbone.device)  # [B, values of all layers]
        parts = rows.split([shape.numel() for shape in self._shapes], 1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    @torch.no_grad()
    def _compute(self, names: list[tuple[int, int | None]], theta: torch.Tensor) -> torch.Tensor:
        """[B, values of all layers]: the queries of each (image, slot), flat."""
        c, images = self.config, [image for image, _ in names]
        latents = self.source.view_latents(images, theta)
        noise = torch.stack(
            [
                torch.randn(latents.shape[1:], generator=generator_for(c.seed, "feature noise", image, slot))
                for image, slot in names
            ]
        )
        found = self.backbone.fixed_queries(
            self.backbone.add_noise(latents, noise.to(latents.device), c.timestep), c.timestep
        )
        self._shapes = [x.shape[1:] for x in found]
        return torch.cat([x.flatten(1) for x in found], 1).cpu()
