"""Measure the detection engine: speed-up from 1 to 2 workers, its cost against a bare loop, memory, stages.

    python benchmarks/scale.py             # everything, on a quiet machine with 2 cores; fills docs/
    python benchmarks/scale.py --short     # does it run? small numbers, into build/scale.json

One thread per worker, and one for the bare loop, so that cores are compared with cores. The tokens are random:
what they are does not change the work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import scale_tables
import torch
from PIL import Image

from stablekp_core.attention import token_maps
from stablekp_core.backbone.backbone import Backbone
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector
from stablekp_core.images import affine
from stablekp_core.images.files import load_image
from stablekp_core.images.image_set import load_folder
from stablekp_core.images.preprocessing import to_model_input
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.scale.cluster import Pool, cluster
from stablekp_core.scale.dataset import Report, detect_dataset
from stablekp_core.scale.engine import find_rows, rss_mb
from stablekp_core.scale.parts import part_bytes
from stablekp_core.synthetic import generator

# The demo's settings: small maps and 200 tokens are what the small model is used with.
TRAINING = TrainConfig(keypoints=10, tokens=200, map_size=64)
LOOK = DetectConfig(views=0)  # one view: the least work per image, where an engine's cost shows most
MORE = DetectConfig(views=4)


def random_tokens(backbone: Backbone, training: TrainConfig) -> KeypointTokens:
    embeddings = torch.randn(training.tokens, backbone.width, generator=torch.Generator().manual_seed(0))
    return KeypointTokens(embeddings, tuple(range(training.keypoints)), config=training.to_dict())


def make_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for seed in range(count):
        Image.fromarray(generator.render("dolls", seed).image).save(folder / f"{seed:06d}.png")


def synthetic_photo(path: Path) -> None:
    """A JPEG of 1000 x 1000 pixels, the size of Human3.6M's frames."""
    Image.fromarray(generator.render("dolls", 0, 1000).image).save(path, quality=90)


def make_list(path: Path, folder: Path, rows: int) -> None:
    """A Parquet file of `rows` paths that goes through the images of a folder again and again."""
    import pyarrow as pa
    from pyarrow import parquet

    names = sorted(p.name for p in folder.iterdir())
    paths = [f"{folder}/{names[i % len(names)]}" for i in range(rows)]
    parquet.write_table(pa.table({"path": paths, "id": [str(i) for i in range(rows)]}), path)


def bare_loop(tokens: KeypointTokens, folder: Path, look: DetectConfig, limit: int | None = None) -> float:
    """Images per second of the detector alone, in this process, after a warm-up."""
    detector = Detector(load_backbone("demo", device="cpu"), tokens, look)
    for _ in detector.stream(load_folder(folder, limit=8)):
        pass
    images = load_folder(folder, limit=limit)
    start = time.perf_counter()
    count = sum(1 for _ in detector.stream(images))
    return count / (time.perf_counter() - start)


class Memory:
    """Resident memory of each worker against the images it has seen."""

    def __init__(self):
        self.seen: dict[str, list[tuple[int, float]]] = {}

    def __call__(self, report: Report, done, total: int) -> None:
        before = self.seen.setdefault(done.worker, [])
        before.append(((before[-1][0] if before else 0) + done.rows, done.rss_mb))

    def growth(self) -> float:
        """MB per 10 000 images of one worker: the steepest least-squares line, without the first tenth."""
        slopes = []
        for points in self.seen.values():
            points = points[len(points) // 10 :]
            if len(points) > 2:
                rows, megabytes = np.array(points, float).T
                slopes.append(np.polyfit(rows, megabytes, 1)[0] * 10_000)
        return float(max(slopes)) if slopes else float("nan")


def engine(
    source: str,
    output: Path,
    tokens: KeypointTokens,
    look: DetectConfig,
    workers: int,
    part_rows: int,
    id_column: str | None = None,
) -> tuple[Report, Memory, float]:
    """(report, memory, seconds with start-up) of one run of the engine."""
    memory, start = Memory(), time.perf_counter()
    report = detect_dataset(
        source,
        str(output),
        tokens,
        look,
        device="cpu",
        pool=Pool(workers),
        part_rows=part_rows,
        id_column=id_column,
        on_part=memory,
    )
    assert not report.failed and not report.errors, report.failed
    return report, memory, time.perf_counter() - start


def stage_seconds(tokens: KeypointTokens, folder: Path, count: int) -> dict[str, float]:
    """Milliseconds per image and, where it says so, per view, of each stage on one thread."""
    backbone = load_backbone("demo", device="cpu")
    detector, files = Detector(backbone, tokens, LOOK), sorted(folder.iterdir())[:count]
    noise = torch.randn(1, 4, detector.side // backbone.factor, detector.side // backbone.factor)
    spent = dict.fromkeys(scale_tables.STAGES, 0.0)

    def timed(stage, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        spent[stage] += time.perf_counter() - start
        return result

    with torch.no_grad():
        for file in files:
            image = timed("decode", load_image, file)
            square, _ = timed("resize", detector.model_input, image)
            warped = affine.warp(square[None], detector.theta[:1])
            latents = timed("vae_per_view", backbone.encode, warped)
            noisy = backbone.add_noise(latents, noise, 0)
            found = timed("unet_per_view", backbone.queries, noisy, 0, detector.embeddings)
            timed(
                "maps_per_view",
                lambda q: token_maps.token_maps(
                    backbone.logits(q, detector.embeddings), TRAINING.map_size, detector.chosen
                ),
                found,
            )
    photo = folder.parent / "photo.jpg"
    synthetic_photo(photo)
    for _ in files:
        large = timed("decode_1000px_jpeg", load_image, photo)
        timed("resize_1000px_to_512", to_model_input, large, 512)
    rows = find_rows(detector, [(f.name, load_image(f)) for f in files])
    timed("write", part_bytes, rows, tokens, tokens.digest[:16])
    return {stage: 1000 * seconds / len(files) for stage, seconds in spent.items()}


def flops_per_view(backbone: Backbone, training: TrainConfig) -> dict[str, float]:
    """Floating-point operations of one view by stage, counted on shapes."""
    from torch.utils.flop_counter import FlopCounterMode

    side, out = backbone.input_side(training.image_size), {}
    tokens = torch.randn(training.tokens, backbone.width, device=backbone.device)
    latent = torch.randn(1, 4, side // backbone.factor, side // backbone.factor, device=backbone.device)
    image = torch.rand(1, 3, side, side, device=backbone.device)
    with torch.no_grad():
        for stage, function in (
            ("vae", lambda: backbone.vae.encode(image)),
            ("unet", lambda: backbone.queries(latent, 0, tokens)),
        ):
            with FlopCounterMode(display=False) as counter:
                function()
            out[stage] = float(counter.get_total_flops())
        shapes = [q.shape for q in backbone.queries(latent, 0, tokens)]
    maps = 0.0
    for _, heads, cells, width in shapes:  # queries [1, heads, s*s, d]
        small, big, n = round(cells**0.5), training.map_size, training.tokens
        maps += 2 * heads * cells * width * n  # queries times keys
        maps += 2 * heads * n * (big * small * small + big * big * small)  # the two products that upsample
        maps += 5 * heads * n * big * big  # softmax and mean over heads
    return {**out, "maps": maps}


def flops_of_stable_diffusion_15() -> dict[str, float]:
    """Without its weights: fake tensors have shapes only."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return flops_per_view(stable_diffusion_15(), TrainConfig(map_size=128, tokens=500))


def stable_diffusion_15() -> Backbone:
    """A model of its shape; under a FakeTensorMode it has no weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    return Backbone(unet, vae, "Stable Diffusion 1.5")


def machine() -> dict[str, object]:
    import ray

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def measure(args: argparse.Namespace, work: Path) -> dict[str, object]:
    images, long, part = (48, 96, 8) if args.short else (5000, 20_000, 100)
    torch.set_num_threads(1)
    tokens, about = random_tokens(load_backbone("demo", device="cpu"), TRAINING), machine()
    make_images(work / "dolls", images)
    make_list(work / "long.parquet", work / "dolls", long)
    say("stages")
    stages = stage_seconds(tokens, work / "dolls", 16 if args.short else 200)
    say("bare loop, before")
    bare = [bare_loop(tokens, work / "dolls", LOOK, images // 2)]
    one, _, one_seconds = run(engine, str(work / "dolls"), work / "one", tokens, LOOK, 1, part)
    two, _, two_seconds = run(engine, str(work / "dolls"), work / "two", tokens, LOOK, 2, part)
    say("bare loop, after")
    bare.append(bare_loop(tokens, work / "dolls", LOOK, images // 2))
    more = bare_loop(tokens, work / "dolls", MORE, max(8, images // 10))
    _, memory, _ = run(engine, str(work / "long.parquet"), work / "long", tokens, LOOK, 2, part, "id")
    views, per_second = LOOK.views + LOOK.identity, float(np.mean(bare))
    fixed = (stages["decode"] + stages["resize"] + stages["write"]) / 1000
    predicted = 1 / (fixed + (MORE.views + MORE.identity) * (1 / per_second - fixed) / views)
    size = sum(f.stat().st_size for f in (work / "two").glob("*.parquet"))
    return {
        "workers_2_speedup": two.rows_per_second / one.rows_per_second,
        "engine_overhead": 1 - one.rows_per_second / per_second,
        "rss_growth_mb_per_10k_images": memory.growth(),
        "images": images,
        "images_memory": long,
        "views": views,
        "threads_per_worker": 1,
        "bare_rows_per_second": bare,
        "one_worker": one.to_dict(),
        "two_workers": two.to_dict(),
        "start_up_seconds": {"one": one_seconds - one.seconds, "two": two_seconds - two.seconds},
        "memory_mb": dict(memory.seen),
        "milliseconds": stages,
        "bytes_per_row": size / two.rows,
        "bytes_per_image": float(np.mean([f.stat().st_size for f in (work / "dolls").iterdir()])),
        "cost_model": {
            "views": MORE.views + MORE.identity,
            "predicted_rows_per_second": predicted,
            "measured_rows_per_second": more,
            "error": predicted / more - 1,
        },
        "flops_per_view": {
            "demo": flops_per_view(load_backbone("demo", device="cpu"), TRAINING),
            "Stable Diffusion 1.5, 512 px": flops_of_stable_diffusion_15(),
        },
        "machine": about,
        "rss_mb_of_this_process": rss_mb(),
    }


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run(function, *arguments):
    say(f"engine, {arguments[4]} worker(s), {Path(arguments[0]).name}")
    with cluster(Pool(arguments[4])):
        return function(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="small numbers, to see that it runs")
    parser.add_argument("--output", type=Path, help="JSON (docs/results/scale.json; build/scale.json with --short)")
    parser.add_argument("--work", type=Path, help="folder for images and parts (a temporary one)")
    args = parser.parse_args()
    output = args.output or ROOT / ("build/scale.json" if args.short else "docs/results/scale.json")
    work = Path(tempfile.mkdtemp(dir=args.work))
    try:
        result = measure(args, work)
    finally:
        shutil.rmtree(work)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    if not args.short:
        scale_tables.fill(ROOT / "docs" / "scale.md", result)
    for name in ("workers_2_speedup", "engine_overhead", "rss_growth_mb_per_10k_images"):
        print(f"{name}: {result[name]:.3f}")
    print(output)


if __name__ == "__main__":
    main()
