"""From keypoints to joints, bones and steady video, measured on generated dolls with the built-in model.

    python benchmarks/landmarks.py             # results in docs/results/landmarks.json
    python benchmarks/landmarks.py --short     # does everything run? writes nothing

- Error of the landmark map on images it has not seen, for 5 to 200 labels, means over seeds; beside it the
  regression of the paper fitted to the same labels, and always guessing the labels' mean.
- Edges of the discovered skeleton that join points of the same or of adjacent body parts, for 10 keypoints and for 30
  chosen from the same tokens: ten points on sixteen parts leave gaps that no tree can bridge.
- Jitter and error of keypoints on an animated doll in noise, before and after smoothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import detect
from stablekp_core.evaluation.regression import fit_regression
from stablekp_core.images.image_set import ImageSet
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.fitting import fit_landmark_map
from stablekp_core.pose.skeleton import discover_skeleton, spanning_tree
from stablekp_core.synthetic import (
    figures,
    generator,
)
from stablekp_core.training.train import train
from stablekp_core.video.smoothing import smooth_keypoints

SIDE, KIND, VARIANT = 128, "dolls", "standard"
LABELS = (5, 10, 20, 50, 100, 200)
TRAIN, POOL, TEST = 500, 200, 200
MANY = 30  # keypoints of the larger skeleton
FIRST_POOL, FIRST_TEST = 10_000, 20_000
#: For the small model; --tokens takes others.
SETTINGS = dict(keypoints=10, tokens=200, map_size=64, sigma=2.0, learning_rate=0.05, selection_images=50)
#: Parts that touch each other, by the numbers of `figures.DOLL_PARTS`.
TOUCH = ((0, 1), (0, 2), (1, 2), (0, 3), (3, 4), (4, 5), (5, 6), (3, 7), (7, 8), (8, 9))
TOUCH += ((3, 10), (10, 11), (11, 12), (3, 13), (13, 14), (14, 15), (10, 13), (4, 0), (7, 0))
#: The first random numbers of a doll are its proportions, which an animation keeps.
PROPORTIONS = 9


def dolls(first: int, count: int) -> tuple[ImageSet, Keypoints, list[generator.Sample]]:
    """(images, their joints, the samples) number `first` to `first` + `count`."""
    samples = [generator.render(KIND, first + i, SIDE, VARIANT) for i in range(count)]
    xy = np.stack([sample.joints for sample in samples])
    names = figures.landmark_names(KIND)
    joints = Keypoints(xy, np.ones(xy.shape[:2]), np.full((count, 2), SIDE), names)
    return ImageSet.from_arrays([sample.image for sample in samples]), joints, samples


def percent(found: np.ndarray, right: np.ndarray) -> float:
    """Mean distance in % of the image's side."""
    return float(100 * np.linalg.norm(found - right, axis=-1).mean() / SIDE)


def label_curve(pool: Keypoints, pool_joints, test: Keypoints, test_joints, labels, seeds: int) -> list[dict]:
    rows = []
    for count in (n for n in labels if n <= len(pool)):
        trials = []
        for seed in range(seeds):
            chosen = np.random.default_rng(seed).choice(len(pool), count, replace=False)
            few, right = pool.rows(chosen), pool_joints.rows(chosen)
            ours = fit_landmark_map(few, right)
            paper = fit_regression(few.xy / SIDE, right.xy / SIDE).predict(test.xy / SIDE) * SIDE
            trials.append(
                (
                    percent(ours.apply(test).xy, test_joints.xy),
                    percent(paper, test_joints.xy),
                    percent(right.xy.mean(0, keepdims=True), test_joints.xy),
                    float(np.nanmean(ours.error)),
                    ours.mode,
                )
            )
        values = np.array([trial[:4] for trial in trials])
        row = dict(zip(("map", "paper", "mean", "estimated"), values.mean(0).round(3).tolist(), strict=True))
        modes = [trial[4] for trial in trials]
        rows.append({"labels": count, **row, "map_sd": round(float(values[:, 0].std()), 3), "modes": modes})
    return rows


def skeleton_quality(found: Keypoints, samples: list[generator.Sample]) -> dict:
    """How many discovered edges join points of the same or of touching parts, and how many edges of any tree over
    these points could: points on a hand and a torso alone have no such edge."""
    parts = usual_parts(found, samples)
    pairs = {frozenset(pair) for pair in TOUCH} | {frozenset((p,)) for p in range(len(figures.DOLL_PARTS))}
    near = np.array([[frozenset((a, b)) in pairs for a in parts] for b in parts])
    edges = discover_skeleton(found, extra=1.0).edges
    good, possible = (int(sum(near[edge] for edge in tree)) for tree in (edges, spanning_tree(near.astype(float))))
    names = ["none" if part < 0 else figures.DOLL_PARTS[part] for part in parts]
    share = round(good / len(edges), 3)
    return {"edges": len(edges), "near": good, "share": share, "possible": possible, "parts": names}


def usual_parts(found: Keypoints, samples: list[generator.Sample]) -> list[int]:
    """The part that is nearest to each keypoint most often; -1 where that is mostly none within a tenth of the side."""
    counts = np.zeros((found.num_keypoints, len(figures.DOLL_PARTS) + 1))
    for row, sample in enumerate(samples):
        y, x = np.nonzero(sample.labels)
        away = np.hypot(*(found.xy[row, :, None] - np.stack([x, y], -1) - 0.5).transpose(2, 0, 1))  # [K, pixels]
        nearest = away.argmin(1)
        part = np.where(away.min(1) < SIDE / 10, sample.labels[y[nearest], x[nearest]], 0)
        counts[np.arange(len(part)), part] += found.confidence[row]
    return (counts.argmax(1) - 1).tolist()


class _Pose:
    """Takes a generator's place in building a doll: its uniform numbers come from a list in [0, 1]."""

    def __init__(self, values: np.ndarray):
        self.values = iter(values)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(next(self.values))


def animation(frames: int, seed: int) -> tuple[ImageSet, np.ndarray]:
    """A doll that moves smoothly from pose to pose, in camera noise: (images, joints [T, L, 2] pixels)."""
    rng = np.random.default_rng(seed)
    keys = rng.uniform(0.15, 0.85, (frames // 20 + 2, 64))
    keys[:, :PROPORTIONS] = keys[0, :PROPORTIONS]
    colors = generator.COLORS[rng.permutation(len(generator.COLORS))]
    images, joints = [], []
    for t in range(frames):
        step, share = divmod(t / 20, 1)
        ease = 0.5 - 0.5 * np.cos(np.pi * share)
        figure = figures.doll(_Pose(keys[int(step)] * (1 - ease) + keys[int(step) + 1] * ease))
        turn = 0.03 * np.sin(t / 15)
        figure = figure.transformed(np.array([[0.27, -turn], [turn, 0.27]]), np.array([0.5, 0.5]))
        canvas = Image.new("RGB", (3 * SIDE, 3 * SIDE), (108, 124, 116))
        pen = ImageDraw.Draw(canvas)
        for part, polygon in figure.shapes:
            pen.polygon([tuple(v) for v in (polygon * 3 * SIDE).tolist()], fill=tuple(colors[part].astype(int)))
        noisy = np.asarray(canvas.reduce(3)) + rng.normal(0, 12, (SIDE, SIDE, 3))
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
        joints.append(np.stack(figure.joints) * SIDE)
    return ImageSet.from_arrays(images), np.stack(joints)


def lag(named: np.ndarray, joints: np.ndarray) -> int:
    """By how many frames later joints fit the true ones best; both [T, L, 2] pixels."""
    errors = [percent(np.roll(named, -late, 0)[9:-9], joints[9:-9]) for late in range(-3, 4)]
    return int(np.argmin(errors)) - 3


def video_quality(found: Keypoints, landmarks, joints: np.ndarray) -> dict:
    """Jitter of the keypoints, and error of the joints made of them, raw and smoothed."""
    raw = landmarks.apply(found).xy
    result = {"frames": len(found), "error_raw": round(percent(raw, joints), 3), "lag_raw_frames": lag(raw, joints)}
    for method in ("savitzky-golay", "one-euro"):
        done = smooth_keypoints(found, method)
        named = landmarks.apply(done.keypoints).xy
        result[method] = {
            "jitter_before": round(done.jitter_before, 3),
            "jitter_after": round(done.jitter_after, 3),
            "error": round(percent(named, joints), 3),
            "lag_frames": lag(named, joints),
        }
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few images and steps; writes nothing")
    parser.add_argument("--tokens", type=Path, help="learned tokens for dolls; keypoints are chosen anew")
    parser.add_argument("--steps", type=int, default=300, help="training steps (300)")
    parser.add_argument("--views", type=int, default=4, help="views in detection (4)")
    parser.add_argument("--seeds", type=int, default=5, help="choices of labelled images (5)")
    parser.add_argument("--frames", type=int, default=200, help="of the animation (200)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "landmarks.json")
    args = parser.parse_args()
    if args.short:
        args.steps, args.views, args.seeds, args.frames = 3, 0, 1, 20
    return args


def main() -> None:
    args, start = arguments(), time.perf_counter()
    sizes = (8, 12, 8) if args.short else (TRAIN, POOL, TEST)
    backbone = load_backbone("demo")
    settings = {**SETTINGS, "tokens": 40, "selection_images": 4} if args.short else SETTINGS
    config, images = TrainConfig(steps=args.steps, **settings), dolls(0, sizes[0])[0]
    learned = KeypointTokens.load(args.tokens) if args.tokens else None
    tokens = train(backbone, images, config.replace(steps=0) if learned else config, start=learned).tokens
    more = config.replace(steps=0, keypoints=MANY, candidates=MANY)
    many = train(backbone, images, more, start=tokens).tokens
    how = DetectConfig(views=args.views)

    def find(images, tokens=tokens) -> Keypoints:
        return detect(backbone, tokens, images, how).keypoints

    pool_images, pool_joints, pool_samples = dolls(FIRST_POOL, sizes[1])
    test_images, test_joints, _ = dolls(FIRST_TEST, sizes[2])
    pool, test = find(pool_images), find(test_images)
    # Pairs by place, as the joints carry no file names.
    pool, test = (Keypoints(p.xy, p.confidence, p.sizes, p.names) for p in (pool, test))
    frames, joints = animation(args.frames, 0)
    clip = find(frames)
    result = {
        "model": backbone.name,
        "settings": {"steps": args.steps, "views": args.views, "seeds": args.seeds, "pictures": sizes},
        "labels": label_curve(pool, pool_joints, test, test_joints, LABELS, args.seeds),
        "skeleton": {
            str(found.num_keypoints): skeleton_quality(found, pool_samples) for found in (pool, find(pool_images, many))
        },
        "video": video_quality(clip, fit_landmark_map(pool, pool_joints), joints),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(table(result))
    if not args.short:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {args.output}")


def table(result: dict) -> str:
    """The result as Markdown."""
    lines = [
        "| labels | landmark map | same, estimated | paper's regression | mean of the labels |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['labels']} | {r['map']:.2f} ± {r['map_sd']:.2f} % | {r['estimated']:.2f} % | {r['paper']:.2f} % "
        f"| {r['mean']:.2f} % |"
        for r in result["labels"]
    ]
    for count, skeleton in result["skeleton"].items():
        lines.append(
            f"\nskeleton of {count}: {skeleton['near']} of {skeleton['edges']} edges join the same or adjacent parts; "
            f"the best tree could have {skeleton['possible']}"
        )
    video = result["video"]
    for method in ("savitzky-golay", "one-euro"):
        v = video[method]
        lines.append(
            f"video, {method}: jitter {v['jitter_before']:.2f} -> {v['jitter_after']:.2f} px/frame^2, error "
            f"{video['error_raw']:.2f} -> {v['error']:.2f} %, lag {video['lag_raw_frames']} -> {v['lag_frames']} frames"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
