"""The command `draw`: draw keypoints over their images."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path, PurePosixPath

from ..errors import KeypointError
from .arguments import add_keypoints, add_threshold, number, path, whole
from .outputs import Output, check_outputs, save_image


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("draw", help="draw detected keypoints")
    p.add_argument("images", type=path, help="the folder the keypoints were found on, or copies of another size")
    add_keypoints(p)
    p.add_argument("output", type=path, help="folder for the images; folders below the images' are kept")
    p.add_argument("--canvas", choices=("image", "black", "white"), default="image", help="what to draw on (image)")
    p.add_argument("--sheet", action="store_true", help="one contact sheet instead of an image each")
    for name, text in (("dots", "dots"), ("numbers", "keypoint numbers"), ("lines", "skeleton lines")):
        p.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=f"draw {text} (yes)")
    add_threshold(p, "hide points below this confidence", 0.0)
    p.add_argument("--width", type=number(high=1000, above=0), help="line width in pixels (scales with the image)")
    p.add_argument("--which", type=whole(0), nargs="+", metavar="K", help="draw these keypoints only, counted from 0")
    return p


def run(args: argparse.Namespace) -> None:
    """Draw a COCO keypoint file over its images."""
    from ..drawing import overlay, sheets
    from ..progress import DRAWING, counted
    from .bars import Bars
    from .reading import image_files, images_with_keypoints, load_keypoints

    found = load_keypoints(args)
    files = image_files(args.images, found, args.keypoints)
    how = {name: getattr(args, name) for name in ("dots", "numbers", "lines", "threshold", "width", "which")}
    how |= {"skeleton": found.skeleton, "colors": found.colors}
    outputs = {name: args.output / drawn for name, drawn in drawn_names(files).items()}
    if any(file.resolve().parent == output.resolve().parent for file in files.values() for output in outputs.values()):
        raise KeypointError(f"{args.output} holds the images themselves; give another folder for the drawn ones.")
    sheet = args.output / "sheet.jpg"
    written = [sheet] if args.sheet else outputs.values()
    check_outputs([Output(args.output, "folder"), *(Output(p, "image") for p in written)], [args.keypoints])
    with Bars() as bars:
        images = counted(images_with_keypoints(files, found), DRAWING, bars, len(files))
        if args.sheet:
            cells = [
                (image, rows.xy[row], rows.confidence[row]) for _, image, rows in images for row in range(len(rows))
            ]
            save_image(sheet, sheets.contact_sheet(*map(list, zip(*cells, strict=True)), **how))
            print(sheet)
            return
        count = 0
        for name, image, rows in images:
            canvas, count = args.canvas, count + 1
            for row in range(len(rows)):
                occluded = rows.is_occluded[row] if args.canvas == "image" else None
                image = overlay.draw_keypoints(
                    image, rows.xy[row], rows.confidence[row], canvas=canvas, occluded=occluded, **how
                )
                canvas = "image"  # the next instance goes over this one
            save_image(outputs[name], image)
    print(f"{count} images: {args.output}")


def drawn_names(files: dict[str, Path]) -> dict[str, str]:
    """Image name -> name of its drawing, folders kept: a.png, or a.jpg.png where there are a.jpg and a.png."""
    places = {}
    for name, file in files.items():
        parts = [part for part in name.replace("\\", "/").split("/")[:-1] if part not in ("", ".", "..")]
        places[name] = PurePosixPath(*parts, file.name)
    stems = Counter(place.with_suffix("") for place in places.values())
    drawn = {
        name: f"{place.with_suffix('') if stems[place.with_suffix('')] == 1 else place}.png"
        for name, place in places.items()
    }
    twice, count = Counter(drawn.values()).most_common(1)[0] if drawn else ("", 0)
    if count > 1:
        raise KeypointError(f"{count} images would be drawn as {twice}; name the images with their folders.")
    return drawn
