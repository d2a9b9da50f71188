"""Fit keypoint readers at several timesteps to unlabelled images, and measure them on images left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..attention import token_maps
from ..backbone.backbone import Backbone
from ..config import DetectConfig
from ..detection.detector import Detector
from ..errors import KeypointError
from ..images import affine
from ..images.image_set import ImageSet, as_image_set
from ..images.latent_cache import LatentSource
from ..keypoints.tokens import KeypointTokens
from ..progress import DETECTING, FITTING_GUIDANCE, Progress, silent
from ..randomness import generator_for
from ..selection.positions import FeatureStore
from ..selection.refinement import fit_positions, neutral_prompt
from .readers import KeypointGuidance

TIMESTEPS = (0, 100, 200, 300, 400, 500, 600, 700, 800, 900)
NOISE_DRAWS = 2  # noisy latents of each image and timestep
LEFT_OUT = 4  # every fourth image measures the readers fitted to the others
FEATURE_BYTES = 2 << 30  # of one timestep; images beyond are left out
MIN_IMAGES = 8
_AT_ONCE = 8  # images per pass


def fit_guidance(
    backbone: Backbone,
    tokens: KeypointTokens,
    images: Any,
    *,
    timesteps: tuple[int, ...] = TIMESTEPS,
    seed: int = 0,
    detection: DetectConfig | None = None,
    on_progress: Progress | None = None,
) -> KeypointGuidance:
    """Fit readers for `tokens` on images of the kind they were trained on; labels are not needed.

    images: whatever `as_image_set` takes. The targets are the keypoints that `detection` (4 views when not given) finds
    on the images. At each timestep readers are fitted to three quarters of the images and their error is measured on
    the last quarter; then they are fitted to all. on_progress: see progress.py. Raises KeypointError for fewer than
    `MIN_IMAGES` images and for tokens of another width.
    """
    images = as_image_set(images)
    detector = Detector(backbone, tokens, detection or DetectConfig(views=4))
    source = LatentSource(backbone, images, detector.reading.image_size, detector.reading.resize)
    on_progress = on_progress or silent
    latents, position = _clean_images(detector, source, images, on_progress)  # [I, 4, h, w], [I, K, 2]
    total, done = len(latents) * len(timesteps), 0

    def count(some: int = 0) -> None:
        nonlocal done
        done += some
        on_progress(FITTING_GUIDANCE, done, total)

    count()
    left_out = torch.arange(len(latents)) % LEFT_OUT == LEFT_OUT - 1
    guess = (position[left_out] - position[~left_out].mean(0)).norm(dim=-1).mean()
    prompt = neutral_prompt(tokens.embeddings)
    readers, errors = [], []
    for t in timesteps:
        known, unknown = (FeatureStore(affine.identity_affine(1), backbone.device) for _ in range(2))
        for part, store in ((~left_out, known), (left_out, unknown)):
            _add_noisy_features(backbone, latents, part.nonzero()[:, 0], t, prompt, seed, store, count)
        there = position[~left_out].repeat_interleave(NOISE_DRAWS, 0)[:, None]  # [I*n, 1, K, 2]
        first = fit_positions([(known, there)], tick=count)
        found = unknown.locate(first)[1]  # [I'*n, K, 2]
        other = position[left_out].repeat_interleave(NOISE_DRAWS, 0)
        errors.append(float((found - other).norm(dim=-1).mean()))
        fitted = fit_positions([(known, there), (unknown, other[:, None])], start=first, tick=count)
        readers.append(fitted.unflatten(-1, (-1, tokens.width)))  # [K, L, D]
    return KeypointGuidance(
        timesteps=tuple(timesteps),
        readers=torch.stack(readers),
        prompt=prompt,
        errors=tuple(errors),
        guess_error=float(guess),
        tokens_digest=tokens.digest,
        model_hash=backbone.hash,
        model_name=backbone.name,
        names=tokens.names,
        skeleton=tokens.skeleton,
        colors=tokens.colors,
    )


def _clean_images(
    detector: Detector, source: LatentSource, images: ImageSet, on_progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [I, 4, h, w] on the CPU of the images that can be read, and their keypoints [I, K, 2] in the unit square
    of the model input."""
    latents, position, room = [], [], FEATURE_BYTES
    index = {name: i for i, name in enumerate(images.names)}
    on_progress(DETECTING, 0, len(images))
    for name, image in images:
        (found,) = detector.stream([(name, image)])
        xy = detector.model_input(image)[1].to_unit(found.keypoints.xy[0])
        latents.append(source.latents([index[name]]).cpu())
        position.append(torch.from_numpy(np.asarray(xy, np.float32)))
        side = latents[0].shape[-1] // 2  # of the finest captured layer of Stable Diffusion 1.5
        room -= NOISE_DRAWS * 2 * side**2 * len(source.backbone.layers) * source.backbone.width
        on_progress(DETECTING, len(latents), len(images))
        if room < 0:
            break
    if len(latents) < MIN_IMAGES:
        raise KeypointError(
            f"{len(latents)} readable images are too few to fit guidance; give at least {MIN_IMAGES} of the kind that "
            "the tokens were trained on."
        )
    return torch.cat(latents), torch.stack(position)


@torch.no_grad()
def _add_noisy_features(backbone, latents, indices, timestep, prompt, seed, store: FeatureStore, count) -> None:
    """Add the features of noisy latents of some images to `store`, `NOISE_DRAWS` of each, one behind the other."""
    for some in indices.split(max(1, _AT_ONCE // NOISE_DRAWS)):
        clean = latents[some].repeat_interleave(NOISE_DRAWS, 0).to(backbone.device)
        noise = [
            torch.randn(clean.shape[1:], generator=generator_for(seed, "guidance noise", timestep, int(i), draw))
            for i in some
            for draw in range(NOISE_DRAWS)
        ]
        noisy = backbone.add_noise(clean, torch.stack(noise).to(clean), timestep)
        features = token_maps.stacked_features(backbone.features(backbone.queries(noisy, timestep, prompt)))
        for one in features.split(1):  # [1, L*D, G, G]
            store.add(one)
        count(len(some))
