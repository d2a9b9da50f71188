"""Does the self-check know how good keypoints are? Many small runs whose joints are known.

    python benchmarks/selfcheck.py                  # all runs, seed by seed; resumable, one JSON file per run
    python benchmarks/selfcheck.py --report         # docs/results/selfcheck.json and the tables

A run: tokens are learned on 16 generated images for some steps, 4 more are left out for the check, and both read-outs
are chosen and checked as in training. True error: joints told from the keypoints by ridge regression, each test image
left out in turn, mean distance in % of the image side on 40 test images. Sets: standard and wild figures, and `few`
(standard, 6 images, left out in turn). Models: the small one as it is, with noise on its queries, with the queries of
three layers exchanged, with the weights of its UNet shuffled within each tensor, which know nothing; and, whole, with
refinement starved to two images. Seeds from 100 on are for finding the criterion, those below for reporting it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import TrainConfig
from stablekp_core.images.image_set import ImageSet
from stablekp_core.images.latent_cache import LatentSource
from stablekp_core.keypoints.self_check import LEARNED, REFINED, SelfCheck, better_readout, readout_costs
from stablekp_core.selection.features import FeatureExtractor
from stablekp_core.selection.probe import Probe
from stablekp_core.selection.select import choose_tokens
from stablekp_core.synthetic import generator
from stablekp_core.training.trainer import Trainer

TEST, RIDGE = 40, 0.003  # of 12 images the truth itself is noise: read-outs changed places
SETS = {"standard": ("standard", 20), "wild": ("wild", 20), "few": ("standard", 6)}
STEPS, DAMAGED_STEPS = (0, 20, 40, 80), (0, 20)
SETTINGS = dict(
    keypoints=8,
    tokens=100,
    map_size=32,
    sigma=1.5,
    batch_size=1,
    learning_rate=0.05,
    selection_views=1,
    occluded_views=0,
    check_share=0.2,
)
#: (class, set, damage) of one seed; looked at after each of STEPS, damaged ones after each of DAMAGED_STEPS.
PLAN = [
    ("dolls", "standard", "none"),
    ("faces", "standard", "none"),
    ("dolls", "standard", "random"),
    ("dolls", "wild", "none"),
    ("dolls", "standard", "starved"),
    ("faces", "few", "none"),
    ("faces", "standard", "noise"),
    ("dolls", "few", "none"),
    ("faces", "standard", "swapped"),
    ("faces", "wild", "none"),
    ("faces", "standard", "random"),
    ("faces", "standard", "starved"),
    ("dolls", "standard", "swapped"),
    ("dolls", "standard", "noise"),
]


def backbone_with(damage: str, seed: int):
    """The small model, damaged in one way."""
    backbone = load_backbone("demo")
    whole, g = backbone.queries, torch.Generator().manual_seed(seed)

    def noisy(*args):
        return [q + 2 * q.std() * torch.randn(q.shape, generator=g) for q in whole(*args)]

    def exchanged(*args):
        a, b, c, d = whole(*args)
        return [b, c, a, d]

    if damage == "random":
        for p in backbone.unet.parameters():
            p.data.copy_(p.flatten()[torch.randperm(p.numel(), generator=g)].view_as(p))
    elif damage in ("noise", "swapped"):
        backbone.queries = noisy if damage == "noise" else exchanged
    return backbone


class Images:
    def __init__(self, kind: str, variant: str, first: int, count: int):
        samples = [generator.render(kind, first + i, 128, variant) for i in range(count)]
        self.set = ImageSet.from_arrays([s.image for s in samples])
        self.joints = torch.tensor(np.stack([s.joints / 128 for s in samples])).double()  # [B, L, 2]
        self.visible = torch.tensor(np.stack([s.visible for s in samples]))


def true_error(found, joints: torch.Tensor, visible: torch.Tensor) -> float:
    """% of the side: joints [J, L, 2] of test images told from the points of all other test images."""
    x, y = found.held.double().flatten(1), joints.flatten(1)
    errors = []
    for i in range(len(x)):
        rest = [j for j in range(len(x)) if j != i]
        mean_x, mean_y = x[rest].mean(0), y[rest].mean(0)
        a = x[rest] - mean_x
        weights = torch.linalg.solve(
            a.T @ a + RIDGE * len(a) * torch.eye(a.shape[1]).double(), a.T @ (y[rest] - mean_y)
        )
        expected = ((x[i] - mean_x) @ weights + mean_y).view(-1, 2)
        errors.append((expected - joints[i]).norm(dim=-1)[visible[i]])
    return 100 * float(torch.cat(errors).mean())


def path(kind: str, name: str, damage: str, seed: int, cache: Path, steps: list[int]) -> None:
    """All runs of one class, set, damage and seed: one training, looked at after each of `steps`."""
    files = {s: cache / f"{kind}_{name}_{damage}_{seed}_{s}.json" for s in steps}
    if all(file.exists() for file in files.values()):
        return
    variant, count = SETS[name]
    train, test = (Images(kind, variant, 100_000 + 10_000 * seed + at, n) for at, n in ((0, count), (5_000, TEST)))
    backbone, config = backbone_with(damage, seed), TrainConfig(seed=seed, steps=max(steps), **SETTINGS)
    if damage == "starved":
        config = config.replace(refine_images=2)
    trainer, source = Trainer(backbone, train.set, config), LatentSource(backbone, test.set)
    learned_in = 0.0
    for step in steps:
        start = time.process_time()
        while trainer.step < step:
            trainer.run_step()
        learned_in, start = learned_in + time.process_time() - start, time.process_time()
        tokens = trainer.tokens.detach()
        choice = choose_tokens(backbone, tokens, trainer.source, config, held=trainer.held)
        chosen_in = time.process_time() - start
        looking = FeatureExtractor(backbone, tokens, source, config, 8)
        probe = Probe.of(looking, range(TEST), True, lambda done: None)
        errors = {}
        for one in (choice, choice.other):
            if one.refined is None:
                errors[LEARNED] = true_error(probe.learned(one.chosen, one.where), test.joints, test.visible)
            else:
                found = probe.refined(one.refined.flatten(1), one.where)
                errors[REFINED] = true_error(found, test.joints, test.visible)
        run = dict(kind=kind, set=name, damage=damage, seed=seed, step=step, errors=errors)
        run |= dict(
            check=choice.check.to_dict(), seconds=[learned_in, chosen_in], losses=[float(x[0]) for x in trainer.losses]
        )
        files[step].write_text(json.dumps(run))
        print(
            kind, name, damage, seed, step, {k: round(v, 2) for k, v in errors.items()}, choice.check.used, flush=True
        )


def read_check(run: dict) -> SelfCheck:
    """The run's numbers, judged by the criterion as it is now."""
    check = SelfCheck.from_dict(run["check"])
    return replace(check, used=better_readout(check.learned, check.refined, check.keypoints))


def merit(name: str, run: dict) -> float:
    """How much better the refined read-out is by the criterion in use, or by one number of the check alone: the
    logarithm of learned by refined."""
    check = read_check(run)
    if name == "in use":
        learned, refined = readout_costs(check.learned, check.refined, check.keypoints)
    else:
        learned, refined = getattr(check.learned, name), getattr(check.refined, name)
    return math.log(learned / refined)


#: Ways to pick a read-out: run -> its name. Beside the criterion in use, each number of the check alone.
CRITERIA = {
    "in use": lambda run: read_check(run).used,
    **{
        name: lambda run, name=name: REFINED if merit(name, run) >= 0 else LEARNED
        for name in ("predictability", "unexplained", "steadiness", "area")
    },
    "always refined": lambda run: REFINED,
    "always learned": lambda run: LEARNED,
}


def judged(name: str, runs: list[dict]) -> dict:
    """One criterion: the share of runs in which it picks the truly better read-out or one within 5 % of it, the mean
    loss by the others in % of the side, and the rank correlation with the true ratio of errors."""
    best = [min(run["errors"].values()) for run in runs]
    taken = [run["errors"][CRITERIA[name](run)] for run in runs]
    out = {
        "picked_right": float(np.mean([t <= 1.05 * b for t, b in zip(taken, best, strict=True)])),
        "mean_loss": float(np.mean(np.subtract(taken, best))),
    }
    if not name.startswith("always"):
        truth = [math.log(run["errors"][LEARNED] / run["errors"][REFINED]) for run in runs]
        out["rank_correlation"] = rank_correlation([merit(name, run) for run in runs], truth)
    return out


def rank_correlation(x: list[float], y: list[float]) -> float:
    """Spearman's."""
    return float(spearmanr(x, y).statistic)


def report(cache: Path, file: Path, seeds: list[int]) -> str:
    """Write the numbers of all runs of these seeds in the cache; return tables of them as Markdown."""
    runs = sorted((json.loads(f.read_text()) for f in cache.glob("*.json")), key=lambda r: r["step"])
    runs = [run for run in runs if run["seed"] in seeds]
    groups = {}
    for run in runs:
        groups.setdefault(f"{run['kind']}, {run['set']}, {run['damage']}", []).append(run)
    criteria = {name: judged(name, runs) for name in CRITERIA}
    out = {"runs": len(runs), "seeds": sorted({run["seed"] for run in runs}), **criteria["in use"]}
    out |= {"criteria": criteria, "by_set": {}}
    lines = ["| runs | error learned | refined | picked | right | verdicts |", "|---|---|---|---|---|---|"]
    for name, some in sorted(groups.items()):
        errors = [float(np.mean([r["errors"][k] for r in some])) for k in (LEARNED, REFINED)]
        checks = [read_check(r) for r in some]
        said = {v: sum(c.verdict == v for c in checks) for v in ("good", "usable", "poor")}
        found = judged("in use", some)
        picked = float(np.mean([r["errors"][c.used] for r, c in zip(some, checks, strict=True)]))
        out["by_set"][name] = {
            "runs": len(some),
            "picked_right": found["picked_right"],
            "error_learned": errors[0],
            "error_refined": errors[1],
            "error_picked": picked,
            "verdicts": said,
        }
        right = f"{round(found['picked_right'] * len(some))} of {len(some)}"
        words = ", ".join(f"{count} {v}" for v, count in said.items() if count)
        lines.append(f"| {name} | {errors[0]:.1f} | {errors[1]:.1f} | {picked:.1f} | {right} | {words} |")
    lines += ["", "| criterion | picks right | rank correlation | mean loss, % of side |", "|---|---|---|---|"]
    for name, found in criteria.items():
        rank = f"{found['rank_correlation']:.2f}" if "rank_correlation" in found else ""
        right = f"{round(found['picked_right'] * len(runs))} of {len(runs)}"
        lines.append(f"| {name} | {right} | {rank} | {found['mean_loss']:.2f} |")
    file.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "selfcheck", help="one JSON file per run")
    parser.add_argument("--report", action="store_true", help="write docs/results/selfcheck.json and print the tables")
    args = parser.parse_args()
    if args.report:
        print(report(args.cache, ROOT / "docs" / "results" / "selfcheck.json", args.seeds))
        return
    args.cache.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for kind, name, damage in PLAN:
            path(kind, name, damage, seed, args.cache, list(STEPS if damage in ("none", "starved") else DAMAGED_STEPS))


if __name__ == "__main__":
    main()
