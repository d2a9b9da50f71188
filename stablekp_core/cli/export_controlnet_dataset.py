"""The command `export-controlnet-dataset`: write pairs to train one's own ControlNet with."""

from __future__ import annotations

import argparse
from dataclasses import fields

from ..config import HINT_FITS, HINT_STYLES
from .arguments import add_keypoints, add_threshold, number, path, whole
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("export-controlnet-dataset", help="write pairs to train one's own ControlNet with")
    p.add_argument("images", type=path, help="the folder the keypoints were found on")
    add_keypoints(p)
    p.add_argument("output", type=path, help="folder of the data set; run again, it goes on where it stopped")
    p.add_argument("--style", choices=HINT_STYLES, default="scribble", help="what the hints look like (scribble)")
    p.add_argument("--size", type=whole(1), default=512, help="side of the images in pixels (512)")
    p.add_argument("--fit", choices=HINT_FITS, default="crop", help="a square, or the aspect (crop)")
    p.add_argument("--line-width", type=whole(1), default=4, help="of scribble and keypoints, in pixels (4)")
    p.add_argument("--validation", type=number(0, 0.9), default=0.1, help="share of images set aside (0.1)")
    p.add_argument("--seed", type=whole(), default=0, help="of that choice (0)")
    p.add_argument("--image-format", choices=("png", "jpg"), default="png", help="of the images (png)")
    p.add_argument("--captions", type=path, help="folder of .txt or .caption files, or a .json, .jsonl or .csv file")
    p.add_argument("--caption", default="", help="text of images without a caption of their own")
    p.add_argument("--landmarks", type=path, help="a landmark map to apply first, for openpose and ap10k")
    p.add_argument("--overwrite", action="store_true", help="allow other settings than those the folder was begun with")
    add_threshold(p, "points below this confidence are not drawn")
    return p


def run(args: argparse.Namespace) -> None:
    """Write a ControlNet data set."""
    check_outputs([Output(args.output, "folder")], [args.keypoints, args.images, args.landmarks])
    from ..controlnet.captions import read_captions
    from ..controlnet.dataset import ExportSettings, export_controlnet_dataset
    from ..pose.landmark_map import LandmarkMap
    from .bars import Bars
    from .reading import image_files, images_with_keypoints, load_keypoints

    settings = ExportSettings(**{item.name: getattr(args, item.name) for item in fields(ExportSettings)})
    points = load_keypoints(args)
    if args.landmarks:
        points = LandmarkMap.load(args.landmarks).apply(points)
    captions = read_captions(args.captions) if args.captions else None
    files = image_files(args.images, points, args.keypoints)
    with Bars() as bars:
        done = export_controlnet_dataset(
            ((name, image) for name, image, _ in images_with_keypoints(files, points)),
            points,
            args.output,
            settings,
            captions=captions,
            caption=args.caption,
            overwrite=args.overwrite,
            on_progress=bars,
        )
    print(done.report())
