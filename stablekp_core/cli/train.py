"""The command `train`: learn tokens from a folder of images."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from .arguments import add_config, add_masks, add_model, add_preset, config_from, path, whole
from .outputs import Output, check_outputs, save_image


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("train", help="learn keypoints from a folder of images of one kind of thing")
    p.add_argument("images", type=path, help="folder of images (jpg, png, webp, bmp, tiff)")
    p.add_argument("tokens_file", type=path, metavar="TOKENS", help="the .safetensors file to write")
    add_model(p)
    add_preset(p)
    p.add_argument(
        "--from", dest="start", type=path, metavar="TOKENS", help="tokens to begin from instead of random ones"
    )
    p.add_argument("--limit", type=whole(1), help="use at most this many images")
    add_masks(p)
    p.add_argument(
        "--checkpoint-every", type=whole(1), default=100, metavar="STEPS", help="write the run's state (100)"
    )
    p.add_argument("--resume", action="store_true", help="go on with TOKENS.checkpoint if it is there")
    add_config(p, TrainConfig, "training")
    return p


def run(args: argparse.Namespace) -> None:
    """Learn tokens; write them, an image of the loss and a contact sheet beside them. Of several processes
    that `accelerate launch` started only the first one prints and writes."""
    from ..training.distributed import process_group

    if args.tokens_file.suffix.lower() != ".safetensors":
        raise KeypointError(
            f"{args.tokens_file.name} is not a .safetensors name; tokens are written as .safetensors only."
        )
    config = config_from(args, TrainConfig)
    stem = args.tokens_file.with_suffix("")
    if args.images.is_dir() and stem.resolve().parent == args.images.resolve():
        raise KeypointError(
            f"{args.tokens_file} lies in the folder of images, where the loss plot and the contact sheet that go "
            "beside it would count as images the next time; give TOKENS another folder."
        )
    check_outputs(
        [Output(args.tokens_file, "tokens"), *(Output(image, "image") for image in _images_beside(stem))],
        [args.images, args.start, args.masks, args.model],
    )
    with process_group(args.device) as (ranks, device):
        _train(args, config, ranks, device)


def _images_beside(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(stem.name + "_loss.png"), stem.with_name(stem.name + "_keypoints.jpg")


def _train(args: argparse.Namespace, config: TrainConfig, ranks, device: str) -> None:
    from ..backbone.loading import load_backbone
    from ..images.image_set import load_folder
    from ..images.masks import folder_masks
    from ..keypoints.self_check import report
    from ..keypoints.tokens import KeypointTokens
    from ..training.train import StepInfo, train
    from ..training.trainer import TrainingDiverged
    from .bars import Bars
    from .reading import skipped

    path, state = args.tokens_file, args.tokens_file.with_suffix(".checkpoint")
    if ranks.of_first(state.exists()) and not args.resume:
        raise KeypointError(f"{state} holds an interrupted run; go on with --resume, or delete it to start afresh.")
    images = load_folder(args.images, limit=args.limit, on_skip=skipped if ranks.first else None)
    masks = folder_masks(args.masks, images.names) if args.masks else None
    start = KeypointTokens.load(args.start) if args.start else None
    path.parent.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(args.model, args.dtype, device, args.compile, args.recompute)
    with ranks.first_copy(state) as checkpoint, Bars(ranks.first) as bars:

        def show(info: StepInfo) -> None:
            if info.step % 10 == 0 or info.step == info.steps:
                bars.note(loss=f"{info.loss:.4f}")

        try:
            result = train(
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
    loss = f"\nloss: {_images_beside(path.with_suffix(''))[0]}" if result.losses else ""
    print(f"tokens: {path}{loss}\nkeypoints: {_images_beside(path.with_suffix(''))[1]}")
    if len(result.losses) < config.steps:
        print(f"training ended after {len(result.losses)} of at most {config.steps} steps: more brought nothing")
    if result.tokens.check is not None:
        print(report(result.tokens.check, result.tokens.config))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def write_training_images(backbone, result, images, stem: Path, masks=None, on_progress=None) -> None:
    """`stem`_loss.png and `stem`_keypoints.jpg, a contact sheet of up to 16 images, those left out if there are any."""
    from ..detection.detector import detect
    from ..drawing.plots import loss_plot

    loss, sheet = _images_beside(stem)
    if result.losses:
        names = ("loss", "localization", "equivariance")
        save_image(loss, loss_plot({n: [row[i] for row in result.losses] for i, n in enumerate(names)}))
    check = result.tokens.check
    left_out = check.indices(images.names) if check is not None else []
    some = list(islice(images.pick(left_out) if left_out else images, 16))
    settings = DetectConfig(views=2)
    found = detect(backbone, result.tokens, some, settings, masks=masks, on_progress=on_progress).keypoints
    heading = check.heading(left_out) if check is not None else ""
    save_image(sheet, found.contact_sheet([image for _, image in some], heading=heading))
