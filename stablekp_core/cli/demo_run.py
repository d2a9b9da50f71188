"""The demo: train, detect and draw on the shipped images with the shipped model, and measure what came out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..backbone.backbone import Backbone
from ..backbone.loading import load_backbone
from ..config import DetectConfig, TrainConfig
from ..detection.detector import detect
from ..drawing import overlay, plots, sheets
from ..evaluation.metrics import mean_l2_percent
from ..evaluation.regression import fit_regression
from ..files import write_atomically
from ..images.image_set import ImageSet, load_folder
from ..keypoints.keypoints import Keypoints
from ..training.train import TrainResult, train
from .bars import Bars
from .demo_page import demo_page
from .outputs import save_image

IMAGES = Path(__file__).parents[1] / "assets" / "pictures"
MAIN_CLASS, OTHER_CLASS = "dolls", "faces"
#: For the small model: few wide tokens maps are enough, and its tokens take a larger learning rate. Fewer views
#: under shapes than the preset has keep the demo short.
SETTINGS = dict(
    keypoints=10,
    tokens=200,
    map_size=64,
    sigma=2.0,
    learning_rate=0.05,
    check_share=0.0,  # 64 images are few, and the true joints judge
    selection_images=64,
    occluded_views=2,
    stop="fixed",
)
STEPS = 100
VIEWS = 4
QUICK = 16  # images of each split
DRAWN = 512  # pixels along a side of the images that show one doll


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


@dataclass(frozen=True)
class _Shown:
    """What is drawn of a class: the training, the held-out images, and the keypoints found on them."""

    result: TrainResult
    test: _Images
    found: Keypoints

    def sheet(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]: the first held-out images with their keypoints."""
        images = [image for _, image in self.test.images][:24]
        return self.found.contact_sheet(images, columns=6)


def regression_error(fit: _Images, test: _Images, found_fit: Keypoints, found_test: Keypoints) -> float:
    """Mean L2 in % of the image side on `test` after the paper's bias-free regression fitted on `fit`."""
    model = fit_regression(fit.unit(found_fit.xy), fit.unit(fit.joints))
    return mean_l2_percent(model.predict(test.unit(found_test.xy)), test.unit(test.joints))


def measure_class(
    backbone: Backbone, kind: str, steps: int, seed: int, limit: int | None, untrained: bool
) -> tuple[dict, _Shown]:
    """Train on one class: (numbers, what is drawn). untrained: measure the same tokens before training too."""
    fit, test = _Images(kind, "train", limit), _Images(kind, "test", limit)
    config, how = TrainConfig(seed=seed, steps=steps, **SETTINGS), DetectConfig(views=VIEWS)

    def error_of(tokens, bars: Bars) -> tuple[float, Keypoints]:
        """Error, and the keypoints on the held-out images."""
        found = [detect(backbone, tokens, part.images, how, on_progress=bars).keypoints for part in (fit, test)]
        return regression_error(fit, test, *found), found[1]

    error_untrained = None
    if untrained:
        with Bars(prefix=f"{kind}, untrained tokens: ") as bars:
            before = train(backbone, fit.images, config.replace(steps=0, refine_images=0), on_progress=bars)
            error_untrained, _ = error_of(before.tokens, bars)
    start = time.perf_counter()
    with Bars(prefix=f"{kind}: ") as bars:
        result = train(backbone, fit.images, config, on_progress=bars)
        trained = time.perf_counter()
        error, found = error_of(result.tokens, bars)
    mean = np.broadcast_to(fit.unit(fit.joints).mean(0), test.joints.shape)
    numbers = {
        "class": kind,
        "error_trained": error,
        "error_untrained": error_untrained,
        "error_mean_baseline": mean_l2_percent(mean, test.unit(test.joints)),
        "steps": steps,
        "seed": seed,
        "seconds_train": trained - start,
        "seconds_detect_per_image": (time.perf_counter() - trained) / (len(fit.images) + len(test.images)),
    }
    return numbers, _Shown(result, test, found)


def run(args: argparse.Namespace) -> None:
    """The demo command: writes images, index.html and report.json, prints the numbers and where the files are."""
    started, limit = time.perf_counter(), QUICK if args.quick else None
    backbone, out = load_backbone("demo"), args.output
    out.mkdir(parents=True, exist_ok=True)
    steps = STEPS if args.steps is None else args.steps
    report, shown = measure_class(backbone, MAIN_CLASS, steps, args.seed, limit, args.compare)
    report["other_class"] = None
    if args.compare:
        report["other_class"], other = measure_class(backbone, OTHER_CLASS, steps, args.seed, limit, True)
        save_image(out / f"{OTHER_CLASS}_sheet.jpg", other.sheet())
    write_images(backbone, shown, out)
    shown.result.tokens.save(out / "tokens.safetensors")
    report |= {
        "seconds_total": time.perf_counter() - started,
        "seconds_processor": time.process_time(),
        "peak_rss_mb": peak_rss_mb(),
        "device": backbone.device.type,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    write_atomically(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_atomically(out / "index.html", demo_page(report, out).encode())
    for numbers in filter(None, (report, report["other_class"])):
        print(_in_words(numbers))
    print(f"Look at:\n  {out.resolve() / 'sheet.jpg'}\n  {out.resolve() / 'index.html'}")


def _in_words(numbers: dict) -> str:
    """A line for the terminal."""
    before = numbers["error_untrained"]
    return (
        f"{numbers['class']}: keypoints are found within {numbers['error_trained']:.2f} % of the image side on "
        f"held-out images; always guessing the mean is {numbers['error_mean_baseline']:.2f} %"
        + ("" if before is None else f", the same tokens before training {before:.2f} %")
    )


def write_images(backbone: Backbone, shown: _Shown, out: Path) -> None:
    """sheet.jpg, loss.png, overlay.png, points.png and heatmaps.png of held-out images."""
    found, result = shown.found, shown.result
    save_image(out / "sheet.jpg", shown.sheet())
    if result.losses:
        names = ("loss", "localization", "equivariance")
        save_image(out / "loss.png", plots.loss_plot({n: [r[i] for r in result.losses] for i, n in enumerate(names)}))
    image = shown.test.images[0]
    xy, confidence, size = found.xy[0], found.confidence[0], (DRAWN, DRAWN)
    save_image(out / "overlay.png", overlay.draw_keypoints(image, xy, confidence, size=size))
    save_image(out / "points.png", overlay.draw_keypoints(image, xy, confidence, canvas="black", size=size))
    maps = detect(backbone, result.tokens, [("", image)], DetectConfig(views=VIEWS), keep_maps=True).maps
    save_image(out / "heatmaps.png", sheets.heat_maps(image, maps[0].numpy(), xy=xy))


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, MB; None where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return _peak_working_set_mb()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _peak_working_set_mb() -> float | None:
    """The same on Windows, from psutil, if that is installed."""
    try:
        import psutil
    except ImportError:
        return None
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None if peak is None else peak / (1 << 20)
