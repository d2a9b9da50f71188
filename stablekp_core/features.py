"""Queries of a fixed prompt, kept: what training needs of pictures and views when features do not depend on tokens."""

from __future__ import annotations

import torch

from .backbone import Backbone
from .config import TrainConfig
from .latents import LatentSource, Recent
from .randomness import generator_for

CACHE_BYTES = 2 << 30


class FeatureSource:
    """Queries of pictures (slot None) and of the views of their pools (slot 0, 1, ...), each computed once while at
    most `CACHE_BYTES` of them are kept. The noise of a view is drawn once, from the seed, picture and slot."""

    def __init__(self, backbone: Backbone, source: LatentSource, config: TrainConfig):
        self.backbone, self.source, self.config = backbone, source, config
        self._kept = Recent(CACHE_BYTES)

    def queries(self, indices: list[int], theta: torch.Tensor, slots: list[int | None]) -> list[torch.Tensor]:
        """Queries [B, heads, s*s, d] per layer of pictures seen through theta [B, 2, 3], which is the same for the same
        picture and slot."""
        names = list(zip(indices, slots, strict=True))
        found = {name: self._kept.get(name) for name in names}
        missing = list({name: j for j, name in enumerate(names) if found[name] is None}.values())
        # One at a time on a CPU: rounding depends on the size of the batch, and which are missing on when a run was
        # resumed.
        at_once = 1 if self.backbone.device.type == "cpu" else 8
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            for j, flat in zip(some, self._compute([names[j] for j in some], theta[some]), strict=True):
                found[names[j]] = self._kept.put(names[j], flat)
        rows = torch.stack([found[name] for name in names]).to(self.backbone.device)  # [B, values of all layers]
        parts = rows.split([shape.numel() for shape in self._shapes], 1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    @torch.no_grad()
    def _compute(self, names: list[tuple[int, int | None]], theta: torch.Tensor) -> list[torch.Tensor]:
        """For each (picture, slot) all its queries, flat."""
        c, pictures = self.config, [picture for picture, _ in names]
        latents = self.source.view_latents(pictures, theta)
        noise = torch.stack(
            [
                torch.randn(latents.shape[1:], generator=generator_for(c.seed, "feature noise", picture, slot))
                for picture, slot in names
            ]
        )
        found = self.backbone.fixed_queries(
            self.backbone.add_noise(latents, noise.to(latents.device), c.timestep), c.timestep
        )
        self._shapes = [x.shape[1:] for x in found]
        return list(torch.cat([x.flatten(1) for x in found], 1).cpu().clone().unbind())
