"""The frozen diffusion model: images to latents, latents and tokens to cross-attention queries and keys.

A `Backbone` wraps a UNet2DConditionModel and an AutoencoderKL of diffusers. It knows which cross-attention layers the
method reads (the first four on the way up: up_blocks.1.attentions.0-2 and up_blocks.2.attentions.0 in Stable Diffusion
1.5), captures their queries (attention_processors.py), and stops the UNet right after the last one: nothing behind it
is computed in the forward or the backward pass. It knows nothing of losses, keypoints or files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import KeypointError
from .attention_processors import LastQuery, captured_layers, keys, queries
from .recognition import EPSILON


def alphas_cumprod() -> torch.Tensor:
    """The share of signal variance at each timestep of Stable Diffusion's scaled-linear schedule: fp32 [1000], falling,
    in (0, 1)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


@dataclass
class Backbone:
    """A frozen UNet and VAE that give latents, queries and logits.

    unet, vae: diffusers' UNet2DConditionModel and AutoencoderKL; their parameters are only read. name: for messages.
    hash: identifies the weights of the UNet (see checkpoint.weights_hash). dtype: what UNet and VAE compute in; logits
    are always fp32. recompute: compute the blocks of the UNet again in the backward pass (gradient checkpointing): less
    memory, about a third more time, the same result. prediction: what the UNet tells of a noisy image (see
    checkpoint.LoadedModel). Raises KeypointError when the UNet has fewer than 4 cross-attentions on the way up.
    """

    unet: Any
    vae: Any
    name: str = ""
    hash: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    recompute: bool = False
    prediction: str = EPSILON

    def __post_init__(self) -> None:
        self.unet.requires_grad_(False).eval()
        self.vae.requires_grad_(False).eval()
        self.layers = captured_layers(self.unet)
        if len(self.layers) < 4:
            raise KeypointError(
                f"The model {self.name or 'given'} has {len(self.layers)} cross-attentions on the way up, "
                "but 4 are needed; use a Stable Diffusion 1.4 or 1.5 model."
            )
        self._alphas = alphas_cumprod()

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return self.unet.config.cross_attention_dim

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side (8 for Stable Diffusion 1.5)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def input_step(self) -> int:
        """What the side of the model input must be a multiple of, in pixels: the levels of VAE and UNet halve it."""
        return self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def input_side(self, image_size: int = 0) -> int:
        """Side S of the model input in pixels: `image_size`, or what the model was made for when it is 0.

        Raises KeypointError when S is not a multiple of what the levels of VAE and UNet need.
        """
        size, step = image_size or int(self.unet.config.sample_size or 64) * self.factor, self.input_step
        if size % step:
            raise KeypointError(
                f"image_size is {size}, but {self.name or 'this model'} needs a multiple of {step}; "
                f"use {max(step, round(size / step) * step)}."
            )
        return size

    def _autocast(self):
        weights = next(self.unet.parameters()).dtype
        return torch.autocast(
            self.device.type,
            dtype=self.dtype if self.dtype != torch.float32 else torch.bfloat16,
            enabled=self.dtype != weights and self.dtype != torch.float32,
        )

    @torch.no_grad()
    def encode(self, images: torch.Tensor, slice_size: int = 0) -> torch.Tensor:
        """Model inputs [B, 3, S, S] RGB in [0, 1] -> latents fp32 [B, 4, S/f, S/f]: the mean of the posterior times the
        scaling factor of the VAE.

        slice_size: images encoded at a time; 0: one on a CPU, whose caches hold no more, else 8.
        """
        parameter = next(self.vae.parameters())
        slice_size = slice_size or (1 if self.device.type == "cpu" else 8)
        out = []
        for part in images.split(slice_size):
            x = (part.to(self.device) * 2 - 1).to(parameter.dtype)
            out.append(self.vae.encode(x).latent_dist.mean.float() * self.vae.config.scaling_factor)
        return torch.cat(out)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """The noisy latents z_t of Eq. 1: latents and standard normal noise [B, 4, h, w], mixed as the forward process
        does at `timestep` in 0..999."""
        a = self._alphas[timestep].item()
        return a**0.5 * latents + (1 - a) ** 0.5 * noise

    def queries(self, noisy: torch.Tensor, timestep: int, tokens: torch.Tensor) -> list[torch.Tensor]:
        """The queries Q of Eq. 2: one [B, heads, s*s, d] per captured layer, for noisy latents [B, 4, h, w] and tokens
        [N, D] that all images of the batch share. The UNet stops after the last captured layer."""
        dtype = next(self.unet.parameters()).dtype
        capture = queries(self.unet, self.layers, recompute=self.recompute)
        with capture as found, self._autocast(), suppress(LastQuery):
            self.unet(noisy.to(self.device, dtype), timestep, tokens[None].to(self.device, dtype))
        return [found[name] for name in self.layers]

    def logits(self, found: list[torch.Tensor], tokens: torch.Tensor) -> list[torch.Tensor]:
        """The attention logits Q K^T / sqrt(d) of Eq. 2: one fp32 [B, heads, s*s, N] per captured layer.

        found: the queries of each layer. tokens: [N, D], or [N, L, D] with another embedding for each of the L layers.
        """
        out = []
        for i, (name, q) in enumerate(zip(self.layers, found, strict=True)):
            own = tokens if tokens.ndim == 2 else tokens[:, i]
            k = keys(self.unet, name, own.to(self.device))  # [h, N, d]
            scale = self.unet.get_submodule(name).scale
            out.append(torch.matmul(q.float() * scale, k.transpose(-1, -2)))
        return out

    def features(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        """The features of each captured layer, fp32 [B, 1, s*s, D]: the queries multiplied by the key projection.

        Their product with the embedding [D] of a token is the sum of the logits of that token over the heads.
        """
        out = []
        for name, q in zip(self.layers, found, strict=True):
            attn = self.unet.get_submodule(name)
            flat = q.transpose(1, 2).flatten(2).float() * attn.scale  # [B, s*s, h*d]
            out.append((flat @ attn.to_k.weight.float())[:, None])
        return out

    def token_logits(
        self, noisy: torch.Tensor, timestep: int, tokens: torch.Tensor, gradient: str = "exact"
    ) -> list[torch.Tensor]:
        """The logits of tokens [N, D] on noisy latents [B, 4, h, w] (see `logits`); gradient as in `token_queries`."""
        return self.logits(self.token_queries(noisy, timestep, tokens, gradient), tokens)

    def token_queries(
        self, noisy: torch.Tensor, timestep: int, tokens: torch.Tensor, gradient: str = "exact"
    ) -> list[torch.Tensor]:
        """The queries of noisy latents [B, 4, h, w] for tokens [N, D] (see `queries`).

        gradient: "exact", queries under these tokens, through which gradients flow; "cached", constant queries under a
        prompt of zeros, which do not depend on the tokens.
        """
        if gradient == "exact":
            return self.queries(noisy, timestep, tokens)
        with torch.no_grad():
            return self.fixed_queries(noisy, timestep)

    def fixed_queries(self, noisy: torch.Tensor, timestep: int) -> list[torch.Tensor]:
        """The queries of noisy latents [B, 4, h, w] under a prompt of one zero token: those of gradient "cached"."""
        return self.queries(noisy, timestep, torch.zeros(1, self.width))
