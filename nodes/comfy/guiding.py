"""Guidance inside ComfyUI's sampling: a post-CFG function on a clone of a MODEL."""

from __future__ import annotations

import logging

import torch

from .runtime import gradients_allowed, stop_if_cancelled

_KEY = "stable_keypoints_guidance"
_SAME = 1e-4  # relative difference of noise levels that are the same one


def guided(model, handle, guidance, pose, points: str, config):
    """A clone of the MODEL whose sampling is steered towards `pose`. handle: the BackboneHandle to look through."""
    from comfy.patcher_extension import WrappersMP

    clone, guide = model.clone(), _Guide(handle, guidance, pose, points, config)
    clone.set_additional_models(_KEY, [*clone.get_additional_models_with_key(_KEY), *handle.beside(model)])
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, guide.around)
    clone.set_model_sampler_post_cfg_function(guide)
    return clone


class _Guide:
    """What the clone of a MODEL carries; holds a view of weights only while it samples."""

    def __init__(self, handle, guidance, pose, points: str, config):
        self._handle, self._guidance, self._pose, self._points = handle, guidance, pose, points
        self._config, self._steering = config, None

    def around(self, executor, *args, **kwargs):
        """Around one sampling: afterwards nothing of it is kept."""
        try:
            return executor(*args, **kwargs)
        finally:
            self._steering = None

    def __call__(self, args: dict) -> torch.Tensor:
        """The denoised latents, shifted so that the sampler's step goes towards the pose."""
        x, denoised, sigma = args["input"], args["denoised"], float(args["sigma"].max())
        following = _following(args["model_options"]["transformer_options"]["sample_sigmas"], sigma)
        timestep = float(args["model"].model_sampling.timestep(args["sigma"].flatten()[:1]))
        if following is None or not self._active(timestep):
            return denoised
        spread = (1 + sigma**2) ** 0.5  # the UNet takes x / spread
        with gradients_allowed():
            steering = self._open(x)
            shift = steering.shift(x.clone().float() / spread, timestep, sigma / spread) * spread
        # A step of Euler's method moves x by (1 - following / sigma) times what `denoised` moves.
        return denoised + (shift / (1 - following / sigma)).to(denoised)

    def _active(self, timestep: float) -> bool:
        from stablekp_core.guidance.steering import active

        return active(self._config, timestep)

    def _open(self, x: torch.Tensor):
        """The steering for latents like x [B, 4, h, w]; made once in each sampling."""
        from stablekp_core.guidance.steering import Steering
        from stablekp_core.guidance.targets import pose_targets

        if self._steering is None:
            height, width = x.shape[-2:]
            targets = pose_targets(self._pose, self._guidance, width, height, self._points)
            if targets.fitted:
                logging.warning(
                    "[Stable Keypoints] Guide by Keypoints: the pose has another aspect ratio than the latent; it was "
                    "scaled to fit inside, and centred."
                )
            self._steering = Steering(self._handle.seen(), self._guidance, targets, self._config, stop_if_cancelled)
        return self._steering


def _following(sigmas: torch.Tensor, sigma: float) -> float | None:
    """The noise level that the sampler goes to from `sigma`, or None where it is the last."""
    lower = sigmas[sigmas < sigma * (1 - _SAME)]
    return float(lower.max()) if len(lower) else None
