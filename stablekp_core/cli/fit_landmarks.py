"""The command `fit-landmarks`: learn named joints from a few labelled images."""

from __future__ import annotations

import argparse

from ..config import LANDMARK_MODES
from .arguments import COCO, add_category, number, path, whole
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("fit-landmarks", help="learn named joints from a few labelled images")
    p.add_argument("keypoints", type=path, help=f"{COCO}, of the labelled images and any others")
    p.add_argument(
        "labels",
        type=path,
        help="COCO keypoints, POSE_KEYPOINT or AP-10K JSON of at least 5 of them, or a folder of OpenPose's own files",
    )
    p.add_argument("output", type=path, help="the .safetensors file to write")
    p.add_argument(
        "--mode",
        choices=("auto", *LANDMARK_MODES),
        default="auto",
        help="auto takes the one that errs least on images left out (auto)",
    )
    p.add_argument("--ridge", type=number(0), help="strength of the ridge, 0 for none (chosen by leave-one-out)")
    p.add_argument("--rank", type=whole(0), help="components used, 0 for all (chosen by leave-one-out)")
    p.add_argument(
        "--confidence",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let keypoints of low confidence count less (yes)",
    )
    add_category(p, "labels")
    p.add_argument(
        "--canvas",
        type=whole(1),
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="size of the images in pixels, for labels that do not say, such as OpenPose's own files",
    )
    return p


def run(args: argparse.Namespace) -> None:
    """Fit a landmark map, write it, print its report."""
    check_outputs([Output(args.output, "landmark map")], [args.keypoints, args.labels])
    from ..errors import KeypointError
    from ..keypoints.keypoints import Keypoints
    from ..pose.fitting import fit_landmark_map
    from ..pose.reading import read_pose

    keypoints = Keypoints.load(args.keypoints)
    try:
        labels = read_pose(args.labels, category=args.category, canvas=tuple(args.canvas) if args.canvas else None)
    except KeypointError as error:
        raise error if args.labels.name in str(error) else KeypointError(f"{args.labels.name}: {error}") from error
    landmarks = fit_landmark_map(
        keypoints,
        labels,
        mode=args.mode,
        ridge=args.ridge,
        rank=args.rank,
        use_confidence=args.confidence,
    )
    print(f"{landmarks.report()}\nlandmark map: {landmarks.save(args.output)}")
