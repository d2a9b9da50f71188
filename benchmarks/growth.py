"""How time and memory of the package grow with tokens, map size, keypoints, batch and number of images."""

from __future__ import annotations

import naive
import numpy as np
from memory import map_memory, product_maps
from models import demo, map_inputs

from stablekp_core.config import TrainConfig
from stablekp_core.images.image_set import ImageSet
from stablekp_core.training.trainer import Trainer


def measure_growth(seconds, device: str, repeats: int) -> dict:
    """Rows of {"x": value, "seconds": product, "naive_seconds": ..., "mb": ..., "naive_mb": ...} per quantity."""
    rows: dict[str, list[dict]] = {"tokens": [], "map_size": [], "keypoints": [], "batch": [], "pictures": []}
    for n in (100, 250, 500, 1000):
        rows["tokens"].append({"x": n, **_stage(seconds, n, 128, 10, device, repeats), **_memory(n, 128, device)})
    for r in (64, 128, 256):
        rows["map_size"].append({"x": r, **_stage(seconds, 250, r, 10, device, repeats), **_memory(250, r, device)})
    for k in (5, 10, 25):
        rows["keypoints"].append({"x": k, **_stage(seconds, 250, 128, k, device, repeats)})
    backbone = demo("fp32", device)
    for b in (1, 2, 4, 8):
        rows["batch"].append({"x": b, "seconds": _step(seconds, backbone, b, 16, device, repeats)})
    for count in (8, 80, 800):
        rows["pictures"].append({"x": count, "seconds": _step(seconds, backbone, 4, count, device, repeats)})
    return rows


def _stage(seconds, tokens: int, size: int, keypoints: int, device: str, repeats: int) -> dict:
    inputs = map_inputs(tokens, keypoints, device=device)
    heads = len(inputs.keys[0])

    def run(maps):
        inputs.reset()
        maps.square().sum().backward()

    slow = seconds(
        lambda: run(naive.maps_from_queries(inputs.queries, inputs.keys, heads, size)[inputs.chosen]), repeats, device
    )
    fast = seconds(lambda: run(product_maps(inputs.queries, inputs, size)), repeats, device)
    return {"seconds": fast, "naive_seconds": slow}


def _memory(tokens: int, size: int, device: str) -> dict:
    numbers = map_memory(tokens, size, device)
    return {"mb": numbers["product_mb"], "naive_mb": numbers["naive_mb"]}


def _step(seconds, backbone, batch: int, count: int, device: str, repeats: int) -> float:
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(count)])
    config = TrainConfig(tokens=200, map_size=64, batch_size=batch)
    return seconds(Trainer(backbone, images, config).run_step, repeats, device)
