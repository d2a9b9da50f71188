"""Arguments of the commands that turn detected keypoints into poses, hints and data; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

_COCO = "COCO keypoint JSON from detect"


def _fit_parser(commands) -> None:
    p = commands.add_parser("fit-landmarks", help="learn named joints from a few labelled images")
    p.add_argument("keypoints", type=Path, help=f"{_COCO}, of the labelled images and any others")
    p.add_argument("labels", type=Path, help="COCO keypoints, POSE_KEYPOINT or AP-10K JSON of at least 5 of them")
    p.add_argument("output", type=Path, help="the .safetensors file to write")
    p.add_argument(
        "--mode",
        choices=("auto", "figure", "affine", "linear"),
        default="auto",
        help="auto takes the one that errs least on images left out (auto)",
    )
    p.add_argument("--ridge", type=float, help="strength of the ridge, 0 for none (chosen by leave-one-out)")
    p.add_argument("--rank", type=int, help="components used, 0 for all (chosen by leave-one-out)")
    p.add_argument(
        "--confidence",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let keypoints of low confidence count less (yes)",
    )
    p.set_defaults(run="pose:fit")


def _apply_parser(commands) -> None:
    p = commands.add_parser("apply-landmarks", help="turn keypoints into named joints with a landmark map")
    p.add_argument("keypoints", type=Path, help=_COCO)
    p.add_argument("landmarks", type=Path, help="the file that fit-landmarks wrote")
    p.add_argument("output", type=Path, help="the JSON file to write")
    p.add_argument(
        "--format",
        choices=("coco", "openpose", "ap10k"),
        default="coco",
        help="coco with the joints' names, openpose (POSE_KEYPOINT) or ap10k (coco)",
    )
    _threshold(p, "joints below this confidence are missing in openpose and ap10k")
    p.set_defaults(run="pose:apply")


def _smooth_parser(commands) -> None:
    p = commands.add_parser("smooth", help="take the jitter out of the keypoints of a video's frames")
    p.add_argument("keypoints", type=Path, help=f"{_COCO} on the frames, in order")
    p.add_argument("output", type=Path, help="the JSON file to write")
    p.add_argument(
        "--method",
        choices=("savitzky-golay", "one-euro", "none"),
        default="savitzky-golay",
        help="none only fills gaps and undoes swaps (savitzky-golay)",
    )
    p.add_argument("--window", type=int, default=9, help="savitzky-golay: frames per curve (9)")
    p.add_argument("--order", type=int, default=2, help="savitzky-golay: degree of the curve (2)")
    p.add_argument("--fps", type=float, default=25.0, help="one-euro: frames per second (25)")
    p.add_argument("--min-cutoff", type=float, default=1.0, help="one-euro: Hz let through at rest (1)")
    p.add_argument("--beta", type=float, default=1.0, help="one-euro: how much more in fast motion (1)")
    p.add_argument("--causal", action="store_true", help="one-euro: past frames only; lags")
    p.add_argument("--fill", type=int, default=5, help="longest gap in frames that is bridged (5)")
    p.add_argument("--swaps", default="auto", help="points that may be swapped: auto, all, none or 3-5,2-7 (auto)")
    _threshold(p, "points below this confidence count as gaps")
    p.set_defaults(run="pose:smooth")


def _skeleton_parser(commands) -> None:
    p = commands.add_parser("skeleton", help="join keypoints that move together with lines")
    p.add_argument("keypoints", type=Path, help=f"{_COCO} on 30 or more images")
    p.add_argument("--tokens", dest="tokens_file", type=Path, help="write the skeleton into this tokens file")
    p.add_argument("--output", type=Path, help="write the tokens, or without --tokens the keypoints, here instead")
    p.add_argument("--extra", type=float, default=0.9, help="agreement for further lines, 1 for none (0.9)")
    p.add_argument("--edges", help="these lines instead, such as '0-1, 1-2'")
    p.set_defaults(run="pose:skeleton")


def _report_parser(commands) -> None:
    p = commands.add_parser("report", help="say what each keypoint is worth over a batch of images")
    p.add_argument("keypoints", type=Path, help=f"{_COCO} on 10 or more images")
    p.add_argument("--tokens", dest="tokens_file", type=Path, help="the tokens file, for votes")
    p.add_argument("--images", type=Path, help="the folder the keypoints were found on, for --picture")
    p.add_argument("--picture", dest="image", type=Path, help="also draw the first images with labels; needs --images")
    p.add_argument("--max-pictures", dest="max_images", type=int, default=9, help="images drawn (9)")
    _threshold(p, "from this confidence on a point counts as seen")
    p.set_defaults(run="pose:report")


def _edit_parser(commands) -> None:
    p = commands.add_parser("edit", help="drop, reorder, rename and recolour the keypoints of a tokens file")
    p.add_argument("tokens_file", type=Path, help="the tokens file")
    p.add_argument(
        "edits",
        nargs="+",
        help="edits such as 'drop 3 7' 'rename 0 nose' 'reorder 2 0 1' 'recolour 0 #ff8000' 'skeleton 0-1, "
        "1-2', or text files with one edit per line",
    )
    p.add_argument("--output", type=Path, help="write here instead of into the same file")
    p.set_defaults(run="pose:edit")


def _edit_points_parser(commands) -> None:
    p = commands.add_parser("edit-keypoints", help="apply edits made by hand to keypoints")
    p.add_argument("keypoints", type=Path, help=_COCO)
    p.add_argument("edits", type=Path, help="the JSON of the node Edit Keypoints, or written by a program")
    p.add_argument("output", type=Path, help="the JSON file to write")
    p.add_argument("--spread", action="store_true", help="frames between two edited frames follow them smoothly")
    _threshold(p, "with --spread: below this confidence a point follows the edits' own path")
    p.set_defaults(run="pose:edit_points")


def _retarget_parser(commands) -> None:
    poses = "keypoints (COCO JSON), POSE_KEYPOINT or AP-10K JSON"
    p = commands.add_parser("retarget", help="carry poses to a body of other proportions")
    p.add_argument("drive", type=Path, help=f"{poses} of the poses to take")
    p.add_argument("target", type=Path, help=f"{poses} of an image that shows the target's whole body")
    p.add_argument("output", type=Path, help="the COCO keypoint JSON file to write")
    p.add_argument("--skeleton", help="openpose, ap10k, coco17, or edges such as '0-1, 1-2' (that of the keypoints)")
    p.add_argument("--place", choices=("target", "drive"), default="target", help="in whose image it stands (target)")
    p.add_argument("--scale", type=float, default=1.0, help="makes the body larger or smaller (1)")
    p.add_argument("--offset", type=float, nargs=2, default=(0.0, 0.0), help="shift in image widths and heights (0 0)")
    p.add_argument("--root", default="", help="name of the point the body hangs on (the one with most bones)")
    p.set_defaults(run="pose:retarget")


def _export_parser(commands) -> None:
    p = commands.add_parser("export-controlnet-dataset", help="write pairs to train one's own ControlNet with")
    p.add_argument("images", type=Path, help="the folder the keypoints were found on")
    p.add_argument("keypoints", type=Path, help=_COCO)
    p.add_argument("output", type=Path, help="folder of the data set; run again, it goes on where it stopped")
    p.add_argument(
        "--style",
        choices=("scribble", "openpose", "ap10k", "keypoints"),
        default="scribble",
        help="what the hints look like (scribble)",
    )
    p.add_argument("--size", type=int, default=512, help="side of the images in pixels (512)")
    p.add_argument("--fit", choices=("crop", "keep"), default="crop", help="a square, or the aspect (crop)")
    p.add_argument("--line-width", type=int, default=4, help="of scribble and keypoints, in pixels (4)")
    p.add_argument("--validation", type=float, default=0.1, help="share of images set aside (0.1)")
    p.add_argument("--seed", type=int, default=0, help="of that choice (0)")
    p.add_argument("--image-format", choices=("png", "jpg"), default="png", help="of the images (png)")
    p.add_argument("--captions", type=Path, help="folder of .txt files, or a .json, .jsonl or .csv file")
    p.add_argument("--caption", default="", help="text of images without a caption of their own")
    p.add_argument("--landmarks", type=Path, help="a landmark map to apply first, for openpose and ap10k")
    p.add_argument("--overwrite", action="store_true", help="allow other settings than those the folder was begun with")
    _threshold(p, "points below this confidence are not drawn")
    p.set_defaults(run="pose:export")


def _threshold(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--threshold", type=float, default=0.3, help=f"{text}, 0 to 1 (0.3)")


POSE_PARSERS = [
    _fit_parser,
    _apply_parser,
    _smooth_parser,
    _skeleton_parser,
    _report_parser,
    _edit_parser,
    _edit_points_parser,
    _retarget_parser,
    _export_parser,
]
