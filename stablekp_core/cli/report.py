"""The command `report`: the quality of each keypoint over a batch of images."""

from __future__ import annotations

import argparse

from ..errors import KeypointError
from .arguments import COCO, add_keypoints, add_threshold, path, whole
from .outputs import Output, check_outputs, save_image


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("report", help="report the quality of each keypoint over a batch of images")
    add_keypoints(p, f"{COCO} on 10 or more images")
    p.add_argument("--tokens", dest="tokens_file", type=path, help="the tokens file, for votes")
    p.add_argument("--images", type=path, help="the folder the keypoints were found on, for --picture")
    p.add_argument("--picture", dest="image", type=path, help="also draw the first images with labels; needs --images")
    p.add_argument("--max-pictures", dest="max_images", type=whole(1), default=9, help="images drawn (9)")
    add_threshold(p, "from this confidence on a point counts as seen")
    return p


def run(args: argparse.Namespace) -> None:
    """Print the table of keypoints; draw the first images with it where asked."""
    if args.image and not args.images:
        raise KeypointError("--picture needs --images, the folder the keypoints were found on.")
    if args.image:
        check_outputs([Output(args.image, "image")], [args.keypoints, args.tokens_file, args.images])
    from ..keypoints.diagnostics import keypoint_report, report_labels, report_text
    from ..keypoints.tokens import KeypointTokens
    from .reading import load_keypoints

    points = load_keypoints(args)
    tokens = KeypointTokens.load(args.tokens_file) if args.tokens_file else None
    lines = keypoint_report(points, tokens, threshold=args.threshold)
    print(report_text(lines))
    if args.image:
        _draw(args, points, report_labels(lines))
        print(f"image: {args.image}")


def _draw(args: argparse.Namespace, points, labels: list[str]) -> None:
    from ..drawing.sheets import contact_sheet
    from .reading import image_files, images_with_keypoints

    first = sorted(set(points.image_index.tolist()))[: args.max_images]
    shown = points.rows([row for row, image in enumerate(points.image_index.tolist()) if image in first])
    files = image_files(args.images, shown, args.keypoints)
    cells = [(image, rows.xy, rows.confidence) for _, image, rows in images_with_keypoints(files, shown)]
    images, xy, confidence = map(list, zip(*cells, strict=True))
    sheet = contact_sheet(
        images, xy, confidence, labels=labels, skeleton=points.skeleton, colors=points.colors, cell=512
    )
    save_image(args.image, sheet)
