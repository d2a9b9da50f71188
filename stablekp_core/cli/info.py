"""The command `info`: what is in a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import KeypointError
from .outputs import format_of


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("info", help="what is in a tokens file, or what a model file is")
    p.add_argument(
        "file", help="a tokens file, a landmark map, keypoint JSON, an image, a checkpoint, a diffusers folder, or demo"
    )
    return p


def run(args: argparse.Namespace) -> None:
    """Print what a file is."""
    path = Path(args.file)
    if path.is_file():
        for kind in (_image, _keypoints, _tokens, _landmark_map, _guidance):
            text = kind(path)
            if text:
                print(text)
                return
    print(_model(args.file))


def _image(path: Path) -> str:
    from ..images.files import BrokenImage, image_size, is_image_name

    if not is_image_name(path):
        return ""
    try:
        width, height = image_size(path)
    except BrokenImage as error:
        raise KeypointError(
            f"{path.name} is named like an image, but cannot be read as one ({error.reason})."
        ) from error
    return f"image: {width}x{height} pixels"


def _keypoints(path: Path) -> str:
    if path.suffix.lower() != ".json":
        return ""
    from ..pose.reading import read_pose

    try:
        found = read_pose(path)
    except KeypointError as error:
        raise KeypointError(f"{path.name} is JSON, but holds no keypoints ({error}).") from error
    figures = f"{len(found)} figures on {found.num_images} images, {found.num_keypoints} keypoints each"
    return f"keypoints: {figures}\nnames: {', '.join(found.names)}\nskeleton: {list(found.skeleton)}"


def _tokens(path: Path) -> str:
    if format_of(path) != "stable-keypoints-tokens":
        return ""
    from ..keypoints.self_check import report
    from ..keypoints.tokens import KeypointTokens

    tokens = KeypointTokens.load(path)
    check = f"\n{report(tokens.check, tokens.config)}" if tokens.check is not None else ""
    return (
        f"tokens: {len(tokens.embeddings)} of width {tokens.width}, {tokens.num_keypoints} chosen\n"
        f"model: {tokens.model_name} {tokens.model_hash[:16]}\nnames: {', '.join(tokens.names)}\n"
        f"chosen: {list(tokens.chosen)}\nskeleton: {list(tokens.skeleton)}\nconfig: {json.dumps(tokens.config)}{check}"
    )


def _landmark_map(path: Path) -> str:
    if format_of(path) != "stable-keypoints-landmark-map":
        return ""
    from ..pose.landmark_map import LandmarkMap

    landmarks = LandmarkMap.load(path)
    return f"landmark map of keypoints {', '.join(landmarks.keypoints)}\n{landmarks.report()}"


def _guidance(path: Path) -> str:
    if format_of(path) != "stable-keypoints-guidance":
        return ""
    from ..guidance.readers import KeypointGuidance

    return f"guidance\n{KeypointGuidance.load(path).report()}"


def _model(name: str) -> str:
    from ..backbone.checkpoint import load_model

    model = load_model(name)
    count = sum(p.numel() for p in model.unet.parameters())
    return (
        f"model: {model.name}\nUNet parameters: {count / 1e6:.1f} M, {model.dtype}\n"
        f"token width: {model.unet.config.cross_attention_dim}\nhash: {model.hash}"
    )
