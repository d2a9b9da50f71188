"""What the commands do: read arguments and files, call the core, write files, say what was written."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..backbone.loading import load_backbone
from ..config import DetectConfig, TrainConfig
from ..detection.detector import Detector, maps_on_image
from ..detection.detector import detect as detect_keypoints
from ..drawing import overlay, plots, sheets
from ..errors import KeypointError
from ..files import write_atomically
from ..images.files import BrokenImage, list_images, load_image
from ..images.image_set import ImageSet, load_files, load_folder
from ..images.masks import Masks, folder_masks
from ..keypoints.keypoints import Keypoints
from ..keypoints.tokens import KeypointTokens
from ..progress import DRAWING, Progress, counted
from ..training.distributed import Ranks, process_group
from ..training.train import StepInfo
from ..training.train import train as train_tokens
from ..training.trainer import TrainingDiverged
from .bars import Bars
from .options import config_from


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _skipped(name: str, reason: str) -> None:
    _say(f"skipped {name}: {reason}")


def check_image_name(path: Path) -> None:
    """Raise KeypointError unless images can be written under this name."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise KeypointError(f"{path.name} does not say what kind of image to write; end it in .png or .jpg.")


def save_image(path: Path, image) -> None:
    """Write uint8 RGB [H, W, 3]; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def train(args: argparse.Namespace) -> None:
    """Learn tokens; write them, an image of the loss and a contact sheet beside them. Of several processes
    that `accelerate launch` started only the first one prints and writes."""
    if args.tokens_file.suffix.lower() != ".safetensors":
        raise KeypointError(
            f"{args.tokens_file.name} is not a .safetensors name; tokens are written as .safetensors only."
        )
    if args.checkpoint_every < 1:
        raise KeypointError(f"--checkpoint-every is {args.checkpoint_every}, but it must be at least 1 step.")
    with process_group(args.device) as (ranks, device):
        _train(args, config_from(args, TrainConfig), ranks, device)


def _train(args: argparse.Namespace, config: TrainConfig, ranks: Ranks, device: str) -> None:
    path, state = args.tokens_file, args.tokens_file.with_suffix(".checkpoint")
    if state.exists() and not args.resume:
        raise KeypointError(f"{state} holds an interrupted run; go on with --resume, or delete it to start afresh.")
    images = load_folder(args.images, limit=args.limit, on_skip=_skipped if ranks.first else None)
    masks = folder_masks(args.masks, images.names) if args.masks else None
    start = KeypointTokens.load(args.start) if args.start else None
    path.parent.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(args.model, args.dtype, device, args.compile, args.recompute)
    with ranks.first_copy(state) as checkpoint, Bars(ranks.first) as bars:

        def show(info: StepInfo) -> None:
            if info.step % 10 == 0 or info.step == info.steps:
                bars.note(loss=f"{info.loss:.4f}")

        try:
            result = train_tokens(
                backbone,
                images,
                config,
                start=start,
                on_step=show,
                on_progress=bars,
                checkpoint=checkpoint,
                checkpoint_every=args.checkpoint_every,
                resume=args.resume,
                notice=_say,
                masks=masks,
            )
        except KeyboardInterrupt:
            bars.close()
            if ranks.first and state.exists():
                _say(f"Stopped; what was learned is in {state}. Go on with --resume.")
            raise
        except TrainingDiverged as error:
            if error.tokens is not None and ranks.first:
                error.tokens.save(path)
            raise
    if not ranks.first:
        return
    result.tokens.save(path)
    state.unlink(missing_ok=True)
    with Bars() as bars:
        write_training_images(backbone, result, images, path.with_suffix(""), masks, bars)
    loss = f"\nloss: {path.with_suffix('')}_loss.png" if result.losses else ""
    print(f"tokens: {path}{loss}\nkeypoints: {path.with_suffix('')}_keypoints.jpg")


def write_training_images(
    backbone, result, images: ImageSet, stem: Path, masks: Masks | None = None, on_progress: Progress | None = None
) -> None:
    """`stem`_loss.png and `stem`_keypoints.jpg, a contact sheet of up to 16 training images."""
    if result.losses:
        names = ("loss", "localization", "equivariance")
        save_image(
            stem.with_name(stem.name + "_loss.png"),
            plots.loss_plot({n: [row[i] for row in result.losses] for i, n in enumerate(names)}),
        )
    some = []
    for item in images:
        some.append(item)
        if len(some) == 16:
            break
    look = DetectConfig(views=2)
    found = detect_keypoints(backbone, result.tokens, some, look, masks=masks, on_progress=on_progress).keypoints
    save_image(stem.with_name(stem.name + "_keypoints.jpg"), sheet([image for _, image in some], found))


def sheet(images: list, found: Keypoints, **options):
    """A contact sheet of images with their keypoints."""
    return sheets.contact_sheet(images, list(found.xy), list(found.confidence), skeleton=found.skeleton, **options)


def _open_images(paths: list[Path]) -> ImageSet:
    if len(paths) == 1 and paths[0].is_dir():
        return load_folder(paths[0], on_skip=_skipped)
    files = [file for path in paths for file in (list_images(path) if path.is_dir() else [path])]
    name, times = Counter(file.name for file in files).most_common(1)[0] if files else ("", 0)
    if times > 1:
        raise KeypointError(
            f"{times} images are named {name}, and keypoints are kept by name; detect one folder at a time."
        )
    return load_files(files, on_skip=_skipped)


def detect(args: argparse.Namespace) -> None:
    """Find keypoints on images and write them."""
    config, tokens = config_from(args, DetectConfig), KeypointTokens.load(args.tokens_file)
    images = _open_images(args.images)
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    with Bars() as bars:
        found = detect_keypoints(
            backbone,
            tokens,
            images,
            config,
            on_progress=bars,
            masks=folder_masks(args.masks, images.names) if args.masks else None,
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output, (found.keypoints.to_json() + "\n").encode())
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.csv, found.keypoints.to_csv().encode())
    print(f"{len(found.keypoints)} images, {found.keypoints.num_keypoints} keypoints each: {args.output}")


def draw(args: argparse.Namespace) -> None:
    """Draw a COCO keypoint file over its images."""
    found = Keypoints.load(args.keypoints)
    files = [args.images / name for name in found.images]
    missing = [f for f in files if not f.is_file()]
    if missing:
        raise KeypointError(
            f"{missing[0]} is named by {args.keypoints.name} but is not there; give the folder the "
            "keypoints were found on."
        )
    how = dict(
        dots=args.dots,
        numbers=args.numbers,
        lines=args.lines,
        threshold=args.threshold,
        width=args.width,
        which=args.which,
        skeleton=found.skeleton,
        colors=found.colors,
    )
    rows_of: dict[Path, list[int]] = {}  # an image with several instances has several rows
    for row, file in enumerate(files):
        rows_of.setdefault(file, []).append(row)
    if any(file.resolve().parent == args.output.resolve() for file in rows_of):
        raise KeypointError(f"{args.output} holds the images themselves; give another folder for the drawn ones.")
    if args.sheet:
        with Bars() as bars:
            images = counted(_readable(rows_of), DRAWING, bars, len(rows_of))
            cells = [(row, image) for file, image in images for row in rows_of[file]]
        found, path = found.rows([row for row, _ in cells]), args.output / "sheet.jpg"
        save_image(path, sheets.contact_sheet([p for _, p in cells], list(found.xy), list(found.confidence), **how))
        print(path)
        return
    stems, count = Counter(file.stem for file in rows_of), 0
    with Bars() as bars:
        for file, image in counted(_readable(rows_of), DRAWING, bars, len(rows_of)):
            canvas, count = args.canvas, count + 1
            for row in rows_of[file]:
                occluded = found.is_occluded[row] if args.canvas == "image" else None
                image = overlay.draw_keypoints(
                    image, found.xy[row], found.confidence[row], canvas=canvas, occluded=occluded, **how
                )
                canvas = "image"  # the next instance goes over this one
            name = file.stem if stems[file.stem] == 1 else file.name  # a.jpg beside a.png
            save_image(args.output / f"{name}.png", image)
    print(f"{count} images: {args.output}")


def _readable(files: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Each file and its image; broken ones are named and left out. Raises KeypointError when all are broken."""
    read = 0
    for file in files:
        try:
            image = load_image(file)
        except BrokenImage as error:
            _skipped(file.name, error.reason)
            continue
        read += 1
        yield file, image
    if not read:
        raise KeypointError("None of the images can be read; give the folder the keypoints were found on.")


def heatmaps(args: argparse.Namespace) -> None:
    """Draw the averaged maps of some keypoints over one image."""
    check_image_name(args.output)
    tokens, images = KeypointTokens.load(args.tokens_file), load_files([args.image])
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    detector, image = Detector(backbone, tokens, config_from(args, DetectConfig)), images[0]
    (found,) = detector.stream([("", image)], keep_maps=True)
    maps = maps_on_image(found.maps[0], detector.model_input(image)[1]).numpy()
    save_image(args.output, sheets.heat_maps(image, maps, args.which, xy=found.keypoints.xy[0]))
    print(args.output)


def info(args: argparse.Namespace) -> None:
    """Print what a tokens file or a model is."""
    path = Path(args.file)
    try:
        tokens = KeypointTokens.load(path) if path.is_file() else None
    except KeypointError:
        tokens = None  # no tokens file: a model then, or an error that says what it is
    if tokens is None:
        from ..backbone.checkpoint import load_model

        model = load_model(args.file)
        count = sum(p.numel() for p in model.unet.parameters())
        print(
            f"model: {model.name}\nUNet parameters: {count / 1e6:.1f} M, {model.dtype}\n"
            f"token width: {model.unet.config.cross_attention_dim}\nhash: {model.hash}"
        )
        return
    print(
        f"tokens: {len(tokens.embeddings)} of width {tokens.width}, {tokens.num_keypoints} chosen\n"
        f"model: {tokens.model_name} {tokens.model_hash[:16]}\nnames: {', '.join(tokens.names)}\n"
        f"chosen: {list(tokens.chosen)}\nskeleton: {list(tokens.skeleton)}\nconfig: {json.dumps(tokens.config)}"
    )
