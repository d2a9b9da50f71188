"""How near a retargeted pose is to the truth: generated dolls that are built anew with another one's proportions.

    python benchmarks/retarget.py                                   # the numbers of docs/results.md
    python benchmarks/retarget.py --picture docs/images/retarget.jpg

A doll is drawn from 19 random numbers, of which the first nine are its proportions and the others its pose. So a doll
with the proportions of one and the pose of another can be built, and is the truth for retargeting.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.retarget import retarget_pose
from stablekp_core.synthetic.figures import DOLL_BONES, DOLL_JOINTS, Figure, doll

SIDE = 512
NECK = DOLL_JOINTS.index("neck")
_PROPORTIONS = 9


class Numbers:
    """In place of a random generator: draws from one and remembers, or plays back what was drawn."""

    def __init__(self, seed: int | None = None, played=()):
        self.rng, self.drawn, self.played = np.random.default_rng(seed), [], list(played)

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append(self.played.pop(0) if self.played else self.rng.uniform(low, high))
        return self.drawn[-1]


def numbers(seed: int) -> list[float]:
    source = Numbers(seed)
    doll(source)
    return source.drawn


def built(body: list[float], pose: list[float], angle: float, scale: float, neck) -> Figure:
    """The doll with the proportions of one and the pose of another, turned, scaled, its neck at a place in pixels."""
    figure = doll(Numbers(played=body[:_PROPORTIONS] + pose[_PROPORTIONS:]))
    c, s = math.cos(angle), math.sin(angle)
    figure = figure.transformed(scale * np.array([[c, -s], [s, c]]), np.zeros(2))
    return figure.transformed(np.eye(2), np.array(neck, dtype=float) - figure.joints[NECK])


def keypoints(figure: Figure) -> Keypoints:
    xy = np.stack(figure.joints)[None]
    return Keypoints(xy, np.ones(xy.shape[:2]), np.array([[SIDE, SIDE]]), DOLL_JOINTS, DOLL_BONES)


def trial(drive_seed: int, target_seed: int, turn: float = 3.0) -> tuple[Figure, Figure, Figure, Keypoints]:
    """(drive, target, truth, retargeted): two dolls of random size and turn, and one's pose on the other's body.

    turn: how far the target may be turned, in radians.
    """
    rng = np.random.default_rng(1000 * drive_seed + target_seed)
    angle, small, large = rng.uniform(-0.35, 0.35), *rng.uniform(90, 150, 2)
    pose, body = numbers(drive_seed), numbers(target_seed)
    drive = built(pose, pose, angle, small, (250, 150))
    target = built(body, body, rng.uniform(-turn, turn), large, (256, 150))
    truth = built(body, pose, angle, large, (256, 150))
    return drive, target, truth, retarget_pose(keypoints(drive), keypoints(target))


def measure(drives=range(20), targets=range(100, 110)) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance to the true joints in shares of the image's side, for each pair: (retargeted, scaled only)."""
    retargeted, scaled = [], []
    for drive_seed, target_seed in itertools.product(drives, targets):
        drive, target, truth, done = trial(drive_seed, target_seed)
        right, led = np.stack(truth.joints), np.stack(drive.joints)
        retargeted.append(np.linalg.norm(done.xy[0] - right, axis=-1).mean() / SIDE)
        size = bones(np.stack(target.joints)) / bones(led)
        copied = (led - led[NECK]) * size + right[NECK]
        scaled.append(np.linalg.norm(copied - right, axis=-1).mean() / SIDE)
    return np.array(retargeted), np.array(scaled)


def bones(xy: np.ndarray) -> float:
    """Length of all bones together."""
    a, b = np.array(DOLL_BONES).T
    return float(np.linalg.norm(xy[b] - xy[a], axis=-1).sum())


def picture(drive_seed: int, target_seed: int) -> np.ndarray:
    """uint8 [SIDE, 3 SIDE, 3]: the drive, the target, and the doll truly built in that pose under retargeted joints."""
    from PIL import Image, ImageDraw

    from stablekp_core.drawing.overlay import draw_keypoints
    from stablekp_core.synthetic.generator import COLORS

    drive, target, truth, done = trial(drive_seed, target_seed, 0.2)
    cells = []
    for figure, points in ((drive, keypoints(drive)), (target, keypoints(target)), (truth, done)):
        image = Image.new("RGB", (SIDE, SIDE), (236, 238, 242))
        pen = ImageDraw.Draw(image)
        for part, polygon in figure.shapes:
            shade = (0.45 * COLORS[part % len(COLORS)] + 0.55 * 255).astype(int)
            pen.polygon([tuple(corner) for corner in polygon.tolist()], fill=tuple(shade.tolist()))
        how = dict(skeleton=points.skeleton, numbers=False)
        cells.append(draw_keypoints(np.asarray(image), points.xy[0], points.confidence[0], **how))
    return np.concatenate(cells, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="write a picture of one pair here")
    parser.add_argument("--pair", type=int, nargs=2, default=(8, 101), help="which pair it shows (8 101)")
    args = parser.parse_args()
    if args.picture:
        from PIL import Image

        Image.fromarray(picture(*args.pair)).save(args.picture, quality=88)
        return
    for name, errors in zip(("retargeted", "scaled only"), measure(), strict=True):
        mean, worst = 100 * errors.mean(), 100 * errors.max()
        print(f"{name}: mean {mean:.2f} %, worst {worst:.2f} % of the side, {len(errors)} pairs")


if __name__ == "__main__":
    main()
