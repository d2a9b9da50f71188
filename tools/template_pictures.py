"""Writes the pictures of the templates: what each finds with the model that ships, on shipped pictures.

    python tools/template_pictures.py [--tokens FILE] [--guidance FILE] [--only NUMBER ...]

Tokens are learned as in the template "1 Try it now", and guidance is fitted on the same pictures, unless given. Where a
template goes on to generate a picture with a ControlNet, the hint that it gets is shown: there is none for the model
that ships.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

from workflow_templates import DEMO_TRAINING

from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.controlnet.dataset import ExportSettings, draw_hint
from stablekp_core.detection.detector import detect
from stablekp_core.drawing.overlay import draw_keypoints
from stablekp_core.drawing.palette import palette
from stablekp_core.drawing.sheets import (
    contact_sheet,
    heat_overlay,
)
from stablekp_core.guidance.fitting import fit_guidance
from stablekp_core.guidance.generation import generate, open_generator
from stablekp_core.guidance.readers import KeypointGuidance
from stablekp_core.images.image_set import ImageSet, load_folder
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.fitting import apply_landmark_map, fit_landmark_map
from stablekp_core.pose.skeleton import discover_skeleton
from stablekp_core.pose.writing import map_by_hand, to_pose
from stablekp_core.training.train import train
from stablekp_core.video.smoothing import smooth_keypoints

DOLLS = ROOT / "stablekp_core" / "assets" / "pictures" / "dolls"
SIDE = 384
FRAMES = 24
#: An animal's places in the doll's joints, for want of a drawn animal: hands and feet become paws.
ANIMAL = """left eye = left eye
right eye = right eye
nose = left eye + right eye
neck = neck
tail root = left hip + right hip
left shoulder = left shoulder
left elbow = left elbow
left front paw = left wrist
right shoulder = right shoulder
right elbow = right elbow
right front paw = right wrist
left hip = left hip
left knee = left knee
left back paw = left ankle
right hip = right hip
right knee = right knee
right back paw = right ankle"""


class Found:
    """The tokens, the unseen pictures and what was found on them, in pixels of SIDE x SIDE copies."""

    def __init__(self, tokens: KeypointTokens | None):
        self.backbone, learn = load_backbone("demo"), load_folder(DOLLS / "train")
        self.tokens = tokens or train(self.backbone, learn, TrainConfig(**DEMO_TRAINING)).tokens
        self.learn, self.learned = arrays(learn), self.points(learn)
        labels = Keypoints.load(DOLLS / "train" / "joints.json")
        self.landmarks = fit_landmark_map(self.learned, enlarged(labels, SIDE / labels.sizes.max()))
        unseen = load_folder(DOLLS / "test")
        self.images, self.unseen = arrays(unseen), self.points(unseen)
        self.best = int(self.unseen.confidence.mean(1).argmax())

    def points(self, images: ImageSet) -> Keypoints:
        found = detect(self.backbone, self.tokens, images, DetectConfig(views=4)).keypoints
        return enlarged(found, SIDE / found.sizes.max())


def enlarged(points: Keypoints, factor: float) -> Keypoints:
    return replace(points, xy=points.xy * factor, sizes=(points.sizes * factor).round().astype(int))


def arrays(images: ImageSet) -> list[np.ndarray]:
    """uint8 [SIDE, SIDE, 3] each."""
    return [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for _, p in images]


def hint(points: Keypoints, style: str) -> np.ndarray:
    settings = ExportSettings(style=style)
    return draw_hint(points.xy, points.confidence, settings, (SIDE, SIDE), points.skeleton, points.colors)


def overlay(image: np.ndarray, points: Keypoints, **how) -> np.ndarray:
    return draw_keypoints(image, points.xy[0], points.confidence[0], skeleton=points.skeleton, **how)


def sheet(images, points: Keypoints, columns: int, **how) -> np.ndarray:
    cells = dict(columns=columns, cell=256, skeleton=points.skeleton, colors=points.colors)
    return contact_sheet(images, list(points.xy), list(points.confidence), **cells, **how)


def trail(points: Keypoints) -> np.ndarray:
    """One keypoint after the other as a line through time."""
    steps = [(t, t + 1) for t in range(len(points) - 1)]
    image, colors = np.zeros((SIDE, SIDE, 3), np.uint8), points.colors or palette(points.num_keypoints)
    for k in range(points.num_keypoints):
        how = dict(skeleton=steps, dots=False, numbers=False, width=1.5, outline=False)
        image = draw_keypoints(image, points.xy[:, k], colors=[colors[k]] * len(points), **how)
    return image


def clip(image: np.ndarray) -> ImageSet:
    """A picture that rocks, in camera noise."""
    rng, still, frames = np.random.default_rng(0), Image.fromarray(image), []
    for t in range(FRAMES):
        angle = 15 * np.sin(2 * np.pi * t / FRAMES)
        turned = still.rotate(angle, Image.Resampling.BICUBIC, fillcolor=tuple(image[0, 0].tolist()))
        frames.append(np.clip(turned + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8))
    return ImageSet.from_arrays(frames)


def guided(f: Found, guidance: KeypointGuidance | None) -> dict[str, np.ndarray]:
    """The templates that generate in a pose: above the images whose pose is taken, below what was generated."""
    guidance = guidance or fit_guidance(f.backbone, f.tokens, load_folder(DOLLS / "train"))
    generator, rows = open_generator(f.backbone, "demo"), f.unseen.confidence.mean(1).argsort()[::-1][:4]
    frames = clip(f.images[f.best])
    moving = detect(f.backbone, f.tokens, frames, DetectConfig(views=4)).keypoints
    every = range(0, FRAMES, FRAMES // 4)
    out = {}
    for name, above, pose, same in (
        ("10 Generate in a pose", [f.images[i] for i in rows], f.unseen.rows(rows), False),
        ("11 Animate a character", [frames[i] for i in every], moving.rows(every), True),
    ):
        made = generate(generator, "a doll", pose, guidance, steps=30, same_noise=same)
        enlarged = [np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for x in made]
        out[name] = sheet([*above, *enlarged], Keypoints.concat([pose, pose]), 4, numbers=False, lines=False)
    return out


def images(f: Found) -> dict[str, np.ndarray]:
    """{template: its picture, uint8 RGB}."""
    one, image = f.unseen.rows([f.best]), f.images[f.best]
    heat = detect(f.backbone, f.tokens, ImageSet.from_arrays([image]), DetectConfig(views=4), keep_maps=True)
    maps = [heat_overlay(image, heat.maps[0, k].numpy()) for k in (0, 1)]
    points = (overlay(image, one), hint(one, "keypoints"))
    joints = apply_landmark_map(one, f.landmarks)
    free = replace(one, skeleton=discover_skeleton(f.learned).edges)
    frames = clip(image)
    moving = detect(f.backbone, f.tokens, frames, DetectConfig(views=4)).keypoints
    rows = f.unseen.confidence.mean(1).argsort()[::-1][:3]
    people = [hint(to_pose(apply_landmark_map(f.unseen.rows([i]), f.landmarks), "openpose"), "openpose") for i in rows]
    spread = np.linspace(0, len(f.learn) - 1, 12).round().astype(int)
    side_by_side = {
        name: np.concatenate(parts, axis=1)
        for name, parts in {
            "4 Pose-conditioned generation": (overlay(image, one, numbers=False), points[1]),
            "6 People to OpenPose": (image, hint(to_pose(joints, "openpose"), "openpose")),
            "7 Animals to AP-10K": (overlay(image, one), hint(map_by_hand(joints, ANIMAL, "ap10k"), "ap10k")),
            "8 Mascot to scribble": (overlay(image, free), hint(free, "scribble")),
            "9 Steady video": (trail(moving), trail(smooth_keypoints(moving).keypoints)),
        }.items()
    }
    return {
        "1 Try it now": sheet(f.images[:9], f.unseen.rows(range(9)), 3),
        "2 Train on my images": sheet([f.learn[i] for i in spread], f.learned.rows(spread), 4),
        "5 Video": sheet([image for _, image in frames][::4], moving.rows(range(0, FRAMES, 4)), 3, numbers=False),
        "3 Detect and draw": np.concatenate([np.concatenate(row, axis=1) for row in (points, maps)]),
        "12 People to Z-Image-Turbo": np.concatenate(
            [np.concatenate(row, axis=1) for row in ([f.images[i] for i in rows], people)]
        ),
        **side_by_side,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, help="tokens learned as in the first template")
    parser.add_argument("--guidance", type=Path, help="guidance fitted for them")
    parser.add_argument("--only", type=int, nargs="+", help="these templates, by number")
    args = parser.parse_args()
    found = Found(KeypointTokens.load(args.tokens) if args.tokens else None)
    guidance = KeypointGuidance.load(args.guidance) if args.guidance else None
    only, made = set(args.only or range(1, 13)), {}
    if only & {*range(1, 10), 12}:
        made |= images(found)
    if only & {10, 11}:
        made |= guided(found, guidance)
    for name, image in made.items():
        if int(name.split()[0]) not in only:
            continue
        path = ROOT / "example_workflows" / f"{name}.jpg"
        Image.fromarray(image).save(path, quality=88)
        print(path.name)


if __name__ == "__main__":
    main()
