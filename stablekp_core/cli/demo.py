"""The command `demo`: train, detect and draw with the built-in model and images."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import path, whole
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("demo", help="train, detect and draw with the built-in model and images")
    p.add_argument("--output", type=path, default=Path("demo_output"), help="folder for images and report.json")
    p.add_argument("--steps", type=whole(0), help="training steps per class")
    p.add_argument("--seed", type=whole(0), default=0)
    p.add_argument("--quick", action="store_true", help="a quarter of the images: does everything run?")
    p.add_argument("--compare", action="store_true", help="measure untrained tokens and a second class (faces) too")
    return p


def run(args: argparse.Namespace) -> None:
    """See `demo_run.run`."""
    check_outputs([Output(args.output, "folder")])
    from .demo_run import run as measure_and_draw

    measure_and_draw(args)
