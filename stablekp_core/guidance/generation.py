"""Generate images in given poses with diffusers' StableDiffusionPipeline, steered after each of its steps."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbone.backbone import Backbone
from ..backbone.checkpoint import DEMO_FOLDER
from ..config import GuideConfig
from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..progress import GENERATING, Progress, silent
from ..randomness import generator_for
from .readers import KeypointGuidance
from .steering import Steering
from .targets import pose_targets
from .words import CaptionWords

_log = logging.getLogger(__name__)
#: Stable Diffusion's noise schedule, for diffusers' schedulers.
SCHEDULE = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
)


@dataclass(frozen=True)
class Generator:
    """A backbone and the pipeline that samples with its UNet and VAE. words: instead of a text encoder, for the small
    model."""

    backbone: Backbone
    pipeline: Any
    words: CaptionWords | None = None


def open_generator(backbone: Backbone, model: str | Path, text: str | Path | None = None) -> Generator:
    """What can generate with an opened `backbone`.

    model: the path or name that the backbone was loaded from. Beside UNet and VAE, generating needs the text encoder
    and the tokenizer: the folders `text_encoder` and `tokenizer` of a diffusers folder, or of the folder `text`, or of
    the one that a single file lies in. The demo model has words of its own. Raises KeypointError naming what is absent.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    path = DEMO_FOLDER if str(model) == "demo" else Path(model).expanduser()
    words = CaptionWords.load(path) if text is None else None
    encoder = tokenizer = None
    if words is None:
        encoder, tokenizer = _load_text(Path(text) if text else path if path.is_dir() else path.parent, backbone)
    pipeline = StableDiffusionPipeline(
        vae=backbone.vae,
        unet=backbone.unet,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, prediction_type=backbone.prediction, **SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return Generator(backbone, pipeline, words)


def _load_text(folder: Path, backbone: Backbone):
    """(text encoder, tokenizer) from the sub-folders of `folder`."""
    from transformers import CLIPTextModel, CLIPTokenizer

    for part in ("text_encoder", "tokenizer"):
        if not (folder / part).is_dir():
            raise KeypointError(
                f"There is no folder {part} in {folder}; generating needs Stable Diffusion's text_encoder and "
                "tokenizer: use a diffusers folder, or give the folder that holds both."
            )
    try:
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise KeypointError(f"The text encoder or tokenizer in {folder} cannot be opened ({error}).") from error
    dtype = next(backbone.unet.parameters()).dtype
    return encoder.to(backbone.device, dtype).requires_grad_(False).eval(), tokenizer


def generate(
    generator: Generator,
    prompt: str,
    pose: Keypoints | None = None,
    guidance: KeypointGuidance | None = None,
    *,
    count: int = 1,
    seed: int = 0,
    same_noise: bool = True,
    negative: str = "",
    steps: int = 30,
    prompt_weight: float = 7.5,
    width: int = 0,
    height: int = 0,
    points: str = "",
    config: GuideConfig | None = None,
    batch_size: int = 4,
    on_progress: Progress | None = None,
) -> list[np.ndarray]:
    """Images uint8 [H, W, 3]: `count` for each row of `pose`, those of one row behind each other.

    With `same_noise`, number i of each row starts from the same noise, and for the small model from the same colours,
    so that rows differ by their pose alone; otherwise every image has its own. Without `pose` (and `guidance`), `count`
    images that nothing steers. prompt_weight: of classifier-free guidance; 1 = none. width, height: pixels; 0 = what
    the model was made for. points: see `targets.choose_points`. on_progress: see progress.py;
    its unit is an image's sampling step. Raises KeypointError for a pose or guidance that does not fit, and when only
    one of them is given.
    """
    backbone, config = generator.backbone, config or GuideConfig()
    if (pose is None) != (guidance is None):
        raise KeypointError("A pose needs guidance and guidance needs a pose; give both, or neither.")
    if count < 1 or steps < 1:
        raise KeypointError(f"count is {count} and steps is {steps}, but both must be at least 1.")
    width, height = width or backbone.input_side(), height or backbone.input_side()
    backbone.input_side(width), backbone.input_side(height)
    targets = None
    if guidance is not None:
        guidance.check_model(backbone.hash, backbone.name)
        targets = pose_targets(pose, guidance, width, height, points)
        if targets.fitted:
            _log.warning("The pose has another aspect ratio than the image: it was scaled to fit inside, and centred.")
    rows = [row for row in range(len(pose) if pose is not None else 1) for _ in range(count)]
    numbers = [i % count if same_noise else i for i in range(len(rows))]
    images, total, report = [], len(rows) * steps, on_progress or silent
    report(GENERATING, 0, total)
    for start in range(0, len(rows), batch_size):
        some = slice(start, start + batch_size)
        steering = Steering(backbone, guidance, targets.of(rows[some]), config) if targets is not None else None
        after_step = _StepEnd(steering, report, start * steps, total, len(rows[some]))
        how = dict(num_inference_steps=steps, width=width, height=height, callback_on_step_end=after_step)
        images += _run(generator, numbers[some], prompt, negative, seed, prompt_weight, how)
    return images


@dataclass
class _StepEnd:
    """What diffusers calls after each sampling step: steers, and tells how far it is."""

    steering: Steering | None
    on_progress: Progress
    done: int
    total: int
    images: int

    def __call__(self, pipeline, index: int, timestep, values: dict) -> dict:
        if self.steering is not None and index + 1 < len(pipeline.scheduler.timesteps):
            values["latents"] = _steered(pipeline.scheduler, self.steering, index + 1, values["latents"])
        self.on_progress(GENERATING, self.done + (index + 1) * self.images, self.total)
        return values


def _run(
    generator: Generator, numbers: list[int], prompt: str, negative: str, seed: int, prompt_weight: float, options: dict
) -> list[np.ndarray]:
    """One pass of the pipeline: images of the given numbers."""
    backbone, words = generator.backbone, generator.words
    dtype = next(backbone.unet.parameters()).dtype
    shape = (4, options["height"] // backbone.factor, options["width"] // backbone.factor)
    noise = torch.stack([torch.randn(shape, generator=generator_for(seed, "generate", i)) for i in numbers])
    if words is None:
        asked: dict[str, Any] = dict(prompt=[prompt] * len(numbers), negative_prompt=[negative] * len(numbers))
    else:
        captions = [words.caption(prompt, generator_for(seed, "caption", i)) for i in numbers]
        asked = dict(prompt_embeds=torch.stack(captions).to(backbone.device, dtype))
        prompt_weight = 1.0  # the small model never saw an empty caption
    with torch.no_grad(), backbone._autocast():
        found = generator.pipeline(
            **asked,
            latents=noise.to(backbone.device, dtype),
            guidance_scale=prompt_weight,
            callback_on_step_end_tensor_inputs=["latents"],
            output_type="np",
            **options,
        )
    return [np.rint(image * 255).astype(np.uint8) for image in found.images]


def _steered(scheduler, steering: Steering, index: int, latents: torch.Tensor) -> torch.Tensor:
    """Latents of any diffusers scheduler, about to enter step `index`, moved towards the pose."""
    timestep = scheduler.timesteps[index]
    # Some schedulers keep latents at another scale than the UNet takes them.
    scale = float(scheduler.scale_model_input(torch.ones(1, device=latents.device), timestep))
    alpha = float(scheduler.alphas_cumprod[round(float(timestep))])
    shift = steering.shift(latents.float() * scale, float(timestep), (1 - alpha) ** 0.5)
    return latents + (shift / scale).to(latents)
