"""The command line: arguments, one-line errors, exit codes (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from .guidance_parsers import GUIDANCE_PARSERS
from .options import add_config, add_masks, add_model, add_preset
from .pose_parsers import POSE_PARSERS

_PROG = "python -m stablekp_core"
_NO_TORCH = "PyTorch is not installed; install it with pip install torch, or as pytorch.org says for your GPU."


def _train_parser(commands) -> None:
    p = commands.add_parser("train", help="learn keypoints from a folder of images of one kind of thing")
    p.add_argument("images", type=Path, help="folder of images (jpg, png, webp, bmp, tiff)")
    p.add_argument("tokens_file", type=Path, metavar="TOKENS", help="the .safetensors file to write")
    add_model(p)
    add_preset(p)
    p.add_argument(
        "--from", dest="start", type=Path, metavar="TOKENS", help="tokens to begin from instead of random ones"
    )
    p.add_argument("--limit", type=int, help="use at most this many images")
    add_masks(p)
    p.add_argument("--checkpoint-every", type=int, default=100, metavar="STEPS", help="write the run's state (100)")
    p.add_argument("--resume", action="store_true", help="go on with TOKENS.checkpoint if it is there")
    add_config(p, TrainConfig, "training")
    p.set_defaults(run="commands:train")


def _detect_parser(commands) -> None:
    p = commands.add_parser("detect", help="find learned keypoints on images")
    p.add_argument("images", type=Path, nargs="+", help="folders or image files")
    p.add_argument("--tokens", dest="tokens_file", type=Path, required=True, help="the file that train wrote")
    p.add_argument(
        "--output",
        type=Path,
        default=Path("keypoints.json"),
        help="COCO keypoint JSON; coordinates in pixels of the original images (keypoints.json)",
    )
    p.add_argument("--csv", type=Path, help="also write a table")
    add_masks(p)
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    p.set_defaults(run="commands:detect")


def _evaluate_parser(commands) -> None:
    from ..evaluation.datasets import DATASETS

    p = commands.add_parser("evaluate", help="run a protocol of the paper on a data set and report its metrics")
    p.add_argument(
        "--dataset",
        required=True,
        choices=DATASETS,
        help="dolls and faces are built in; folder = your own "
        "images in ROOT/train and ROOT/test, each with COCO keypoints in one .json file",
    )
    p.add_argument("--root", type=Path, help="folder with the data set's files as they are distributed")
    p.add_argument(
        "--tokens", dest="tokens_file", type=Path, metavar="TOKENS", help="tokens to use instead of training"
    )
    p.add_argument(
        "--transfer", metavar="FROM", help="use tokens of other images (Table 5): a tokens file, or a data set"
    )
    p.add_argument("--transfer-root", type=Path, help="folder with the files of the data set given as FROM")
    p.add_argument("--ablate", action="store_true", help="the five rows of Table 4, each trained on its own")
    p.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics by name (the paper's for the data set)")
    p.add_argument(
        "--cache",
        type=Path,
        default=Path("evaluation_cache"),
        help="folder for finished stages; a stopped run goes on from there (evaluation_cache)",
    )
    p.add_argument(
        "--output",
        type=Path,
        default=Path("evaluation.json"),
        help="the result; the table goes beside it as .txt (evaluation.json)",
    )
    p.add_argument("--limit", type=int, metavar="N", help="at most N images of each split, for a quick run")
    for split in ("train", "regression", "test"):
        p.add_argument(f"--limit-{split}", type=int, metavar="N", help=f"at most N images of the {split} split")
    p.add_argument("--workers", type=int, default=1, help="processes for detection; more than 1 needs Ray (1)")
    p.add_argument("--data-seed", type=int, default=0, help="of the crops that are part of some protocols (0)")
    add_model(p)
    add_preset(p)
    p.add_argument("--num-tokens", dest="tokens", type=int, metavar="N", help="learned tokens (500)")
    add_config(p, TrainConfig, "training; without --keypoints and --steps the paper's are used", skip=("tokens",))
    add_config(p, DetectConfig, "detection", skip=("map_size", "batch_size", "seed"))
    p.set_defaults(run="evaluate:run")


def _scale_parser(commands) -> None:
    p = commands.add_parser(
        "detect-dataset", help="find keypoints on very many images, with several processes or machines"
    )
    p.add_argument(
        "input",
        help="a folder, file or pattern (*) of images, .tar shards or .parquet files; a path, "
        "or a URL such as s3://bucket/shards/*.tar",
    )
    p.add_argument(
        "output", help="folder for the Parquet parts, a path or URL; started again, what is there is not made again"
    )
    p.add_argument("--tokens", dest="tokens_file", type=Path, required=True, help="the file that train wrote")
    p.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes, each with the model in memory; 0 = as many as the GPUs or cores allow (0)",
    )
    p.add_argument("--cpus", type=float, default=1, help="cores, and threads, of each worker (1)")
    p.add_argument("--gpus", type=float, help="share of a GPU for each worker, such as 0.5 (1 where there are GPUs)")
    p.add_argument("--address", help="of a running Ray cluster, or auto (this machine alone)")
    p.add_argument("--part-rows", type=int, default=500, help="images per part; tar shards stay whole (500)")
    p.add_argument("--column", help="Parquet column with images, as bytes or paths (known by its usual names)")
    p.add_argument("--id-column", help="Parquet column with the images' ids (the path, or FILE#ROW)")
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    p.set_defaults(run="detect_dataset:run")


def _draw_parser(commands) -> None:
    p = commands.add_parser("draw", help="draw detected keypoints")
    p.add_argument("images", type=Path, help="the folder the keypoints were found on")
    p.add_argument("keypoints", type=Path, help="COCO keypoint JSON from detect")
    p.add_argument("output", type=Path, help="folder for the images")
    p.add_argument("--canvas", choices=("image", "black", "white"), default="image", help="what to draw on (image)")
    p.add_argument("--sheet", action="store_true", help="one contact sheet instead of an image each")
    for name, text in (("dots", "dots"), ("numbers", "keypoint numbers"), ("lines", "skeleton lines")):
        p.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=f"draw {text} (yes)")
    p.add_argument("--threshold", type=float, default=0.0, help="hide points below this confidence, 0 to 1 (0)")
    p.add_argument("--width", type=float, help="line width in pixels (scales with the image)")
    p.add_argument("--which", type=int, nargs="+", metavar="K", help="draw these keypoints only, counted from 0")
    p.set_defaults(run="commands:draw")


def _heat_parser(commands) -> None:
    p = commands.add_parser("heatmaps", help="show the attention maps behind the keypoints of one image (Fig. 2)")
    p.add_argument("image", type=Path)
    p.add_argument("--tokens", dest="tokens_file", type=Path, required=True)
    p.add_argument("--output", type=Path, default=Path("heatmaps.png"))
    p.add_argument("--which", type=int, nargs="+", metavar="K", help="these keypoints only")
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    p.set_defaults(run="commands:heatmaps")


def _info_parser(commands) -> None:
    p = commands.add_parser("info", help="what is in a tokens file, or what a model file is")
    p.add_argument("file", help="a tokens file, a checkpoint, a diffusers folder, or demo")
    p.set_defaults(run="commands:info")


def _demo_parser(commands) -> None:
    p = commands.add_parser("demo", help="train, detect and draw with the built-in model and images")
    p.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for images and report.json")
    p.add_argument("--steps", type=int, help="training steps per class")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quick", action="store_true", help="a quarter of the images: does everything run?")
    p.add_argument("--compare", action="store_true", help="measure untrained tokens and a second class (faces) too")
    p.set_defaults(run="demo:run")


_PARSERS = [
    _train_parser,
    _detect_parser,
    _scale_parser,
    _evaluate_parser,
    _draw_parser,
    _heat_parser,
    _info_parser,
    _demo_parser,
]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; nothing heavy is imported."""
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Keypoints of any kind of object, learned without labels from a frozen Stable Diffusion 1.5.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (*_PARSERS, *POSE_PARSERS, *GUIDANCE_PARSERS):
        add(commands)
    for sub in commands.choices.values():
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _print_anything() -> None:
    """Let names that the console's encoding lacks be printed as escapes (a Windows console or pipe is often cp1252)
    instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _print_anything()
    args = build_parser().parse_args(argv)
    module, function = args.run.split(":")
    try:
        getattr(importlib.import_module(f".{module}", __package__), function)(args)
        return 0
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("Stopped.", file=sys.stderr)
        return 130
    except (KeypointError, OSError) as error:
        if args.debug:
            raise
        print(f"{_PROG} {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if args.debug or error.name != "torch":
            raise
        print(f"{_PROG} {args.command}: {_NO_TORCH}", file=sys.stderr)
        return 1
