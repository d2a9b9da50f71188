"""The command `skeleton`: join keypoints that move together with lines."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..errors import KeypointError
from .arguments import COCO, add_keypoints, path, share
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("skeleton", help="join keypoints that move together with lines")
    add_keypoints(p, f"{COCO} on 30 or more images")
    p.add_argument("--tokens", dest="tokens_file", type=path, help="write the skeleton into this tokens file")
    p.add_argument("--output", type=path, help="write the tokens, or without --tokens the keypoints, here instead")
    p.add_argument("--extra", type=share, default=0.9, help="agreement for further lines, 1 for none (0.9)")
    p.add_argument("--edges", help="these lines instead, such as '0-1, 1-2'")
    return p


def run(args: argparse.Namespace) -> None:
    """Discover or take a skeleton; print it, and write it into tokens or keypoints."""
    if args.output:
        kind = "tokens" if args.tokens_file else "JSON"
        check_outputs([Output(args.output, kind)], [args.keypoints, args.tokens_file])
    from ..keypoints.schema import format_skeleton, parse_skeleton
    from ..keypoints.tokens import KeypointTokens
    from ..pose.skeleton import discover_skeleton
    from .reading import load_keypoints

    points = load_keypoints(args)
    if args.edges is not None:
        edges = parse_skeleton(args.edges, points.num_keypoints, points.names)
    else:
        edges = discover_skeleton(points, extra=args.extra).edges
    print(format_skeleton(edges))
    if args.tokens_file:
        tokens = KeypointTokens.load(args.tokens_file)
        if tokens.num_keypoints != points.num_keypoints:
            raise KeypointError(
                f"{args.tokens_file.name} has {tokens.num_keypoints} keypoints but {args.keypoints.name} has "
                f"{points.num_keypoints}; give the tokens these keypoints were detected with."
            )
        print(f"tokens: {tokens.with_skeleton(edges).save(args.output or args.tokens_file)}")
    elif args.output:
        write_text(args.output, replace(points, skeleton=edges).to_json())
        print(f"keypoints: {args.output}")
