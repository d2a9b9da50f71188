"""The command `smooth`: take the jitter out of the keypoints of a video's frames."""

from __future__ import annotations

import argparse

from ..config import SMOOTHING_METHODS
from ..errors import KeypointError
from .arguments import COCO, add_keypoints, add_threshold, number, path, whole
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("smooth", help="take the jitter out of the keypoints of a video's frames")
    add_keypoints(p, f"{COCO} on the frames, in order")
    p.add_argument("output", type=path, help="the JSON file to write")
    p.add_argument(
        "--method",
        choices=SMOOTHING_METHODS,
        default=SMOOTHING_METHODS[0],
        help=f"none only fills gaps and undoes swaps ({SMOOTHING_METHODS[0]})",
    )
    p.add_argument("--window", type=whole(1), default=9, help="savitzky-golay: frames per curve (9)")
    p.add_argument("--order", type=whole(0), default=2, help="savitzky-golay: degree of the curve (2)")
    p.add_argument("--fps", type=number(above=0), default=25.0, help="one-euro: frames per second (25)")
    p.add_argument("--min-cutoff", type=number(above=0), default=1.0, help="one-euro: Hz let through at rest (1)")
    p.add_argument("--beta", type=number(0), default=1.0, help="one-euro: how much more in fast motion (1)")
    p.add_argument("--causal", action="store_true", help="one-euro: past frames only; lags")
    p.add_argument("--fill", type=whole(0), default=5, help="longest gap in frames that is bridged (5)")
    p.add_argument("--swaps", default="auto", help="points that may be swapped: auto, all, none or 3-5,2-7 (auto)")
    add_threshold(p, "points below this confidence count as gaps")
    return p


def run(args: argparse.Namespace) -> None:
    """Smooth the keypoints of a video and print jitter before and after."""
    check_outputs([Output(args.output, "JSON")], [args.keypoints])
    from ..video.smoothing import parse_swaps, smooth_keypoints
    from .reading import load_keypoints, natural_notice

    points = load_keypoints(args)
    if not len(points.xy):
        raise KeypointError(f"{args.keypoints} has no frames; detect keypoints on the frames of a video first.")
    natural_notice(points)
    done = smooth_keypoints(
        points,
        args.method,
        window=args.window,
        order=args.order,
        fps=args.fps,
        min_cutoff=args.min_cutoff,
        beta=args.beta,
        causal=args.causal,
        fill=args.fill,
        threshold=args.threshold,
        identity=parse_swaps(args.swaps, points),
    )
    write_text(args.output, done.keypoints.to_json())
    print(f"{done.report()}\nkeypoints: {args.output}")
