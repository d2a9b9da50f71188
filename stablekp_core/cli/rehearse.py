"""The rehearsal: one command for a first run with a real model. It times every stage on the user's own images, says
what a full run takes and how good a short one is, and shows it on one page."""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

from ..config import DetectConfig, TrainConfig
from ..progress import DETECTING, TRAINING, duration
from .arguments import add_config, add_device, add_preset, config_from, path, whole
from .outputs import Output, check_outputs, save_image, write_text

BUILT_IN = Path(__file__).parents[1] / "assets" / "pictures" / "dolls" / "train"
SHOWN = 12  # images on a sheet
CUB_IMAGES = 30  # birds of class 001, at least so many images are trained on in the paper's table
CUB_STEPS = 500  # of the paper for birds
OPENING = "opening the model"
PACE = ("tokens", "batch_size", "map_size", "image_size")  # settings that decide how long a step takes


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("rehearse", help="a first run with a real model: stages timed, a short training judged")
    p.add_argument("model", help="as --model of train")
    p.add_argument("images", type=path, nargs="?", help="folder of images of one kind of thing (the built-in dolls)")
    p.add_argument("--output", type=path, default=Path("rehearsal"), help="folder for the page (rehearsal)")
    p.add_argument("--steps", type=whole(1), default=100, help="optimiser steps of the rehearsal (100)")
    p.add_argument("--limit", type=whole(1), help="use at most this many images")
    add_device(p)
    add_preset(p)
    add_config(p, TrainConfig, "training", skip=("steps", "stop"))
    return p


class _Clock:
    """A progress callback that hands on to another one and keeps the seconds of each phase, and of each unit of it."""

    def __init__(self, show):
        self._show, self._last = show, time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.units: dict[str, int] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0) + now - self._last
        self.units[phase], self._last = done, now
        self._show(phase, done, total)


def run(args: argparse.Namespace) -> None:
    """The rehearse command: writes tokens.safetensors, images, report.json and index.html, and prints the result."""
    from ..backbone.loading import load_backbone
    from ..drawing.plots import loss_plot
    from ..images.image_set import load_folder
    from ..keypoints.self_check import report
    from ..training.train import train
    from .bars import Bars

    check_outputs([Output(args.output, "folder")], [args.images])
    out, full = args.output, config_from(args, TrainConfig, skip=("steps",))
    out.mkdir(parents=True, exist_ok=True)
    images = load_folder(args.images or BUILT_IN, limit=args.limit)
    with Bars() as bars:
        clock = _Clock(bars)
        clock(OPENING, 0, 1)
        backbone = load_backbone(args.model, args.dtype, args.device)
        clock(OPENING, 1, 1)
        _reset_memory(backbone.device)
        config = full.replace(steps=args.steps, stop="fixed")
        tokens = train(backbone, images, config, on_progress=clock).tokens
        tokens.save(out / "tokens.safetensors")
        shown = _shown(images, tokens)
        sheets = _write_sheets(backbone, tokens, shown, out, clock)
    if tokens.losses:
        save_image(out / "loss.png", loss_plot({"loss": list(tokens.losses)}))
    numbers = _numbers(args, backbone, full, config, images, clock)
    numbers["self_check"] = tokens.check.to_dict()
    numbers["verdict"] = tokens.check.verdict
    write_text(out / "report.json", json.dumps(numbers, indent=1) + "\n")
    text = report(tokens.check, full.to_dict())
    write_text(out / "index.html", _page(numbers, text, sheets, out))
    print(f"{text}\n{_expected(numbers)}\n{_paper(numbers)}\nThe page is {(out / 'index.html').resolve()}")


def _shown(images, tokens) -> list:
    """(name, image) of some images, those that were left out where there are any."""
    left_out = tokens.check.indices(images.names)
    return list(islice(images.pick(left_out) if left_out else images, SHOWN))


def _write_sheets(backbone, tokens, shown: list, out: Path, clock: _Clock) -> dict[str, Path]:
    """A sheet of each read-out there is, by its name; that in use first."""
    from ..detection.detector import detect
    from ..keypoints.self_check import READOUTS

    used, sheets = tokens.check.used, {}
    for how in sorted(READOUTS, key=lambda name: name != used):
        if (tokens.read(how).refined is not None) != (how == "refined"):
            continue  # there are no refined tokens
        found = detect(backbone, tokens, shown, DetectConfig(views=2, read=how), on_progress=clock).keypoints
        sheets[how] = out / f"{how}.jpg"
        save_image(sheets[how], found.contact_sheet([image for _, image in shown], heading=f"{how} tokens"))
    return sheets


def _reset_memory(device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device) -> float | None:
    """GiB at most on a CUDA device so far; None elsewhere, where it is not told."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def _numbers(args, backbone, full: TrainConfig, config: TrainConfig, images, clock: _Clock) -> dict:
    """What was measured, and what follows from it for a full run."""
    import torch

    from ..training.rounds import IMAGES, marks

    per_step = clock.seconds[TRAINING] / max(clock.units[TRAINING], 1)
    after = sum(s for phase, s in clock.seconds.items() if phase not in (TRAINING, OPENING, DETECTING))
    # Each round ends with a choice and a check as at the end, on few images.
    checks = len(marks(full.steps)) * min(1, IMAGES / len(images)) if full.stop == "auto" else 0
    as_paper, own = (c.to_dict() for c in (TrainConfig.preset("paper"), full))
    return {
        "model": backbone.name,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "preset": args.preset,
        "images": len(images),
        "steps": config.steps,
        "full_steps": full.steps,
        "stop": full.stop,
        "seconds": clock.seconds,
        "seconds_per_step": per_step,
        "seconds_full_at_most": per_step * full.steps + after * (1 + checks),
        "seconds_after_steps": after,
        "other_pace_than_paper": [name for name in PACE if own[name] != as_paper[name]],
        "peak_memory_gib": _peak_memory(backbone.device),
    }


def _expected(n: dict) -> str:
    """How long a full run takes, in words."""
    most = "at most " if n["stop"] == "auto" else ""
    rest = ", less where more steps bring nothing" if most else ""
    return (
        f"expected time of a full run ({n['full_steps']} steps): {most}{duration(n['seconds_full_at_most'])}{rest}; "
        f"{n['seconds_per_step']:.2f} s a step here, {duration(n['seconds_after_steps'])} for choosing and checking"
    )


def _paper(n: dict) -> str:
    """What a number of the paper's tables would need on this machine."""
    needed = CUB_STEPS * n["seconds_per_step"] + n["seconds_after_steps"] * CUB_IMAGES / max(n["images"], 1)
    flags = [f"--{name.replace('_', '-')}" for name in n["other_pace_than_paper"]]
    return (
        "a number to hold against the paper: evaluate --dataset cub_001 --root CUB_200_2011 --preset paper "
        f"({CUB_IMAGES} training images, {CUB_STEPS} steps): "
        + (
            f"a rehearsal without {', '.join(flags)} tells how long that takes here"
            if flags
            else f"about {duration(needed)} here, and the test images"
        )
    )


def _page(n: dict, text: str, sheets: dict[str, Path], out: Path) -> str:
    from .page import figure, page, table, tag

    captions = {"learned": "The learned tokens", "refined": "The refined tokens"}
    pictures = [
        figure(path, f"{captions[how]}{', which are read' if i == 0 else ', for comparison'}.")
        for i, (how, path) in enumerate(sheets.items())
    ]
    loss = out / "loss.png"
    memory, threads = n["peak_memory_gib"], f"{n['threads']} thread{'s' if n['threads'] > 1 else ''}"
    rows = [
        ("model", f"{n['model']} on {n['device']}, {n['dtype']}, torch {n['torch']}, {threads}"),
        ("images, steps, preset", f"{n['images']}, {n['steps']}, {n['preset']}"),
        *(
            (phase, duration(seconds) if seconds >= 10 else f"{seconds:.1f} s")
            for phase, seconds in n["seconds"].items()
        ),
        ("one step", f"{n['seconds_per_step']:.2f} s"),
        ("memory of the GPU at most", f"{memory:.2f} GiB" if memory else ""),
    ]
    return page(
        "Stable Keypoints: a rehearsal",
        tag("h1", "A rehearsal"),
        tag("p", f"After {n['steps']} steps on {n['images']} images the result is {n['verdict']}.", "lead"),
        tag("pre", text),
        f'<div class="pair">{"".join(pictures)}</div>',
        tag("h2", "A full run"),
        *(tag("p", f"{text[0].upper()}{text[1:]}.") for text in (_expected(n), _paper(n))),
        tag("h2", "In numbers"),
        table(rows),
        *([tag("h2", "The loss"), figure(loss, f"Over {n['steps']} steps.")] if loss.is_file() else []),
    )
