"""Arguments that several commands take, and the types of their values; imports nothing heavy.

A number that cannot be (nan, infinite, out of range) and a name that is empty are refused by argparse itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config import DTYPE_CHOICES, PRESETS

COCO = "COCO keypoint JSON from detect"


def number(low: float = -math.inf, high: float = math.inf, *, above: float | None = None) -> Callable[[str], float]:
    """The type of a finite number from `low` to `high`, and above `above` where that is given."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not low <= value <= high or (above is not None and value <= above):
            raise argparse.ArgumentTypeError(f"{text!r} was given, but it must be {_range(low, high, above)}")
        return value

    return read


def whole(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    """The type of a whole number from `low` to `high`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or (low is not None and value < low) or (high is not None and value > high):
            limits = _range(-math.inf if low is None else low, math.inf if high is None else high, None)
            raise argparse.ArgumentTypeError(f"{text!r} was given, but it must be {limits.replace('a ', 'a whole ')}")
        return value

    return read


def _range(low: float, high: float, above: float | None) -> str:
    if above is not None:
        return f"a number above {above:g}" + (f", at most {high:g}" if high < math.inf else "")
    if low == -math.inf and high == math.inf:
        return "a number"
    if high == math.inf:
        return f"a number from {low:g} up"
    return f"a number from {low:g} to {high:g}" if low > -math.inf else f"a number up to {high:g}"


share = number(0, 1)


def path(text: str) -> Path:
    """The type of a file or folder name."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name was given; name a file or folder")
    return Path(text)


def add_config(parser: argparse.ArgumentParser, cls, title: str, skip: Sequence[str] = ()) -> None:
    """One flag per setting of a configuration class; without it the preset's value stands."""
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
            shown = " ".join(map(str, default))
            low_high = {"nargs": len(default), "metavar": ("LOW", "HIGH")}
            group.add_argument(flag, type=number(), help=f"{text} ({shown})", **low_high)
        else:
            kind = whole() if isinstance(default, int) else number()
            group.add_argument(flag, type=kind, metavar="X", help=f"{text} ({default})")


def config_from(args: argparse.Namespace, cls, skip: Sequence[str] = ()):
    """The preset with the given flags laid over it, but for those of `skip`."""
    names = [item.name for item in dataclasses.fields(cls) if item.name not in skip]
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    return cls.preset(getattr(args, "preset", "default"), **given)  # some commands have no presets


def add_device(parser: argparse.ArgumentParser) -> None:
    """What the model computes in, and where."""
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPE_CHOICES,
        help="what the model computes in; auto = fp32 on a CPU, bf16 on a GPU (auto)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model and how it runs."""
    parser.add_argument(
        "--model",
        default="demo",
        help="a Stable Diffusion 1.4/1.5 .safetensors file, a diffusers folder, "
        "a hub id, or demo, the small built-in model (demo)",
    )
    add_device(parser)
    parser.add_argument("--compile", action="store_true", help="compile the model; pays off over hundreds of steps")
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="compute the UNet's blocks twice in training: less memory, about a third more time, the same result",
    )


def add_masks(parser: argparse.ArgumentParser) -> None:
    """A folder of masks."""
    parser.add_argument(
        "--masks",
        type=path,
        help="folder of masks named like the images, white where the object is; attention outside does not count",
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Which settings the flags are laid over."""
    parser.add_argument(
        "--preset",
        default="default",
        choices=PRESETS,
        help="default = what measured best on a small model, and a self-check of each result; reference = the authors' "
        "code and paper = the paper's text, which rest on the paper's tables for Stable Diffusion 1.5",
    )


def add_keypoints(parser: argparse.ArgumentParser, text: str = COCO) -> None:
    """A keypoint file; read it with `reading.load_keypoints`."""
    parser.add_argument("keypoints", type=path, help=text)
    add_category(parser, "keypoints")


def add_category(parser: argparse.ArgumentParser, what: str) -> None:
    """Which of several kinds of labels to read."""
    parser.add_argument("--category", metavar="NAME", help=f"which of the {what} to read where the file has several")


def add_threshold(parser: argparse.ArgumentParser, text: str, default: float = 0.3) -> None:
    """A confidence."""
    parser.add_argument("--threshold", type=share, default=default, metavar="X", help=f"{text}, 0 to 1 ({default:g})")
