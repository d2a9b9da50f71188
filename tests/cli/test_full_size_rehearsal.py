"""The whole way at Stable Diffusion 1.5's full size, 512 px, half precision, with random weights: every stage works,
tells how far it is, and stays within its memory. What is found means nothing.

    python tests/cli/test_full_size_rehearsal.py bf16 cpu

writes such a checkpoint into a temporary folder, goes the whole way with it, and prints what each stage took.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES, SIDE, STEPS, VIEWS = 4, 512, 2, 1
SETTINGS = dict(
    image_size=SIDE, keypoints=5, tokens=50, steps=STEPS, batch_size=1, selection_views=VIEWS, occluded_views=VIEWS
)
CORE = ("training", "extracting features", "choosing keypoints", "refining keypoints", "learning occlusion")
STAGES = ("opening the model", *CORE, "checking the result", "saving and loading", "detecting", "drawing")
NODES = ("node Load Keypoint Backbone", "node Train Keypoint Tokens", "node Detect Keypoints", "node Draw Keypoints")
MOST_GB = 6.0  # of main memory, or of the GPU's; the weights are 1.9 GB


class Stages:
    """Processor seconds and the most memory of every stage, and what was told of its progress. A progress callback."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peak_gb: dict[str, float] = {}
        self.reports: dict[str, list[tuple[int, int]]] = {}
        self._name, self._began = None, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._name:
            self.begin(phase)
        self.reports.setdefault(phase, []).append((done, total))

    def begin(self, name: str | None) -> None:
        now = time.process_time()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
            self.peak_gb[self._name] = max(self.peak_gb.get(self._name, 0.0), peak_gb(self.device))
        self._name, self._began = name, now
        forget_peak(self.device)

    @contextmanager
    def stage(self, name: str):
        self.begin(name)
        yield
        self.begin(None)


def peak_gb(device: str) -> float:
    """The most memory held on a GPU, or resident memory of this process, on Linux since `forget_peak`."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_reserved() / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    from stablekp_core.cli.demo_run import peak_rss_mb

    return (peak_rss_mb() or 0.0) * 2**20 / 1e9


def forget_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def same(a, b) -> bool:
    """Whether two values, tokens for example, are the same bit for bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return a == b


def whole_way(model: Path, dtype: str, device: str, folder: Path) -> dict:
    """Train, check, choose, refine, save, load, detect, draw; then the same by the nodes. What came of it."""
    from stablekp_core.backbone.loading import load_backbone
    from stablekp_core.config import DetectConfig, TrainConfig
    from stablekp_core.detection.detector import detect
    from stablekp_core.keypoints.tokens import KeypointTokens
    from stablekp_core.synthetic.generator import render
    from stablekp_core.training.train import train

    images = [render("dolls", seed, SIDE).image for seed in range(IMAGES)]
    stages, look = Stages(device), DetectConfig(views=VIEWS)
    with stages.stage("opening the model"):
        backbone = load_backbone(str(model), dtype, device)
    tokens = train(backbone, images, TrainConfig(**SETTINGS), on_progress=stages).tokens
    with stages.stage("saving and loading"):
        loaded = KeypointTokens.load(tokens.save(folder / "tokens.safetensors"))
    before = detect(backbone, tokens, images[:2], look, on_progress=stages).keypoints
    with stages.stage("drawing"):
        drawn = before.draw(images[0])
    after = detect(backbone, loaded, images[:2], look).keypoints
    del backbone
    gc.collect()  # its modules refer to each other
    return {
        "losses": tokens.losses,
        "input_side": loaded.reading.image_size,
        "verdict": tokens.check.verdict,
        "refined": tokens.read("refined").refined is not None,
        "occlusion": tokens.read("refined").occlusion is not None,
        "reloads": same(tokens, loaded),
        "detects_the_same": bool((before.xy == after.xy).all() and (before.confidence == after.confidence).all()),
        "points": before.xy.tolist(),
        "drawn": [*drawn.shape, int((drawn != images[0]).any(-1).sum())],
        "nodes": by_nodes(model, dtype, device, folder, images, stages),
        "seconds": stages.seconds,
        "peak_gb": stages.peak_gb,
        "reports": stages.reports,
    }


def by_nodes(model: Path, dtype: str, device: str, folder: Path, images: list, stages: Stages) -> dict:
    """The same by the nodes, as ComfyUI would run them."""
    import fake_comfy
    import torch
    from node_data import part

    fake_comfy.install(folder)
    management = sys.modules["comfy.model_management"]
    management.get_torch_device = lambda: torch.device(device)
    management.load_models_gpu = lambda patchers, **how: [p.model.to(p.load_device) for p in patchers]
    os.link(model, folder / "models" / "checkpoints" / "full.safetensors")
    batch = torch.from_numpy(np.stack(images)).float() / 255  # [I, S, S, 3]
    load, train, find, draw = (
        getattr(part(file), node)
        for file, node in (
            ("load_keypoint_backbone", "LoadKeypointBackbone"),
            ("train_keypoint_tokens", "TrainKeypointTokens"),
            ("detect_keypoints", "DetectKeypoints"),
            ("draw_keypoints", "DrawKeypoints"),
        )
    )
    bars = {}

    def run(name: str, node, *inputs, **widgets):
        fake_comfy.ProgressBar.calls.clear()
        with stages.stage(name):
            out = node.execute(*inputs, **{key: [value] for key, value in widgets.items()})
        bars[name] = [value for value, *_ in fake_comfy.ProgressBar.calls]
        return out

    handle = run(NODES[0], load, "full.safetensors", dtype)[0]
    tokens, _, sheet = run(NODES[1], train, [handle], [batch], **SETTINGS).args
    points, heat, _ = run(
        NODES[2], find, [handle], [tokens], [batch], views=VIEWS, batch_size=2, sub_pixel=True, heat_maps="as computed"
    ).args
    defaults = {i.id: i.options["default"] for i in draw.define_schema().inputs if "default" in i.options}
    drawn = run(NODES[3], draw, [points], [batch], **defaults, style="points")[0]
    texts = [text for _, text in fake_comfy.page().texts]
    return {
        "points": points.xy.tolist(),
        "sheet": list(sheet.shape),
        "heat": [list(maps.shape) for maps in heat],
        "drawn": [list(image.shape) for image in drawn],
        "bars": bars,
        "texts": texts,
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("full"))


def write(folder: Path) -> Path:
    import torch
    from sd15_writer import FULL_UNET, FULL_VAE, write_checkpoint

    return write_checkpoint(folder / "random.safetensors", FULL_UNET, FULL_VAE, dtype=torch.float16)


def inside(points: list, images: int) -> bool:
    xy = np.array(points)
    return xy.shape == (images, SETTINGS["keypoints"], 2) and bool(((xy >= 0) & (xy <= SIDE)).all())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_whole_way_at_full_size(checkpoint, tmp_path, dtype):
    """In a process of its own, whose memory is this run's alone."""
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if (dtype, device) == ("fp16", "cpu"):
        pytest.skip("CPUs compute fp16 many times slower than bf16; this needs a GPU")
    command = [sys.executable, __file__, dtype, device, str(checkpoint), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found["losses"]) == STEPS and np.isfinite(found["losses"]).all() and found["input_side"] == SIDE
    assert found["verdict"] in ("good", "usable", "poor") and found["refined"] and found["occlusion"]
    assert found["reloads"] and found["detects_the_same"] and inside(found["points"], 2)
    assert found["drawn"][:3] == [SIDE, SIDE, 3] and found["drawn"][3] > 100
    for phase in (*CORE, "checking the result", "detecting"):
        finished, totals = zip(*found["reports"][phase], strict=True)
        assert list(finished) == sorted(finished) and finished[0] == 0, phase
        assert set(totals) == {finished[-1]} and finished[-1] > 1, phase
    nodes = found["nodes"]
    assert inside(nodes["points"], IMAGES) and nodes["drawn"] == [[IMAGES, SIDE, SIDE, 3]] and len(nodes["sheet"]) == 4
    assert [shape[0] for shape in nodes["heat"]] == [IMAGES * SETTINGS["keypoints"]]
    for name, last in ((NODES[1], 100), (NODES[2], IMAGES)):
        values = nodes["bars"][name]
        assert values == sorted(values) and values[-1] == last, name
    assert any(text.startswith(f"step {STEPS} of {STEPS}, loss ") for text in nodes["texts"])
    assert set(found["peak_gb"]) == {*STAGES, *NODES} and max(found["peak_gb"].values()) < MOST_GB


def main(dtype: str, device: str, model: str = "", folder: str = "") -> None:
    with tempfile.TemporaryDirectory() as own:
        out = Path(folder or own)
        found = whole_way(Path(model) if model else write(out), dtype, device, out)
        (out / "found.json").write_text(json.dumps(found), encoding="utf-8")
    for name, seconds in found["seconds"].items():
        print(f"| {name} | {seconds:.1f} s | {found['peak_gb'][name]:.1f} GB |")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    main(*sys.argv[1:])
