"""Arguments of the commands that generate images in a pose; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from ..config import GuideConfig
from .options import add_config, add_model


def _fit_parser(commands) -> None:
    p = commands.add_parser("fit-guidance", help="learn to read keypoints in noise, so that they can guide sampling")
    p.add_argument("images", type=Path, help="folder of images of the kind the tokens were trained on; no labels")
    p.add_argument("output", type=Path, help="the .guidance.safetensors file to write")
    p.add_argument("--tokens", dest="tokens_file", type=Path, required=True, help="the file that train wrote")
    p.add_argument("--limit", type=int, help="use at most this many images")
    p.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    add_model(p)
    p.set_defaults(run="guidance:fit")


def _generate_parser(commands) -> None:
    p = commands.add_parser("generate", help="generate images in the pose of given keypoints")
    p.add_argument("output", type=Path, help="folder for the images")
    p.add_argument("--prompt", required=True, help="what to draw; for the demo model such as 'a doll with red head'")
    p.add_argument("--negative", default="", help="what to avoid")
    p.add_argument("--pose", type=Path, help="COCO keypoint JSON from detect; an image for each of its rows")
    p.add_argument("--guidance", type=Path, help="the file that fit-guidance wrote")
    p.add_argument("--points", default="", help="keypoints that guide, such as '0, 3, nose'; others stay free (all)")
    p.add_argument("--tokens", dest="tokens_file", type=Path, help="detect on the result, and print the error")
    p.add_argument("--text", type=Path, help="folder with text_encoder and tokenizer (the model's, or the file's)")
    p.add_argument("--count", type=int, default=1, help="images for each pose (1)")
    p.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    p.add_argument(
        "--same-noise", action="store_true", help="the same noise for every pose: only the pose differs, for animation"
    )
    p.add_argument("--steps", type=int, default=30, help="sampling steps (30)")
    p.add_argument("--prompt-weight", type=float, default=7.5, help="classifier-free guidance, 1 = none (7.5)")
    p.add_argument("--width", type=int, default=0, help="pixels; 0 = what the model was made for (0)")
    p.add_argument("--height", type=int, default=0, help="pixels; 0 = what the model was made for (0)")
    add_model(p)
    add_config(p, GuideConfig, "guidance")
    p.set_defaults(run="guidance:generate")


GUIDANCE_PARSERS = [_fit_parser, _generate_parser]
