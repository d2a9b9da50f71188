"""The command `detect`: find learned keypoints on images."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import DetectConfig
from .arguments import add_config, add_masks, add_model, add_preset, config_from, path
from .outputs import Output, check_outputs, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("detect", help="find learned keypoints on images")
    p.add_argument("images", type=path, nargs="+", help="folders or image files")
    p.add_argument("--tokens", dest="tokens_file", type=path, required=True, help="the file that train wrote")
    p.add_argument(
        "--output",
        type=path,
        default=Path("keypoints.json"),
        help="COCO keypoint JSON; coordinates in pixels of the original images (keypoints.json)",
    )
    p.add_argument("--csv", type=path, help="also write a table")
    add_masks(p)
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    return p


def run(args: argparse.Namespace) -> None:
    """Find keypoints on images and write them."""
    check_outputs(
        [Output(args.output, "JSON"), Output(args.csv, "table") if args.csv else None],
        [*args.images, args.tokens_file, args.masks, args.model],
    )
    from ..backbone.loading import load_backbone
    from ..detection.detector import detect
    from ..images.masks import folder_masks
    from ..keypoints.tokens import KeypointTokens
    from .bars import Bars
    from .reading import open_images

    config, tokens = config_from(args, DetectConfig), KeypointTokens.load(args.tokens_file)
    images = open_images(args.images)
    masks = folder_masks(args.masks, images.names) if args.masks else None
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    with Bars() as bars:
        found = detect(backbone, tokens, images, config, on_progress=bars, masks=masks)
    write_text(args.output, found.keypoints.to_json())
    if args.csv:
        write_text(args.csv, found.keypoints.to_csv())
    print(f"{len(found.keypoints)} images, {found.keypoints.num_keypoints} keypoints each: {args.output}")
