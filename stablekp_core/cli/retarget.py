"""The command `retarget`: carry poses to a body of other proportions."""

from __future__ import annotations

import argparse

from .arguments import add_category, number, path
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    poses = "keypoints (COCO JSON), POSE_KEYPOINT or AP-10K JSON"
    p = commands.add_parser("retarget", help="carry poses to a body of other proportions")
    p.add_argument("drive", type=path, help=f"{poses} of the poses to take")
    p.add_argument("target", type=path, help=f"{poses} of an image that shows the target's whole body")
    p.add_argument("output", type=path, help="the COCO keypoint JSON file to write")
    p.add_argument("--skeleton", help="openpose, ap10k, coco17, or edges such as '0-1, 1-2' (that of the keypoints)")
    p.add_argument("--place", choices=("target", "drive"), default="target", help="in whose image it stands (target)")
    p.add_argument("--scale", type=number(above=0), default=1.0, help="makes the body larger or smaller (1)")
    p.add_argument(
        "--offset", type=number(), nargs=2, default=(0.0, 0.0), help="shift in image widths and heights (0 0)"
    )
    p.add_argument("--root", default="", help="name of the point the body hangs on (the one with most bones)")
    add_category(p, "poses")
    return p


def run(args: argparse.Namespace) -> None:
    """Carry poses to a body of other proportions."""
    check_outputs([Output(args.output, "JSON")], [args.drive, args.target])
    from ..keypoints.schema import parse_skeleton
    from ..pose.formats import POSES
    from ..pose.reading import read_pose
    from ..pose.retarget import retarget_pose

    drive, skeleton = read_pose(args.drive, category=args.category), args.skeleton
    if skeleton is not None and skeleton not in POSES:
        skeleton = parse_skeleton(skeleton, drive.num_keypoints, drive.names)
    done = retarget_pose(
        drive,
        read_pose(args.target, category=args.category),
        skeleton=skeleton,
        root=args.root,
        place=args.place,
        scale=args.scale,
        offset=tuple(args.offset),
    )
    write_text(args.output, done.to_json())
    print(f"{len(done)} figures, {done.num_keypoints} points each: {args.output}")
