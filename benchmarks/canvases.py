"""Images that are not square: how accurate are keypoints when a doll stands on a long canvas?

    python benchmarks/canvases.py --seeds 100 101

Each doll is put at random along a canvas of its own background, 1.5 or 2 times as wide as high or as high as wide, and
learned and read with each way to make the model input; training, error and settings are those of selfcheck.py, with 20
images learned from, 4 left out, 40 steps, and 40 test images. Errors are of the refined read-out, in % of the short
side of the image, so that they compare with those on square images.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks import selfcheck
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import TrainConfig
from stablekp_core.images.image_set import ImageSet
from stablekp_core.images.latent_cache import LatentSource
from stablekp_core.images.preprocessing import input_transform
from stablekp_core.selection.features import FeatureExtractor
from stablekp_core.selection.probe import Probe
from stablekp_core.selection.select import choose_tokens
from stablekp_core.synthetic import generator
from stablekp_core.training.trainer import Trainer

SHORT, STEPS, TRAIN, TEST = 128, 40, 24, 40
#: (width by height, resize, side of the model input; 0 = the model's 128)
WAYS = [
    (1.0, "squash", 0),
    (1.5, "squash", 0),
    (1.5, "pad", 144),
    (2.0, "squash", 0),
    (2.0, "pad", 0),
    (2.0, "pad", 192),
    (2.0, "auto", 0),
    (1 / 1.5, "squash", 0),
    (1 / 1.5, "pad", 144),
    (1 / 2, "squash", 0),
    (1 / 2, "pad", 192),
    (1 / 2, "auto", 0),
]


def canvas(number: int, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image uint8 [H, W, 3] of width W = `ratio` * H and a short side of 128, joints [L, 2] in pixels, visible [L]) of
    doll `number`."""
    doll = generator.render("dolls", number, SHORT, "standard")
    if ratio == 1:
        return doll.image, doll.joints, doll.visible
    rng, long = np.random.default_rng([7, number]), round(SHORT * max(ratio, 1 / ratio))
    base = np.asarray(generator.background(rng, "dolls", long)[0])
    middle, at = slice((long - SHORT) // 2, (long + SHORT) // 2), int(rng.integers(0, long - SHORT + 1))
    image = (base[middle] if ratio > 1 else base[:, middle]).copy()
    left, top = (at, 0) if ratio > 1 else (0, at)
    figure = doll.labels > 0
    image[top : top + SHORT, left : left + SHORT][figure] = doll.image[figure]
    noisy = image + rng.normal(0, rng.uniform(0, 8), image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), doll.joints + (left, top), doll.visible


class Canvases:
    """Canvases number `first` to `first` + `count`; joints in short sides."""

    def __init__(self, first: int, count: int, ratio: float):
        images, joints, visible = zip(*(canvas(first + i, ratio) for i in range(count)), strict=True)
        self.set = ImageSet.from_arrays(images)
        self.joints = torch.tensor(np.stack(joints) / SHORT).double()  # [B, L, 2]
        self.visible = torch.tensor(np.stack(visible))


def run(seed: int, ratio: float, resize: str, side: int) -> tuple[float, float, float]:
    """Error of the refined read-out and of the mean joints in % of the short side; processor seconds of learning and
    choosing."""
    first = 100_000 + 10_000 * seed
    train, test = Canvases(first, TRAIN, ratio), Canvases(first + 5_000, TEST, ratio)
    backbone = load_backbone("demo", "fp32", "cpu")
    config = TrainConfig(seed=seed, steps=STEPS, image_size=side, resize=resize, **selfcheck.SETTINGS)
    start = time.process_time()
    trainer = Trainer(backbone, train.set, config)
    while trainer.step < STEPS:
        trainer.run_step()
    config, tokens = trainer.config, trainer.tokens.detach()
    choice = choose_tokens(backbone, tokens, trainer.source, config, held=trainer.held)
    seconds = time.process_time() - start
    source = LatentSource(backbone, test.set, config.image_size, config.resize)
    probe = Probe.of(FeatureExtractor(backbone, tokens, source, config, 8), range(TEST), True, lambda done: None)
    refined = choice if choice.refined is not None else choice.other
    found = probe.refined(refined.refined.flatten(1), refined.where)
    height, width = test.set[0].shape[:2]
    transform = input_transform(width, height, source.side, config.resize)
    xy = torch.tensor(transform.to_original(found.held.numpy()) / SHORT)  # [B, K, 2]
    found = replace(found, views=xy[:, None], seen=torch.ones(len(xy), 1, xy.shape[1], dtype=torch.bool))
    mean = (test.joints - test.joints.mean(0)).norm(dim=-1)[test.visible].mean()
    return selfcheck.true_error(found, test.joints, test.visible), 100 * float(mean), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101])
    args = parser.parse_args()
    for seed in args.seeds:
        for ratio, resize, side in WAYS:
            error, mean, seconds = run(seed, ratio, resize, side)
            shape = f"{ratio:g} : 1" if ratio >= 1 else f"1 : {1 / ratio:g}"
            way = f"{shape}, {resize} {side or ''}"
            print(f"seed {seed}, {way}: {error:.2f} (mean joints {mean:.2f}), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
