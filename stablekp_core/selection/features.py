"""Feature extraction: token maps of training images, and the features that tokens are refined on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..attention import token_maps
from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..images import affine
from ..images.latent_cache import LatentSource
from ..randomness import generator_for
from .occlusion import occlude
from .positions import FeatureStore
from .refinement import neutral_prompt


class FeatureExtractor:
    """Token maps and features of training images under the learned tokens [N, D]; at_once: views or images per pass."""

    def __init__(
        self, backbone: Backbone, tokens: torch.Tensor, source: LatentSource, config: TrainConfig, at_once: int
    ):
        self.backbone, self.tokens, self.source, self.config = backbone, tokens, source, config
        self.at_once = at_once

    def views(self, index: int, theta: torch.Tensor, refine: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token maps [V, N, R, R] in [0, 1] of the views theta [V, 2, 3] of an image, of which the first must be the
        image itself, and, with `refine`, features [V, L*D, G, G] as in `features`."""
        c, latents = self.config, self.source.latents([index])
        if len(theta) > 1:
            latents = torch.cat([latents, self.source.view_latents([index] * (len(theta) - 1), theta[1:])])
        noisy = self._noisy(latents, self._noise(index, latents))
        maps_of = token_maps.coarse_maps if c.upsample == "maps" else token_maps.token_maps
        maps = torch.cat(
            [
                maps_of(self.backbone.token_logits(some, c.timestep, self.tokens, c.gradient), c.map_size)
                for some in noisy
            ]
        )
        area = self.source.area([index] * len(theta), theta, c.map_size)
        return maps if area is None else maps * area, self._features(noisy) if refine else None

    def features(self, indices: list[int]) -> torch.Tensor:
        """The features (Backbone.features) of whole images under the prompt of refinement, those of the L layers
        concatenated at the side G of the finest one: [B, L*D, G, G]."""
        latents = self.source.latents(indices)
        return self._features(self._noisy(latents, torch.cat([self._noise(index, latents[:1]) for index in indices])))

    def occluded(self, index: int, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [V, L*D, G, G] of the views theta [V, 2, 3] of an image with shapes pasted over them, and the share
        of each position that these cover, [V, 1, G, G] in [0, 1]."""
        views = affine.warp(self.source.batch([index] * len(theta)), theta)
        views, covered = occlude(views, generator_for(self.config.seed, "occluders", index))
        latents = self.backbone.encode(views)
        features = self._features(self._noisy(latents, self._noise(index, latents)))
        return features, F.interpolate(covered, features.shape[-2:], mode="area")

    def _noise(self, index: int, latents: torch.Tensor) -> torch.Tensor:
        """The noise of one image, for latents [V, 4, h, w] of its views."""
        noise = torch.randn(latents.shape, generator=generator_for(self.config.seed, "selection noise", index))
        return noise.to(latents.device)

    def _noisy(self, latents: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Noisy latents [B, 4, h, w], some of them at a time."""
        return self.backbone.add_noise(latents, noise, self.config.timestep).split(self.at_once)

    def _features(self, noisy: Sequence[torch.Tensor]) -> torch.Tensor:
        """[B, L*D, G, G] of noisy latents, some of them at a time."""
        out, prompt = [], neutral_prompt(self.tokens)
        for some in noisy:
            layers = self.backbone.features(self.backbone.queries(some, self.config.timestep, prompt))
            out.append(token_maps.stacked_features(layers))
        return torch.cat(out)

    def keep(self, store: FeatureStore, index: int, features: torch.Tensor) -> None:
        """Add the features [V, L*D, G, G] of the views of image `index` to `store`."""
        store.add(features, self.source.area([index] * len(features), store.theta, features.shape[-1]))
