"""The command `edit`: drop, reorder, rename and recolour the keypoints of a tokens file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import read_text
from .arguments import path
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("edit", help="drop, reorder, rename and recolour the keypoints of a tokens file")
    p.add_argument("tokens_file", type=path, help="the tokens file")
    p.add_argument(
        "edits",
        nargs="+",
        help="edits such as 'drop 3 7' 'rename 0 nose' 'reorder 2 0 1' 'recolour 0 #ff8000' 'skeleton 0-1, "
        "1-2', or text files with one edit per line",
    )
    p.add_argument("--output", type=path, help="write here instead of into the same file")
    return p


def run(args: argparse.Namespace) -> None:
    """Edit the keypoints of a tokens file."""
    files = [Path(edit) for edit in args.edits if _is_file(edit)]
    if args.output:
        check_outputs([Output(args.output, "tokens")], [args.tokens_file, *files])
    from ..keypoints.edit_script import edit_tokens
    from ..keypoints.tokens import KeypointTokens

    tokens = KeypointTokens.load(args.tokens_file)
    lines = [read_text(edit, "a text file of edits") if _is_file(edit) else edit for edit in args.edits]
    tokens = edit_tokens(tokens, "\n".join(lines))
    written = tokens.save(args.output or args.tokens_file)
    print("\n".join(f"{number} {name}" for number, name in enumerate(tokens.names)) + f"\ntokens: {written}")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # an edit can be longer than a file name may be
        return False
