"""What the pose commands do: read files, call the core, write files, say what was written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ..errors import KeypointError
from ..files import write_atomically
from ..keypoints.keypoints import Keypoints


def fit(args: argparse.Namespace) -> None:
    """Fit a landmark map, write it, print its report."""
    from ..pose.fitting import fit_landmark_map
    from ..pose.writing import read_pose

    landmarks = fit_landmark_map(
        Keypoints.load(args.keypoints),
        read_pose(args.labels),
        mode=args.mode,
        ridge=args.ridge,
        rank=args.rank,
        use_confidence=args.confidence,
    )
    print(f"{landmarks.report()}\nlandmark map: {landmarks.save(args.output)}")


def apply(args: argparse.Namespace) -> None:
    """Apply a landmark map and write named COCO, POSE_KEYPOINT or AP-10K."""
    from ..pose.fitting import LandmarkMap
    from ..pose.writing import to_ap10k, to_pose_keypoint

    named = LandmarkMap.load(args.landmarks).apply(Keypoints.load(args.keypoints))
    if args.format == "coco":
        value = named.to_coco()
    else:
        value = (to_pose_keypoint if args.format == "openpose" else to_ap10k)(named, args.threshold)
    _write_text(args.output, json.dumps(value))
    print(f"{len(named)} figures, {named.num_keypoints} joints each, as {args.format}: {args.output}")


def smooth(args: argparse.Namespace) -> None:
    """Smooth the keypoints of a video and print jitter before and after."""
    from ..video.smoothing import parse_swaps, smooth_keypoints

    points = Keypoints.load(args.keypoints)
    if not len(points.xy):
        raise KeypointError(f"{args.keypoints} has no frames; detect keypoints on the frames of a video first.")
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
    _write_text(args.output, done.keypoints.to_json())
    print(f"{done.report()}\nkeypoints: {args.output}")


def skeleton(args: argparse.Namespace) -> None:
    """Discover or take a skeleton; print it, and write it into tokens or keypoints."""
    from ..keypoints.schema import format_skeleton, parse_skeleton
    from ..keypoints.tokens import KeypointTokens
    from ..pose.skeleton import discover_skeleton

    points = Keypoints.load(args.keypoints)
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
        _write_text(args.output, replace(points, skeleton=edges).to_json())
        print(f"keypoints: {args.output}")


def report(args: argparse.Namespace) -> None:
    """Print the table of keypoints; draw the first images with it where asked."""
    from ..keypoints.diagnostics import keypoint_report, report_labels, report_text
    from ..keypoints.tokens import KeypointTokens
    from .commands import check_image_name

    if args.image and not args.images:
        raise KeypointError("--image needs --images, the folder the keypoints were found on.")
    if args.image:
        check_image_name(args.image)
    points = Keypoints.load(args.keypoints)
    tokens = KeypointTokens.load(args.tokens_file) if args.tokens_file else None
    lines = keypoint_report(points, tokens, threshold=args.threshold)
    print(report_text(lines))
    if args.image:
        _draw_report(args, points, report_labels(lines))
        print(f"image: {args.image}")


def _draw_report(args: argparse.Namespace, points: Keypoints, labels: list[str]) -> None:
    from ..drawing.sheets import contact_sheet
    from .commands import save_image

    first = sorted(set(points.image_index.tolist()))[: args.max_images]
    figures = {rows.images[0]: rows for rows in (points.instances(image) for image in first)}
    images = dict(_images(args.images, list(figures)))
    rows = [figures[name] for name in images]
    sheet = contact_sheet(
        list(images.values()),
        [row.xy for row in rows],
        [row.confidence for row in rows],
        labels=labels,
        skeleton=points.skeleton,
        colors=points.colors,
        cell=512,
    )
    save_image(args.image, sheet)


def edit(args: argparse.Namespace) -> None:
    """Edit the keypoints of a tokens file."""
    from ..keypoints.edit_script import edit_tokens
    from ..keypoints.tokens import KeypointTokens

    lines = [Path(edit).read_text("utf-8-sig") if _is_file(edit) else edit for edit in args.edits]
    tokens = edit_tokens(KeypointTokens.load(args.tokens_file), "\n".join(lines))
    path = tokens.save(args.output or args.tokens_file)
    print("\n".join(f"{number} {name}" for number, name in enumerate(tokens.names)) + f"\ntokens: {path}")


def edit_points(args: argparse.Namespace) -> None:
    """Apply edits made by hand to keypoints; print what was edited and what fits nothing."""
    from ..keypoints.point_edits import KeypointEdits, apply_edits

    try:
        text = args.edits.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise KeypointError(f"{args.edits} cannot be read ({error}); give the JSON file of the edits.") from error
    edits = KeypointEdits.from_json(text)
    done = apply_edits(Keypoints.load(args.keypoints), edits, spread=args.spread, threshold=args.threshold)
    _write_text(args.output, done.keypoints.to_json())
    print(f"{done.report()}\nkeypoints: {args.output}")


def retarget(args: argparse.Namespace) -> None:
    """Carry poses to a body of other proportions."""
    from ..keypoints.schema import parse_skeleton
    from ..pose.formats import POSES
    from ..pose.reading import read_pose
    from ..pose.retarget import retarget_pose

    drive, skeleton = read_pose(args.drive), args.skeleton
    if skeleton is not None and skeleton not in POSES:
        skeleton = parse_skeleton(skeleton, drive.num_keypoints, drive.names)
    done = retarget_pose(
        drive,
        read_pose(args.target),
        skeleton=skeleton,
        root=args.root,
        place=args.place,
        scale=args.scale,
        offset=tuple(args.offset),
    )
    _write_text(args.output, done.to_json())
    print(f"{len(done)} figures, {done.num_keypoints} points each: {args.output}")


def export(args: argparse.Namespace) -> None:
    """Write a ControlNet data set."""
    from ..controlnet.dataset import ExportSettings, export_controlnet_dataset, read_captions
    from ..pose.fitting import LandmarkMap
    from .bars import Bars

    settings = ExportSettings(**{item.name: getattr(args, item.name) for item in fields(ExportSettings)})
    points = Keypoints.load(args.keypoints)
    if args.landmarks:
        points = LandmarkMap.load(args.landmarks).apply(points)
    names = list(dict.fromkeys(points.images))
    with Bars() as bars:
        done = export_controlnet_dataset(
            _images(args.images, names),
            points,
            args.output,
            settings,
            captions=read_captions(args.captions) if args.captions else None,
            caption=args.caption,
            overwrite=args.overwrite,
            on_progress=bars,
        )
    print(done.report())


def _images(folder: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The named images of a folder one after the other; those that cannot be read are named and left out."""
    from ..images.files import BrokenImage, load_image

    missing = [name for name in names if not name or not (folder / name).is_file()]
    if missing:
        raise KeypointError(
            f"{folder / missing[0]} is named by the keypoints but is not there; give the folder the keypoints "
            "were found on."
        )
    for name in names:
        try:
            image = load_image(folder / name)
        except BrokenImage as error:
            print(f"skipped {name}: {error.reason}", file=sys.stderr)
        else:
            yield name, image


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # an edit can be longer than a file name may be
        return False


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (text + "\n").encode())
