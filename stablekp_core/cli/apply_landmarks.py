"""The command `apply-landmarks`: turn keypoints into named joints with a landmark map."""

from __future__ import annotations

import argparse
import json

from .arguments import add_keypoints, add_threshold, path
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("apply-landmarks", help="turn keypoints into named joints with a landmark map")
    add_keypoints(p)
    p.add_argument("landmarks", type=path, help="the file that fit-landmarks wrote")
    p.add_argument("output", type=path, help="the JSON file to write")
    p.add_argument(
        "--format",
        choices=("coco", "openpose", "ap10k"),
        default="coco",
        help="coco with the joints' names, openpose (POSE_KEYPOINT) or ap10k (coco)",
    )
    add_threshold(p, "joints below this confidence are missing in openpose and ap10k")
    return p


def run(args: argparse.Namespace) -> None:
    """Apply a landmark map and write named COCO, POSE_KEYPOINT or AP-10K."""
    check_outputs([Output(args.output, "JSON")], [args.keypoints, args.landmarks])
    from ..pose.landmark_map import LandmarkMap
    from ..pose.writing import to_ap10k, to_pose_keypoint
    from .reading import load_keypoints

    named = LandmarkMap.load(args.landmarks).apply(load_keypoints(args))
    if args.format == "coco":
        value = named.to_coco()
    else:
        value = (to_pose_keypoint if args.format == "openpose" else to_ap10k)(named, args.threshold)
    write_text(args.output, json.dumps(value))
    print(f"{len(named)} figures, {named.num_keypoints} joints each, as {args.format}: {args.output}")
