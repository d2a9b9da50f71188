"""The command `fit-guidance`: learn to read keypoints in noise, so that they can guide sampling."""

from __future__ import annotations

import argparse

from .arguments import add_model, path, whole
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("fit-guidance", help="learn to read keypoints in noise, so that they can guide sampling")
    p.add_argument("images", type=path, help="folder of images of the kind the tokens were trained on; no labels")
    p.add_argument("output", type=path, help="the .guidance.safetensors file to write")
    p.add_argument("--tokens", dest="tokens_file", type=path, required=True, help="the file that train wrote")
    p.add_argument("--limit", type=whole(1), help="use at most this many images")
    p.add_argument("--seed", type=whole(0), default=0, help="of the noise (0)")
    add_model(p)
    return p


def run(args: argparse.Namespace) -> None:
    """Fit keypoint readers, write them, print how well they read at each timestep."""
    check_outputs([Output(args.output, "guidance")], [args.images, args.tokens_file, args.model])
    from ..backbone.loading import load_backbone
    from ..guidance.fitting import fit_guidance
    from ..images.image_set import load_folder
    from ..keypoints.tokens import KeypointTokens
    from .bars import Bars
    from .reading import skipped

    tokens = KeypointTokens.load(args.tokens_file)
    images = load_folder(args.images, limit=args.limit, on_skip=skipped)
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    with Bars() as bars:
        guidance = fit_guidance(backbone, tokens, images, seed=args.seed, on_progress=bars)
    print(f"{guidance.report()}\nguidance: {guidance.save(args.output)}")
