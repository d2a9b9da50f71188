"""Options that several commands share; imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..config import PRESETS


def add_config(parser: argparse.ArgumentParser, cls, title: str, skip: Sequence[str] = ()) -> None:
    """One flag per setting; without it the preset's value stands."""
    group = parser.add_argument_group(title, "the values shown are those of the default preset")
    for item in dataclasses.fields(cls):
        if item.name in skip:
            continue
        flag, default, text = "--" + item.name.replace("_", "-"), item.default, item.metadata["help"]
        if item.name in cls._choices:
            group.add_argument(flag, choices=cls._choices[item.name], help=f"{text} ({default})")
        elif isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=f"{text} ({default})")
        elif isinstance(default, tuple):
            group.add_argument(
                flag,
                type=float,
                nargs=len(default),
                metavar=("LOW", "HIGH"),
                help=f"{text} ({' '.join(map(str, default))})",
            )
        else:
            group.add_argument(flag, type=type(default), metavar="X", help=f"{text} ({default})")


def config_from(args: argparse.Namespace, cls):
    """The preset with the given flags laid over it."""
    names = [item.name for item in dataclasses.fields(cls)]
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    return cls.preset(getattr(args, "preset", "default"), **given)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it computes."""
    parser.add_argument(
        "--model",
        default="demo",
        help="a Stable Diffusion 1.4/1.5 .safetensors file, a diffusers folder, "
        "a hub id, or demo, the small built-in model (demo)",
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="what the model computes in; auto = fp32 on a CPU, bf16 on a GPU (auto)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--compile", action="store_true", help="compile the model; pays off over hundreds of steps")
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="compute the UNet's blocks twice in training: less memory, about a third more time, the same result",
    )


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Where the object is on each image."""
    parser.add_argument(
        "--masks",
        type=Path,
        help="folder of masks named like the images, white where the object is; attention outside does not count",
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Which preset the other settings are laid over."""
    parser.add_argument(
        "--preset",
        default="default",
        choices=PRESETS,
        help="default = what measured best; reference = the authors' code; paper = the paper's text",
    )
