"""Writes the template pictures of the pose workflows: a doll with known joints beside the hint drawn from it.

    python tools/pose_pictures.py
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stablekp_core.drawing import draw_keypoints  # noqa: E402
from stablekp_core.export import ExportSettings, draw_hint  # noqa: E402
from stablekp_core.keypoints import Keypoints  # noqa: E402
from stablekp_core.pose import map_by_hand, to_pose  # noqa: E402
from stablekp_core.skeleton import discover_skeleton  # noqa: E402
from stablekp_core.synthetic import landmark_names, render  # noqa: E402
from stablekp_core.tracking import smooth_keypoints  # noqa: E402

SIDE = 384
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


def dolls(count: int) -> tuple[list[np.ndarray], Keypoints]:
    samples = [render("dolls", seed, SIDE, "plain") for seed in range(count)]
    xy = np.stack([sample.joints for sample in samples])
    sizes = np.full((count, 2), SIDE)
    names = landmark_names("dolls")
    return [s.image for s in samples], Keypoints(xy, np.ones(xy.shape[:2]), sizes, names)


def hint(points: Keypoints, style: str) -> np.ndarray:
    return draw_hint(
        points.xy, points.confidence, ExportSettings(style=style), (SIDE, SIDE), points.skeleton
    )


def trail(points: Keypoints) -> np.ndarray:
    """One joint after the other as a line through time."""
    steps = [(t, t + 1) for t in range(len(points) - 1)]
    picture = None
    for k in range(points.num_keypoints):
        way = points.xy[:, k]
        picture = draw_keypoints(
            picture,
            way,
            canvas="black" if picture is None else "image",
            size=(SIDE, SIDE),
            skeleton=steps,
            dots=False,
            numbers=False,
            width=1.5,
            outline=False,
        )
    return picture


def main() -> None:
    images, points = dolls(60)
    one = points.frame(4)
    free = replace(one, skeleton=discover_skeleton(points).edges)
    numbered = draw_keypoints(images[4], one.xy[0], lines=False)
    time = np.linspace(0, 1, 40)[:, None, None]
    way = points.xy[4] + 60 * np.concatenate([np.sin(5 * time), np.cos(4 * time)], -1)
    shaken = way + np.random.default_rng(0).normal(0, 2.5, way.shape)
    clip = Keypoints(shaken, np.ones(shaken.shape[:2]), np.full((40, 2), SIDE), points.names)
    pairs = {
        "6 People to OpenPose": (images[4], hint(to_pose(one, "openpose"), "openpose")),
        "7 Animals to AP-10K": (numbered, hint(map_by_hand(one, ANIMAL, "ap10k"), "ap10k")),
        "8 Mascot to scribble": (numbered, hint(free, "scribble")),
        "9 Steady video": (trail(clip), trail(smooth_keypoints(clip).keypoints)),
    }
    for name, pair in pairs.items():
        path = ROOT / "example_workflows" / f"{name}.jpg"
        Image.fromarray(np.concatenate(pair, axis=1)).save(path, quality=88)
        print(path.name)


if __name__ == "__main__":
    main()
