"""How much faster the package is than a naive implementation of the same method, side by side in one process.

    python benchmarks/speed.py --short                # the demo model and the map stage, a few minutes
    python benchmarks/speed.py                        # Stable Diffusion 1.5's shape too; writes docs/results/speed.json
    python benchmarks/speed.py --growth               # how time and memory grow with N, R, K, batch and images
    python benchmarks/speed.py --plots                # docs/images/ from docs/results/speed.json, nothing is measured

Both sides use the same weights, tokens, images, views, dtype and threads, and give the same numbers
(tests/test_benchmarks.py). Times are the smallest of a few repeats after a warm-up. The naive side
runs diffusers' modules as they are made, the package as `load_backbone` arranges them (stablekp_core/arrangement.py).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import naive
import torch
from growth import measure_growth
from memory import map_memory, product_maps, step_memory
from models import ROOT, demo, map_inputs, random_sd15
from roofline import step_floor

from stablekp_core.backbone.memory_layout import arrange
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector
from stablekp_core.images import affine
from stablekp_core.images.image_set import ImageSet
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.randomness import generator_for
from stablekp_core.training.trainer import Trainer

RESULTS = ROOT / "docs" / "results"
#: row -> changes of the training configuration
MODES = {
    "exact": {},
    "exact, view pool": dict(view_pool=1),
    "cached, view pool": dict(gradient="cached", view_pool=1),
}


def seconds(function, repeats: int, device: str) -> float:
    """Smallest wall time of `repeats` calls after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def map_stage(tokens: int, size: int, repeats: int, device: str) -> dict:
    """Forward and backward for one image at Stable Diffusion 1.5's layers, K=10: from queries, as the package gets
    them from the UNet, and from the features before the query projection, where the naive formulation begins."""
    inputs = map_inputs(tokens, device=device)
    heads = len(inputs.keys[0])

    def run(maps):
        inputs.reset()
        maps.square().sum().backward()

    def projected():
        return [torch.nn.functional.linear(x, w) for x, w in zip(inputs.features, inputs.to_q, strict=True)]

    chosen = inputs.chosen
    times = {
        "naive_queries": lambda: run(naive.maps_from_queries(inputs.queries, inputs.keys, heads, size)[chosen]),
        "product_queries": lambda: run(product_maps(inputs.queries, inputs, size)),
        "naive_features": lambda: run(
            naive.maps_from_features(inputs.features, inputs.to_q, inputs.keys, heads, size)[chosen]
        ),
        "product_features": lambda: run(product_maps(projected(), inputs, size)),
    }
    found = {name: seconds(function, repeats, device) for name, function in times.items()}
    return {
        "tokens": tokens,
        "map_size": size,
        **{f"{k}_s": v for k, v in found.items()},
        "speedup": found["naive_queries"] / found["product_queries"],
        "speedup_from_features": found["naive_features"] / found["product_features"],
    }


class Case:
    """A backbone, settings and random images for the whole-step and detection comparisons."""

    def __init__(self, backbone, side: int, tokens: int, size: int, batch: int):
        self.backbone, self.side = backbone, side
        self.config = TrainConfig.preset("reference", tokens=tokens, map_size=size, batch_size=batch, image_size=side)
        g = generator_for(0, "speed benchmark")
        self.images = torch.rand(batch, 3, side, side, generator=g)
        self.theta = affine.random_affine(batch, 15, (0.8, 1), 0.25, g)
        cells = side // backbone.factor
        self.noise = torch.randn(2 * batch, 4, cells, cells, generator=g).to(backbone.device)
        self.tokens = torch.randn(tokens, backbone.width, generator=g).to(backbone.device)

    def naive_step(self):
        leaf = self.tokens.clone().requires_grad_()
        adam = torch.optim.Adam([leaf], lr=1e-3)

        def step():
            adam.zero_grad()
            naive.training_step(self.backbone, self.config, leaf, self.images, self.theta, self.noise)
            adam.step()

        return step

    def product_step(self, changes: dict):
        arrays = [(p.permute(1, 2, 0) * 255).byte().numpy() for p in self.images]
        return Trainer(self.backbone, ImageSet.from_arrays(arrays), self.config.replace(**changes)).run_step

    def naive_detect(self, views: int):
        theta = self.detector(views).theta
        noise = self.noise[:1].expand(views, -1, -1, -1)
        return lambda: naive.detect(
            self.backbone, self.tokens, list(range(10)), self.images[:1], theta, noise, 0, self.config.map_size
        )

    def detector(self, views: int) -> Detector:
        chosen = KeypointTokens(
            self.tokens.cpu(),
            tuple(range(10)),
            (1,) * 10,
            self.config.to_dict(),
            self.backbone.name,
            self.backbone.hash,
        )
        return Detector(self.backbone, chosen, DetectConfig(views=views, identity=False, batch_size=10))

    def measure(self, repeats: int, views: int = 10) -> dict:
        """Seconds per training step and per detected image, and the ratios."""
        device = self.backbone.device.type
        slow = seconds(self.naive_step(), repeats, device)
        slow_detect = seconds(self.naive_detect(views), repeats, device)
        arrange(self.backbone.unet, self.backbone.vae, self.backbone.device, self.backbone.dtype)
        fast = {name: seconds(self.product_step(how), repeats, device) for name, how in MODES.items()}
        detector = self.detector(views)
        fast_detect = seconds(lambda: detector.maps(self.images[:1]), repeats, device)
        return {
            "model": self.backbone.name,
            "side": self.side,
            "tokens": self.config.tokens,
            "map_size": self.config.map_size,
            "batch": self.config.batch_size,
            "views": views,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "naive_step_s": slow,
            "steps": {name: {"seconds": t, "speedup": slow / t} for name, t in fast.items()},
            "naive_detect_s": slow_detect,
            "detect_s": fast_detect,
            "detect_speedup": slow_detect / fast_detect,
        }


def environment(device: str) -> dict:
    import diffusers

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def show(title: str, numbers: dict) -> None:
    """Print one block of numbers as an aligned table."""
    print(f"\n{title}")
    for key, value in numbers.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:.3g}" for k, v in value.items())
        print(f"  {key:24s} {value:.4g}" if isinstance(value, float) else f"  {key:24s} {value}", flush=True)


def show_case(title: str, case: dict) -> None:
    show(title, {k: v for k, v in case.items() if k != "steps"})
    show(f"{title}: training steps", case["steps"])


def short(args) -> None:
    """The table of `make bench`."""
    show("environment", environment(args.device))
    show("map stage, SD 1.5 layers, forward and backward", map_stage(500, 128, 1, args.device))
    show("map stage, memory", map_memory(500, 128, args.device))
    show_case("demo model", Case(demo("fp32", args.device), 128, 200, 64, 4).measure(1))


def full(args) -> dict:
    """Everything of docs/results/speed.json except growth."""
    stage, held = map_stage(500, 128, args.repeats, args.device), map_memory(500, 128, args.device)
    show("map stage", stage)
    show("map stage, memory", held)
    small = Case(demo("fp32", args.device), 128, 200, 64, 4).measure(args.repeats)
    show_case("demo model", small)
    backbone = random_sd15(args.dtype, args.device)
    big = Case(backbone, args.side, args.sd_tokens, 128, args.batch).measure(args.repeats)
    show_case("Stable Diffusion 1.5", big)
    floor = step_floor(backbone, args.side)
    show("roofline", floor)
    backbone.recompute = True
    peak = step_memory(backbone, TrainConfig(tokens=500, map_size=128, batch_size=4, micro_batch=1), 512)
    show("memory of SD 1.5 training beyond the weights", peak)
    exact = big["steps"]["exact"]["speedup"]
    return {
        "environment": environment(args.device),
        "map_stage": {**stage, "memory_ratio": held["ratio"], "memory": held},
        "train_step_exact": {"cpu" if args.device == "cpu" else "gpu": exact},
        "train_step_default": {"speedup": exact, "mode": "exact"},
        "detect": {"speedup": big["detect_speedup"]},
        "train_memory_gb": peak["peak_gb"],
        "train_memory": peak,
        "sd15": big,
        "demo": small,
        "roofline": floor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--growth", action="store_true", help="measure growth and add it to the results")
    parser.add_argument("--plots", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the SD 1.5 shape, both sides")
    parser.add_argument("--side", type=int, default=256, help="pixels, SD 1.5 shape")
    parser.add_argument("--sd-tokens", type=int, default=100, help="N, SD 1.5 shape")
    parser.add_argument("--batch", type=int, default=2, help="SD 1.5 shape")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, help="docs/results/speed.json, on a GPU speed_gpu.json")
    args = parser.parse_args()
    args.out = args.out or RESULTS / ("speed.json" if args.device == "cpu" else "speed_gpu.json")
    if args.short:
        return short(args)
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.growth:
        known["growth"] = measure_growth(seconds, args.device, args.repeats)
    elif not args.plots:
        known = {**known, **full(args)}
    if not args.plots:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(known, indent=1) + "\n")
    if args.device == "cuda":
        return
    from plots import draw

    draw(known, ROOT / "docs" / "images")


if __name__ == "__main__":
    main()
