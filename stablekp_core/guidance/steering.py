"""Steering: how far, at which steps and with which width noisy latents are moved towards a pose."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch

from ..backbone.backbone import Backbone
from ..backbone.devices import out_of_memory
from ..config import GuideConfig
from ..errors import KeypointError
from .energy import energy_gradient
from .readers import KeypointGuidance
from .targets import Targets

_log = logging.getLogger(__name__)
STEP = 0.05  # length of a step at strength 1: root mean square per latent value, in units of the noise's deviation


def active(config: GuideConfig, timestep: float) -> bool:
    """Whether latents at `timestep` of 1000 are moved at all."""
    return config.strength > 0 and config.start <= 1 - timestep / 1000 <= config.end


class Steering:
    """A backbone, readers, targets and settings; moves noisy latents of any sampler. Holds no latents between calls."""

    def __init__(
        self,
        backbone: Backbone,
        guidance: KeypointGuidance,
        targets: Targets,
        config: GuideConfig | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        """`check` is called before each gradient step and may raise to stop."""
        self.backbone, self.config, self.check = backbone, config or GuideConfig(), check
        self.guidance = guidance.to(backbone.device)
        self.targets = targets
        self.at_once = self.config.batch_size

    def sigma(self, timestep: float) -> float:
        """The Gaussian's standard deviation at `timestep`, in longer sides of the image: from `sigma_start` to
        `sigma_end` in equal ratios."""
        c = self.config
        share = (1 - timestep / 1000 - c.start) / max(c.end - c.start, 1e-6)
        return c.sigma_start * (c.sigma_end / c.sigma_start) ** min(max(share, 0.0), 1.0)

    def shift(self, noisy: torch.Tensor, timestep: float, deviation: float) -> torch.Tensor:
        """What to add to noisy latents [B, 4, h, w] (variance preserving, as the UNet takes them) at `timestep`, whose
        noise has standard deviation `deviation`: float32 [B, 4, h, w], 0 outside of the schedule."""
        x = noisy.detach().float()
        total = torch.zeros_like(x)
        if not active(self.config, timestep):
            return total
        targets = self.targets.repeated(len(x))
        xy, weights = targets.xy.to(self.backbone.device), targets.weights.to(self.backbone.device)
        for _ in range(self.config.gradient_steps):
            gradient = self._finite(self._gradient(x + total, timestep, xy, weights).to(x), timestep)
            norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-20)[:, None, None, None]
            length = self.config.strength * STEP * deviation * math.sqrt(x[0].numel())
            total = total - gradient / norm * length
        return total

    @staticmethod
    def _finite(gradient: torch.Tensor, timestep: float) -> torch.Tensor:
        """The gradient, 0 for images of which half precision left something that is not a number."""
        bad = ~gradient.flatten(1).isfinite().all(1)
        if bad.any():
            _log.warning(
                "The gradient overflows for %d of %d images at timestep %.0f: not moved there; use bf16 or fp32.",
                bad.sum(), len(bad), timestep,
            )  # fmt: skip
            gradient = gradient.masked_fill(bad[:, None, None, None], 0)
        return gradient

    def _gradient(self, noisy: torch.Tensor, timestep: float, xy: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[B, 4, h, w], some images at a time; fewer when memory runs out."""
        parts, start = [], 0
        while start < len(noisy):
            self.check()
            some = slice(start, start + self.at_once)
            try:
                _, gradient = energy_gradient(
                    self.backbone, self.guidance, noisy[some], timestep, xy[some], weights[some], self.sigma(timestep)
                )
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.at_once == 1:
                    raise KeypointError(
                        "There is not enough memory to guide one image; make a smaller image (or use --recompute)."
                    ) from error
                self.at_once = (self.at_once + 1) // 2
                continue
            parts.append(gradient)
            start += self.at_once
        return torch.cat(parts)
