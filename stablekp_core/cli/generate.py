"""The command `generate`: generate images in the pose of given keypoints."""

from __future__ import annotations

import argparse

from ..config import GuideConfig
from .arguments import add_category, add_config, add_model, config_from, number, path, whole
from .outputs import Output, check_outputs, save_image, write_text


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser("generate", help="generate images in the pose of given keypoints")
    p.add_argument("output", type=path, help="folder for the images")
    p.add_argument("--prompt", required=True, help="what to draw; for the demo model such as 'a doll with red head'")
    p.add_argument("--negative", default="", help="what to avoid")
    p.add_argument("--pose", type=path, help="COCO keypoint JSON from detect; an image for each of its rows")
    add_category(p, "poses")
    p.add_argument("--guidance", type=path, help="the file that fit-guidance wrote")
    p.add_argument("--points", default="", help="keypoints that guide, such as '0, 3, nose'; others stay free (all)")
    p.add_argument("--tokens", dest="tokens_file", type=path, help="detect on the result, and print the error")
    p.add_argument("--text", type=path, help="folder with text_encoder and tokenizer (the model's, or the file's)")
    p.add_argument("--count", type=whole(1), default=1, help="images for each pose (1)")
    p.add_argument("--seed", type=whole(0), default=0, help="of the noise (0)")
    p.add_argument(
        "--same-noise", action="store_true", help="the same noise for every pose: only the pose differs, for animation"
    )
    p.add_argument("--steps", type=whole(1), default=30, help="sampling steps (30)")
    p.add_argument("--prompt-weight", type=number(), default=7.5, help="classifier-free guidance, 1 = none (7.5)")
    p.add_argument("--width", type=whole(0), default=0, help="pixels; 0 = what the model was made for (0)")
    p.add_argument("--height", type=whole(0), default=0, help="pixels; 0 = what the model was made for (0)")
    add_model(p)
    add_config(p, GuideConfig, "guidance")
    return p


def run(args: argparse.Namespace) -> None:
    """Generate images in a pose; where tokens are given, detect on them and print how far they are from it."""
    found_file, sheet_file = args.output / "keypoints.json", args.output / "sheet.jpg"
    check_outputs(
        [Output(args.output, "folder"), Output(found_file, "JSON"), Output(sheet_file, "image")],
        [args.pose, args.guidance, args.tokens_file, args.model],
    )
    from ..backbone.loading import load_backbone
    from ..detection.detector import detect
    from ..guidance.generation import generate, open_generator
    from ..guidance.readers import KeypointGuidance
    from ..guidance.targets import pose_error, pose_targets
    from ..images.image_set import ImageSet
    from ..keypoints.keypoints import Keypoints
    from ..keypoints.tokens import KeypointTokens
    from .bars import Bars

    config = config_from(args, GuideConfig)
    pose = Keypoints.load(args.pose, args.category) if args.pose else None
    guidance = KeypointGuidance.load(args.guidance) if args.guidance else None
    tokens = KeypointTokens.load(args.tokens_file) if args.tokens_file else None
    if tokens is not None and guidance is not None:
        guidance.check_tokens(tokens.digest)
    if pose is not None and guidance is not None:
        pose_targets(pose, guidance, 1, 1, args.points)  # what is wrong with the pose is said before a model is loaded
    backbone = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute)
    generator = open_generator(backbone, args.model, args.text)
    with Bars() as bars:
        images = generate(
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
    for name, image in zip(names, images, strict=True):
        save_image(args.output / name, image)
    print(f"{len(images)} images: {args.output}")
    if tokens is None:
        return
    found = detect(backbone, tokens, ImageSet.from_arrays(images, names)).keypoints
    write_text(found_file, found.to_json())
    save_image(sheet_file, found.contact_sheet(images))
    print(f"keypoints: {found_file}\nsheet: {sheet_file}")
    if pose is not None:
        asked = pose.rows([row for row in range(len(pose)) for _ in range(args.count)])
        print(pose_error(found, asked, args.points).report())
