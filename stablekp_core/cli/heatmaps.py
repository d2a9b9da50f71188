"""The command `heatmaps`: show the attention maps behind the keypoints of one image."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import DetectConfig
from .arguments import add_config, add_model, add_preset, config_from, path, whole
from .outputs import Output, check_outputs, save_image


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("heatmaps", help="show the attention maps behind the keypoints of one image (Fig. 2)")
    p.add_argument("image", type=path)
    p.add_argument("--tokens", dest="tokens_file", type=path, required=True)
    p.add_argument("--output", type=path, default=Path("heatmaps.png"))
    p.add_argument("--which", type=whole(0), nargs="+", metavar="K", help="these keypoints only")
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    return p


def run(args: argparse.Namespace) -> None:
    """Draw the averaged maps of some keypoints over one image."""
    check_outputs([Output(args.output, "image")], [args.image, args.tokens_file, args.model])
    from ..backbone.loading import load_backbone
    from ..detection.detector import Detector, maps_on_image
    from ..drawing import sheets
    from ..images.files import load_image
    from ..keypoints.tokens import KeypointTokens

    tokens, image = KeypointTokens.load(args.tokens_file), load_image(args.image)
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    detector = Detector(backbone, tokens, config_from(args, DetectConfig))
    (found,) = detector.stream([("", image)], keep_maps=True)
    maps = maps_on_image(found.maps[0], detector.model_input(image)[1]).numpy()
    save_image(args.output, sheets.heat_maps(image, maps, args.which, xy=found.keypoints.xy[0]))
    print(args.output)
