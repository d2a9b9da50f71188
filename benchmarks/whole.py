"""A whole run at Stable Diffusion 1.5's shape with random weights: seconds of every stage, and the memory it takes.

    python benchmarks/whole.py --device cuda --dtype bf16              # the default preset, 250 images
    python benchmarks/whole.py --device cuda --dtype bf16 --card 6     # no more memory than a card of 6 GiB has

Some steps of learning, then what follows it (looking at the training images, fitting the tokens to them) as `train`
does it, then detection. How long that takes does not depend on what the weights have learned; what is found does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from models import demo, random_sd15

from stablekp_core.backbone.memory_layout import arrange
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import detect
from stablekp_core.images.image_set import ImageSet
from stablekp_core.progress import CHOOSING, EXTRACTING, REFINING
from stablekp_core.selection.select import choose_tokens
from stablekp_core.synthetic import generator
from stablekp_core.training.trainer import Trainer


def measure(backbone, config: TrainConfig, images: int, steps: int, detected: int = 4) -> dict:
    """Seconds of a step (median, without the first), of looking at images, of the fits after it, and of detection per
    image; what had to be made smaller for want of memory; on CUDA the most memory held, GiB."""
    rendered = ImageSet.from_arrays([generator.render("faces", i, 128, "wild").image for i in range(images)])
    device, made_smaller = backbone.device.type, []

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    trainer, times = Trainer(backbone, rendered, config, notice=made_smaller.append), []
    for _ in range(steps):
        start = now()
        trainer.run_step()
        times.append(now() - start)
    trainer.check_finite()
    start, ended = now(), {}
    choice = choose_tokens(
        backbone,
        trainer.tokens.detach(),
        trainer.source,
        config,
        2 * trainer.micro_batch,
        lambda phase, done, total: ended.update({phase: now()}),
    )
    chosen = now()
    detect(backbone, trainer.result(choice), list(rendered)[:detected], DetectConfig())
    end = now()
    return {
        "pictures": images,
        "first_step_s": times[0],
        "step_s": statistics.median(times[1:] or times),
        "look_s": ended[EXTRACTING] - start,
        "fit_s": chosen - ended[EXTRACTING],
        "choosing_s": ended[CHOOSING] - ended[EXTRACTING],
        "refining_s": ended[REFINING] - ended[CHOOSING],
        "detect_s": (end - chosen) / detected,
        "made_smaller": made_smaller,
        "held_gib": torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "demo"), default="sd15")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--card", type=float, help="GiB of GPU memory that may be taken (all)")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--steps", type=int, default=12, help="of learning, of which the first does not count")
    args = parser.parse_args()
    if args.card is not None:
        if args.device != "cuda":
            parser.error("--card limits the memory of a GPU; it needs --device cuda.")
        has = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, args.card / has))
    backbone = {"sd15": random_sd15, "demo": demo}[args.model](args.dtype, args.device)
    if args.model == "sd15":
        arrange(backbone.unet, backbone.vae, backbone.device, backbone.dtype)
    print(json.dumps(measure(backbone, TrainConfig(), args.images, args.steps), indent=1))


if __name__ == "__main__":
    main()
