"""How accurate the keypoints are: presets and single ideas on generated images, means over seeds.

    python benchmarks/accuracy.py --class dolls                 # everything; resumable, results in docs/results/
    python benchmarks/accuracy.py --class dolls --sets dolls --rows reference default --seeds 0

For each set and row: train tokens on the training images, detect on training and test images, fit the paper's
bias-free regression on the training images, report the mean L2 on the test images in % of the image side. Sets:
`dolls` = the class in its standard form (the name is that of the table; --class says which figures are meant), `wild` =
small to large figures, limbs of others behind, occluding bars, `few` = 30 training images. Settings were chosen on
seeds 100 to 107; seeds 0, 1, 2 are reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import detect
from stablekp_core.evaluation.metrics import mean_l2_percent, pck
from stablekp_core.evaluation.protocol import ABLATIONS
from stablekp_core.evaluation.regression import fit_regression
from stablekp_core.images.image_set import ImageSet
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.synthetic import (
    figures,
    generator,
)
from stablekp_core.training.train import train

SETS = {"dolls": ("standard", 500), "wild": ("wild", 500), "few": ("standard", 30)}
TEST = 200
#: What the small model needs whatever the row: fewer tokens, smaller maps, a larger learning rate.
SMALL = dict(keypoints=10, tokens=200, map_size=64, check_share=0)
#: The default looks at more views when it chooses its keypoints, and refines them; fewer steps and fewer looks at many
#: images make up for it.
EQUAL_TIME = dict(stop="fixed", steps=50, selection_images=60, selection_views=2, refine_images=150)
NOT_REFINED = dict(stop="fixed", steps=130, refine_images=0)
#: The preset as it is, with images left out for the self-check.
WHOLE = dict(steps=500, check_share=0.1)
#: row -> (training preset, changes, detection preset, changes, regression options)
ROWS = {
    "reference": ("reference", {}, "reference", {}, {}),
    "paper": ("paper", {}, "paper", {}, {}),
    "default": ("default", EQUAL_TIME, "default", {}, {}),
    "+ coverage mask": ("reference", dict(coverage_mask=True), "reference", {}, {}),
    "+ neutral border": ("reference", dict(border="neutral"), "reference", {}, {}),
    "+ identity view": ("reference", {}, "reference", dict(identity=True), {}),
    "+ sub-pixel read-out": ("reference", {}, "reference", dict(readout="soft"), {}),
    "+ confidence weights": ("reference", {}, "reference", {}, dict(weights=True)),
    "+ refined tokens": ("reference", dict(refine_images=250), "reference", dict(read="refined"), {}),
    "+ ridge": ("reference", {}, "reference", {}, dict(ridge=0.5)),
    "+ intercept": ("reference", {}, "reference", {}, dict(bias=True)),
    "default, all 500 steps": ("default", dict(WHOLE, stop="fixed"), "default", {}, {}),
    "default, stop auto": ("default", dict(WHOLE, stop="auto"), "default", {}, {}),
    "default, not refined": ("default", NOT_REFINED, "default", {}, {}),
    "not refined, gradient cached": ("default", dict(NOT_REFINED, gradient="cached"), "default", {}, {}),
    "not refined, view pool 4": ("default", dict(NOT_REFINED, view_pool=4), "default", {}, {}),
    **{
        f"paper, {name}": ("paper", training, "paper", detection, {})
        for name, (training, detection) in ABLATIONS.items()
        if name != "full"
    },
}
#: (set, row) -> changes instead of the row's own: few images are looked at as the preset says.
CHANGES_ON = {("few", "default"): dict(steps=110, stop="fixed")}
#: Which rows are taken on the harder sets too. A pool of views matters where images are few and seen often.
PRESET_ROWS = ("reference", "paper", "default")
STOP_ROWS = ("default, all 500 steps", "default, stop auto")
HARDER_ROWS = {
    "wild": (*PRESET_ROWS, *STOP_ROWS, "default, not refined"),
    "few": (*PRESET_ROWS, *STOP_ROWS, "default, not refined", "not refined, view pool 4"),
}


class Images:
    """Generated images number `first` to `first` + `count` of a class and variant, with joints in the unit square."""

    def __init__(self, kind: str, variant: str, first: int, count: int):
        self.samples = [generator.render(kind, first + i, 128, variant) for i in range(count)]
        self.images = ImageSet.from_arrays([s.image for s in self.samples])
        self.joints = np.stack([s.joints / 128 for s in self.samples])
        self.visible = np.stack([s.visible for s in self.samples])


class Bench:
    """One class, set and seed: the images, and what rows that differ only later on can share."""

    def __init__(self, backbone, kind: str, name: str, seed: int, args):
        variant, count = SETS[name]
        first = 100_000 + 10_000 * seed
        self.backbone, self.kind, self.name, self.seed, self.args = backbone, kind, name, seed, args
        self.fit, self.test = Images(kind, variant, first, count), Images(kind, variant, first + 5_000, TEST)
        self.labelled = min(count, args.labelled)
        self.stem = f"{kind}_{name}_{seed}"
        self._found: dict = {}

    def run(self, row: str) -> dict:
        """Numbers of one row."""
        preset, changes, detection, how, regression = ROWS[row]
        changes = CHANGES_ON.get((self.name, row), changes)
        changes = {k: SMALL["keypoints"] if v == "K" else v for k, v in changes.items()}
        config = TrainConfig.preset(
            preset,
            sigma=self.args.sigma,
            learning_rate=self.args.lr,
            seed=self.seed,
            **{**SMALL, "steps": self.args.steps, **changes},
        )
        tokens, seconds = self.tokens(config)
        look = DetectConfig.preset(detection, **{"views": self.args.views, "map_size": 0, **how})
        points, found = self.points(tokens, config, look)
        numbers = score(self.kind, self.fit, self.test, self.labelled, points, found, regression)
        return {**numbers, "seconds": seconds, "steps": len(tokens.losses) or config.steps}

    def tokens(self, config: TrainConfig) -> tuple[KeypointTokens, float]:
        """Tokens and the processor seconds they took. Learned ones are kept without the choice of keypoints, which is
        made anew, so that rows that differ in the choice alone share the learning."""
        if config.stop == "auto":  # the self-checks in between choose too, so there is nothing to share
            start = time.process_time()
            found = train(self.backbone, self.fit.images, config).tokens
            return found, time.process_time() - start
        learning = config.to_dict()
        for choice in (
            "selection",
            "selection_images",
            "selection_views",
            "refine_images",
            "occluded_views",
        ):
            del learning[choice]
        name = hashlib.sha256(json.dumps([self.stem, learning], sort_keys=True).encode()).hexdigest()[:16]
        file, clock = (self.args.cache / f"{self.stem}_{name}.{end}" for end in ("safetensors", "seconds"))
        if not file.exists():
            start = time.process_time()
            plain = config.replace(selection_images=1, refine_images=0)
            train(self.backbone, self.fit.images, plain).tokens.save(file)
            clock.write_text(str(time.process_time() - start))
        start = time.process_time()
        chosen = train(self.backbone, self.fit.images, config.replace(steps=0), start=KeypointTokens.load(file)).tokens
        return chosen, float(clock.read_text()) + time.process_time() - start

    def points(self, tokens: KeypointTokens, config: TrainConfig, look: DetectConfig):
        """Keypoints of the labelled training images and of the test images."""
        name = json.dumps([config.to_dict(), look.to_dict()])
        if name not in self._found:
            fit = [item for item, _ in zip(self.fit.images, range(self.labelled), strict=False)]
            self._found[name] = tuple(detect(self.backbone, tokens, x, look).keypoints for x in (fit, self.test.images))
        return self._found[name]


def score(kind: str, fit: Images, test: Images, labelled: int, points, found, options: dict) -> dict:
    """Error, PCK and coverage in %, share of left/right pairs that are swapped in %, quality of the confidence."""
    options = dict(options)
    weighted = options.pop("weights", False)
    x, y = points.xy / 128, fit.joints[:labelled]
    w = (points.confidence, found.confidence) if weighted else (None, None)
    model = fit_regression(x, y, fit.visible[:labelled], weights=w[0], **options)
    predicted = model.predict(found.xy / 128, w[1])
    near = np.linalg.norm(found.xy[:, :, None] / 128 - test.joints[:, None], axis=-1).min(1) < 0.1  # [B, L]
    expected = fit_regression(y, x, bias=True).predict(test.joints) * 128  # [B, K, 2]
    error = np.linalg.norm(found.xy - expected, axis=-1) / 128  # [B, K]
    sure = found.confidence >= np.median(found.confidence)
    at = np.clip(expected, 0, 127).astype(int)
    occluded = np.stack([s.covered[p[:, 1], p[:, 0]] for s, p in zip(test.samples, at, strict=True)])  # [B, K]
    return {
        "error": mean_l2_percent(predicted, test.joints, test.visible),
        "pck5": pck(predicted, test.joints, 0.05, test.visible),
        "pck10": pck(predicted, test.joints, 0.10, test.visible),
        "coverage": float(100 * near.mean()),
        "swaps": swapped_pairs(predicted, test.joints, test.visible, landmark_sides(kind)),
        "half_ratio": float(error[sure].mean() / error[~sure].mean()),
        "occlusion_auc": auc(found.occluded[occluded], found.occluded[~occluded]),
    }


def landmark_sides(kind: str) -> list[tuple[int, int]]:
    """(left, right) landmark pairs, by their names."""
    names = figures.landmark_names(kind)
    other = {name: name.replace("left", "right") for name in names if "left" in name}
    return [(names.index(left), names.index(right)) for left, right in other.items()]


def swapped_pairs(predicted, joints, visible, pairs: list[tuple[int, int]]) -> float:
    """% of the visible left/right pairs whose two predictions lie nearer to each other's joints than to their own."""
    left, right = np.array(pairs).T
    kept, crossed = (
        sum(np.linalg.norm(predicted[:, p] - joints[:, j], axis=-1) for p, j in (a, b))
        for a, b in (((left, left), (right, right)), ((left, right), (right, left)))
    )
    return float(100 * (crossed < kept)[visible[:, left] & visible[:, right]].mean())


def auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Chance that a positive scores higher than a negative (Mann-Whitney); None without both."""
    if not len(positive) or not len(negative):
        return None
    both = np.concatenate([positive, negative])
    rank = both.argsort().argsort() + 1.0
    for value in np.unique(both[np.isclose(both, 0) | np.isclose(both, 1)]):  # ties at the clipped ends
        rank[both == value] = rank[both == value].mean()
    n, m = len(positive), len(negative)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


#: What is kept of a run.
NUMBERS = ("error", "pck5", "pck10", "coverage", "swaps", "half_ratio", "occlusion_auc", "seconds", "steps")


def collect(cache: Path, kind: str) -> dict:
    """{set: {row: {number: (mean, std, seeds)}}} of the runs in the cache."""
    runs: dict = {}
    for file in sorted(cache.glob(f"{kind}_*.json")):
        data = json.loads(file.read_text())
        runs.setdefault(data["set"], {}).setdefault(data["row"], []).append(data)
    out: dict = {}
    for name, rows in runs.items():
        for row, items in rows.items():
            out.setdefault(name, {})[row] = {
                key: (float(np.mean(values)), float(np.std(values)), len(values))
                for key in NUMBERS
                if (values := [i[key] for i in items if i.get(key) is not None])
            }
    return out


def report(cache: Path, folder: Path, kind: str) -> str:
    """Write the numbers of a class, dolls as accuracy.json; return the tables as Markdown."""
    found, lines = collect(cache, kind), []
    for name in (n for n in SETS if n in found):
        lines += [
            f"**{kind}, {name}**",
            "",
            "| row | error, % of side | seeds | PCK 5 % | PCK 10 % | coverage | swaps | training s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in (r for r in ROWS if r in found[name]):
            n = found[name][row]
            lines.append(
                f"| {row} | {n['error'][0]:.2f} ± {n['error'][1]:.2f} | {n['error'][2]} | {n['pck5'][0]:.0f} | "
                f"{n['pck10'][0]:.0f} | {n['coverage'][0]:.0f} | {n['swaps'][0]:.1f} | {n['seconds'][0]:.0f} |"
            )
        lines.append("")
    numbers = {
        name: {
            p: {
                "error_mean": found[name][p]["error"][0],
                "error_std": found[name][p]["error"][1],
                "seconds": found[name][p]["seconds"][0],
            }
            for p in PRESET_ROWS
            if p in found[name]
        }
        for name in found
    }
    wild = found.get("wild", {}).get("default", {})
    numbers["confidence"] = {k: wild[k][0] for k in ("half_ratio", "occlusion_auc") if k in wild}
    numbers["class"] = kind
    folder.mkdir(parents=True, exist_ok=True)
    name = "accuracy.json" if kind == "dolls" else f"accuracy_{kind}.json"
    (folder / name).write_text(json.dumps(numbers, indent=1) + "\n")
    return "\n".join(lines)


def report_stopping(cache: Path, folder: Path) -> str:
    """Write what ending by the self-check gives, as shares of all steps, by class and set; return the table."""
    out: dict = {}
    lines = ["| images | steps taken | error, % of side | all steps | ratio | time ÷ all steps |", "|" + 6 * "---|"]
    for kind in figures.KINDS:
        for name, rows in collect(cache, kind).items():
            if not all(row in rows for row in STOP_ROWS):
                continue
            whole, ended = (rows[row] for row in STOP_ROWS)
            error, seconds, (steps, _, seeds) = ended["error"][0], ended["seconds"][0], ended["steps"]
            error_ratio, time_ratio = error / whole["error"][0], seconds / whole["seconds"][0]
            title = f"{kind}, {'ordinary' if name == 'dolls' else name}"
            out[title] = dict(error_ratio=error_ratio, time_ratio=time_ratio, steps=steps, seeds=seeds)
            numbers = f"{error:.2f} | {whole['error'][0]:.2f} | {error_ratio:.2f} | {time_ratio:.2f}"
            lines.append(f"| {title} | {steps:.0f} | {numbers} |")
    (folder / "stopping.json").write_text(json.dumps(out, indent=1) + "\n")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="kind", choices=figures.KINDS, default="dolls")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--sigma", type=float, default=2.0)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--labelled", type=int, default=200, help="training images used for the regression")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "accuracy", help="one JSON file per run")
    parser.add_argument("--report", action="store_true", help="write docs/results/ and print the tables")
    parser.add_argument("--report-stopping", action="store_true", help="the same of the rows about ending early, alone")
    args = parser.parse_args()
    if (args.report or args.report_stopping) and not any(args.cache.glob("*.json")):
        parser.error(f"there are no runs in {args.cache} to report; make them first, without --report")
    if args.report:
        print(report(args.cache, ROOT / "docs" / "results", args.kind))
        return
    if args.report_stopping:
        print(report_stopping(args.cache, ROOT / "docs" / "results"))
        return
    backbone = load_backbone("demo")
    args.cache.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in args.sets:
            bench = None
            for row in (r for r in args.rows if r in HARDER_ROWS.get(name, ROWS)):
                file = args.cache / f"{args.kind}_{name}_{row.replace(' ', '_')}_{seed}.json"
                if file.exists():
                    continue
                bench = bench or Bench(backbone, args.kind, name, seed, args)
                numbers = bench.run(row)
                file.write_text(json.dumps({**numbers, "row": row, "set": name, "class": args.kind, "seed": seed}))
                print(args.kind, name, row, seed, {k: v and round(v, 2) for k, v in numbers.items()}, flush=True)


if __name__ == "__main__":
    main()
