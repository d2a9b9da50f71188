"""The demo: train, detect and draw on the shipped images with the shipped model, and measure what came out."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..backbone.loading import load_backbone
from ..config import DetectConfig, TrainConfig
from ..detection.detector import detect
from ..drawing import overlay, plots, sheets
from ..evaluation.metrics import mean_l2_percent
from ..evaluation.regression import fit_regression
from ..images.image_set import ImageSet, load_folder
from ..keypoints.keypoints import Keypoints
from ..training.train import train
from .commands import save_image, sheet

IMAGES = Path(__file__).parents[1] / "assets" / "pictures"
MAIN_CLASS, OTHER_CLASS = "dolls", "faces"
#: For the small model: few wide tokens maps are enough, and its tokens take a larger learning rate. Fewer looks
#: under shapes than the preset has keep the demo short.
SETTINGS = dict(
    keypoints=10, tokens=200, map_size=64, sigma=2.0, learning_rate=0.05, selection_images=64, occluded_views=2
)
STEPS, OTHER_STEPS = 80, 40
VIEWS = 2


class _Images:
    """The shipped images of one class and split, with their joints in pixels."""

    def __init__(self, kind: str, split: str, limit: int | None):
        folder = IMAGES / kind / split
        self.images: ImageSet = load_folder(folder, limit=limit)
        labels = Keypoints.load(folder / "joints.json")
        rows = {name: row for row, name in enumerate(labels.images)}
        self.joints = np.stack([labels.xy[rows[name]] for name in self.images.names])  # [B, L, 2] pixels
        self.sizes = np.stack([labels.sizes[rows[name]] for name in self.images.names])  # [B, 2]

    def unit(self, xy: np.ndarray) -> np.ndarray:
        """Pixels [B, ., 2] -> the unit square."""
        return xy / self.sizes[:, None]


def regression_error(fit: _Images, test: _Images, found_fit: Keypoints, found_test: Keypoints) -> float:
    """Mean L2 in % of the image side on `test` after the paper's bias-free regression fitted on `fit`."""
    model = fit_regression(fit.unit(found_fit.xy), fit.unit(fit.joints))
    return mean_l2_percent(model.predict(test.unit(found_test.xy)), test.unit(test.joints))


def measure_class(backbone, kind: str, steps: int, seed: int, limit: int | None) -> tuple[dict, dict]:
    """Train on one class. Returns (numbers, what is needed to draw images)."""
    fit, test = _Images(kind, "train", limit), _Images(kind, "test", limit)
    config, how = TrainConfig(seed=seed, steps=steps, **SETTINGS), DetectConfig(views=VIEWS)
    before = train(backbone, fit.images, config.replace(steps=0, refine_images=0))
    untrained = [detect(backbone, before.tokens, part.images, how).keypoints for part in (fit, test)]
    start = time.perf_counter()
    with tqdm(total=steps, unit="step", desc=f"training on {kind}") as bar:
        result = train(backbone, fit.images, config, on_step=lambda info: bar.update())
    seconds_train = time.perf_counter() - start
    start = time.perf_counter()
    found = [detect(backbone, result.tokens, part.images, how).keypoints for part in (fit, test)]
    seconds = (time.perf_counter() - start) / (len(fit.images) + len(test.images))
    mean = np.broadcast_to(fit.unit(fit.joints).mean(0), test.joints.shape)
    numbers = {
        "class": kind,
        "error_trained": regression_error(fit, test, *found),
        "error_untrained": regression_error(fit, test, *untrained),
        "error_mean_baseline": mean_l2_percent(mean, test.unit(test.joints)),
        "steps": steps,
        "seed": seed,
        "seconds_train": seconds_train,
        "seconds_detect_per_image": seconds,
    }
    return numbers, {"result": result, "test": test, "found": found[1]}


def run(args: argparse.Namespace) -> None:
    """The demo command: writes images and report.json, prints the numbers and where the images are."""
    started, limit = time.perf_counter(), 16 if args.quick else None
    backbone, out = load_backbone("demo"), args.output
    out.mkdir(parents=True, exist_ok=True)
    steps = args.steps if args.steps is not None else STEPS
    report, shown = measure_class(backbone, MAIN_CLASS, steps, args.seed, limit)
    other, shown_other = measure_class(
        backbone, OTHER_CLASS, steps if args.steps is not None else OTHER_STEPS, args.seed, limit
    )
    report["other_class"] = other
    write_images(backbone, shown, out)
    save_image(out / f"{OTHER_CLASS}_sheet.jpg", _sheet(shown_other))
    shown["result"].tokens.save(out / "tokens.safetensors")
    report |= {
        "seconds_total": time.perf_counter() - started,
        "peak_rss_mb": peak_rss_mb(),
        "device": backbone.device.type,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{MAIN_CLASS}: error {report['error_trained']:.2f} % of the image side; the same tokens before training "
        f"{report['error_untrained']:.2f} %, always guessing the mean {report['error_mean_baseline']:.2f} %"
    )
    print(
        f"{OTHER_CLASS}: {other['error_trained']:.2f} %, {other['error_untrained']:.2f} %, "
        f"{other['error_mean_baseline']:.2f} %"
    )
    print(f"The images and report.json are in {out.resolve()}")


def _sheet(shown: dict):
    found = shown["found"]
    images = [image for _, image in shown["test"].images][:24]
    return sheet(images, found.rows(range(len(images))), columns=6)


def write_images(backbone, shown: dict, out: Path) -> None:
    """sheet.jpg, loss.png, overlay.png, points.png and heatmaps.png of held-out images."""
    found, result, images = shown["found"], shown["result"], shown["test"].images
    save_image(out / "sheet.jpg", _sheet(shown))
    names = ("loss", "localization", "equivariance")
    save_image(out / "loss.png", plots.loss_plot({n: [r[i] for r in result.losses] for i, n in enumerate(names)}))
    image = images[0]
    xy, confidence, size = found.xy[0], found.confidence[0], (512, 512)
    save_image(out / "overlay.png", overlay.draw_keypoints(image, xy, confidence, size=size))
    save_image(out / "points.png", overlay.draw_keypoints(image, xy, confidence, canvas="black", size=size))
    maps = detect(backbone, result.tokens, [("", image)], DetectConfig(views=VIEWS), keep_maps=True).maps
    save_image(out / "heatmaps.png", sheets.heat_maps(image, maps[0].numpy(), xy=xy))


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
