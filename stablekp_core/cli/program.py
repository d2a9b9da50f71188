"""The program: the list of commands, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import KeypointError
from ..files import why
from . import (
    apply_landmarks,
    demo,
    detect,
    detect_dataset,
    draw,
    edit,
    edit_keypoints,
    evaluate,
    export_controlnet_dataset,
    fit_guidance,
    fit_landmarks,
    generate,
    heatmaps,
    import_tokens,
    info,
    rehearse,
    report,
    retarget,
    skeleton,
    smooth,
    train,
)

_PROG = "python -m stablekp_core"
_NO_TORCH = "PyTorch is not installed; install it with pip install torch, or as pytorch.org says for your GPU."
COMMANDS = (
    train,
    detect,
    detect_dataset,
    evaluate,
    draw,
    heatmaps,
    info,
    demo,
    rehearse,
    fit_landmarks,
    apply_landmarks,
    smooth,
    skeleton,
    report,
    edit,
    edit_keypoints,
    retarget,
    export_controlnet_dataset,
    import_tokens,
    fit_guidance,
    generate,
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; nothing heavy is imported."""
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Keypoints of any kind of object, learned without labels from a frozen Stable Diffusion 1.5.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    for sub in commands.choices.values():
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # names that the console cannot show (cp1252) must not end the command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        with _plain_messages():
            args.run(args)
        return 0
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("Stopped.", file=sys.stderr)
        return 130
    except (KeypointError, OSError) as error:
        if args.debug:
            raise
        text = error if isinstance(error, KeypointError) else _system_error(error)
        print(f"{_PROG} {args.command}: {text}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if args.debug or error.name != "torch":
            raise
        print(f"{_PROG} {args.command}: {_NO_TORCH}", file=sys.stderr)
        return 1


def _system_error(error: OSError) -> str:
    """What went wrong with which file, without numbers of the system."""
    return f"{error.filename}: {why(error)}" if error.filename else why(error)


@contextmanager
def _plain_messages() -> Iterator[None]:
    """Warnings of the core on stderr, one line each, as they are."""
    core, handler = logging.getLogger(__package__.partition(".")[0]), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    core.addHandler(handler)
    form, warnings.formatwarning = warnings.formatwarning, lambda message, *_, **__: f"{message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = form
        core.removeHandler(handler)
