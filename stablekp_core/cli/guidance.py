"""The commands fit-guidance and generate."""

from __future__ import annotations

import argparse

from ..backbone.loading import load_backbone
from ..config import GuideConfig
from ..detection.detector import detect
from ..files import write_atomically
from ..guidance.fitting import fit_guidance
from ..guidance.generation import generate as generate_images
from ..guidance.generation import open_generator
from ..guidance.readers import KeypointGuidance
from ..guidance.targets import pose_error
from ..images.image_set import ImageSet, load_folder
from ..keypoints.keypoints import Keypoints
from ..keypoints.tokens import KeypointTokens
from .bars import Bars
from .commands import save_image, sheet
from .options import config_from


def fit(args: argparse.Namespace) -> None:
    """Fit keypoint readers, write them, print how well they read at each timestep."""
    tokens, images = KeypointTokens.load(args.tokens_file), load_folder(args.images, limit=args.limit)
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    with Bars() as bars:
        guidance = fit_guidance(backbone, tokens, images, seed=args.seed, on_progress=bars)
    print(f"{guidance.report()}\nguidance: {guidance.save(args.output)}")


def generate(args: argparse.Namespace) -> None:
    """Generate images in a pose; where tokens are given, detect on them and print how far they are from it."""
    config = config_from(args, GuideConfig)
    pose = Keypoints.load(args.pose) if args.pose else None
    guidance = KeypointGuidance.load(args.guidance) if args.guidance else None
    tokens = KeypointTokens.load(args.tokens_file) if args.tokens_file else None
    if tokens is not None and guidance is not None:
        guidance.check_tokens(tokens.digest)
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    generator = open_generator(backbone, args.model, args.text)
    with Bars() as bars:
        images = generate_images(
            generator,
            args.prompt,
            pose,
            guidance,
            count=args.count,
            seed=args.seed,
            same_noise=args.same_noise,
            negative=args.negative,
            steps=args.steps,
            prompt_weight=args.prompt_weight,
            width=args.width,
            height=args.height,
            points=args.points,
            config=config,
            on_progress=bars,
        )
    names = [f"{i:05d}.png" for i in range(len(images))]
    args.output.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        save_image(args.output / name, image)
    print(f"{len(images)} images: {args.output}")
    if tokens is None:
        return
    found = detect(backbone, tokens, ImageSet.from_arrays(images, names)).keypoints
    write_atomically(args.output / "keypoints.json", (found.to_json() + "\n").encode())
    save_image(args.output / "sheet.jpg", sheet(images, found))
    print(f"keypoints: {args.output / 'keypoints.json'}\nsheet: {args.output / 'sheet.jpg'}")
    if pose is not None:
        asked = pose.rows([row for row in range(len(pose)) for _ in range(args.count)])
        print(pose_error(found, asked, args.points).report())
