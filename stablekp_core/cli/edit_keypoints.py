"""The command `edit-keypoints`: apply edits made by hand to keypoints."""

from __future__ import annotations

import argparse

from .arguments import add_keypoints, add_threshold, path
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("edit-keypoints", help="apply edits made by hand to keypoints")
    add_keypoints(p)
    p.add_argument("edits", type=path, help="the JSON of the node Edit Keypoints, or written by a program")
    p.add_argument("output", type=path, help="the JSON file to write")
    p.add_argument("--spread", action="store_true", help="frames between two edited frames follow them smoothly")
    add_threshold(p, "with --spread: below this confidence a point follows the edits' own path")
    return p


def run(args: argparse.Namespace) -> None:
    """Apply edits made by hand to keypoints; print what was edited and what fits nothing."""
    check_outputs([Output(args.output, "JSON")], [args.keypoints, args.edits])
    from ..files import read_text
    from ..keypoints.point_edits import KeypointEdits, apply_edits
    from .reading import load_keypoints

    edits = KeypointEdits.from_json(read_text(args.edits, "the JSON file of the edits"))
    done = apply_edits(load_keypoints(args), edits, spread=args.spread, threshold=args.threshold)
    write_text(args.output, done.keypoints.to_json())
    print(f"{done.report()}\nkeypoints: {args.output}")
