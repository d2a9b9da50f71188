"""How well guided sampling takes a pose: the small model, dolls and faces, three seeds, held-out poses.

    python benchmarks/guidance.py                                  # everything; resumable, docs/results/guidance.json
    python benchmarks/guidance.py --classes dolls --seeds 0 --poses 8 --output build/guidance.json

For each class and seed: tokens are trained in the demo's setting, guidance is fitted on the same training images, the
keypoints of held-out images are the poses. Each pose is sampled without guidance (twice, from other noise), with
guidance, and with half of its points. Then the keypoints are detected again, and a regressor of joints that takes no
part in guiding (guidance_judge.py) compares with the true joints of the held-out image. Times are CPU times of this
process, with and without guidance in turns. Every piece is kept in --cache, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from guidance_judge import frechet, mid_features, shrunk, train_judge  # noqa: E402

from stablekp_core.backbone.loading import load_backbone  # noqa: E402
from stablekp_core.cli.demo_run import IMAGES, OTHER_CLASS, SETTINGS  # noqa: E402
from stablekp_core.config import DetectConfig, GuideConfig, TrainConfig  # noqa: E402
from stablekp_core.detection.detector import detect  # noqa: E402
from stablekp_core.guidance.fitting import fit_guidance  # noqa: E402
from stablekp_core.guidance.generation import generate, open_generator  # noqa: E402
from stablekp_core.guidance.readers import KeypointGuidance  # noqa: E402
from stablekp_core.images.image_set import ImageSet, load_folder  # noqa: E402
from stablekp_core.keypoints.keypoints import Keypoints  # noqa: E402
from stablekp_core.keypoints.tokens import KeypointTokens  # noqa: E402
from stablekp_core.randomness import generator_for  # noqa: E402
from stablekp_core.training.train import train  # noqa: E402

OTHER_NOISE = (1,)  # a further unguided sample: two of them take the time of a guided one
HOW = DetectConfig(views=2)


class Case:
    """One class and seed, with its files."""

    def __init__(self, args, backbone, generator, kind: str, seed: int):
        self.args, self.backbone, self.generator, self.kind, self.seed = args, backbone, generator, kind, seed
        self.folder = args.cache / f"{kind}_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.training = load_folder(IMAGES / kind / "train")
        self.test = load_folder(IMAGES / kind / "test", limit=args.poses)
        settings = json.dumps([args.poses, args.steps, args.set], sort_keys=True)
        self.samples = self.folder / f"samples_{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        self.samples.mkdir(exist_ok=True)
        self.tokens = self._tokens()
        self.guidance = self._guidance()

    def _tokens(self) -> KeypointTokens:
        path = self.folder / "tokens.safetensors"
        if not path.exists():
            steps = 40 if self.kind == OTHER_CLASS else 80
            config = TrainConfig(seed=self.seed, steps=steps, **SETTINGS)
            train(self.backbone, self.training, config, notice=note).tokens.save(path)
            note(f"{self.kind} {self.seed}: tokens")
        return KeypointTokens.load(path)

    def _guidance(self) -> KeypointGuidance:
        path = self.folder / "readers.guidance.safetensors"
        if not path.exists():
            fit_guidance(self.backbone, self.tokens, self.training, seed=self.seed, detection=HOW).save(path)
            note(f"{self.kind} {self.seed}: guidance")
        return KeypointGuidance.load(path)

    def points(self, name: str, images: ImageSet) -> Keypoints:
        """Keypoints of images, kept under a name."""
        path = self.samples / f"{name}.json"
        if not path.exists():
            path.write_text(detect(self.backbone, self.tokens, images, HOW).keypoints.to_json())
        return Keypoints.load(path)

    def seconds(self, pose: Keypoints) -> dict[str, float]:
        """CPU seconds of sampling two images with and without guidance: the least of three times, in turns."""
        path = self.samples / "seconds.json"
        if not path.exists():
            least = {"guided": math.inf, "unguided": math.inf}
            for _ in range(3):
                for name, steered in (("guided", True), ("unguided", False)):
                    start = time.process_time()
                    self._generate(pose.rows([0, 1]) if steered else None, 2, 0, "")
                    least[name] = min(least[name], time.process_time() - start)
            path.write_text(json.dumps(least))
        return json.loads(path.read_text())

    def _generate(self, pose: Keypoints | None, count: int, noise: int, points: str) -> list[np.ndarray]:
        return generate(
            self.generator,
            f"a {self.kind.removesuffix('s')}",
            pose,
            self.guidance if pose is not None else None,
            count=1 if pose is not None else count,
            seed=1000 * noise + self.seed,
            same_noise=False,
            steps=self.args.steps,
            points=points,
            config=GuideConfig(batch_size=8, **self.args.set),
            batch_size=8,
        )

    def sampled(self, name: str, pose: Keypoints | None, noise: int = 0, points: str = "") -> list[np.ndarray]:
        """Images, one for each held-out pose, kept under a name; not steered without `pose`."""
        path = self.samples / f"{name}.npz"
        if not path.exists():
            images = self._generate(pose, len(self.test), noise, points)
            np.savez_compressed(path, images=np.stack(images))
            note(f"{self.kind} {self.seed}: {name}")
        return list(np.load(path)["images"])


def note(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def measure(case: Case, judge, judge_error: float) -> dict:
    """All numbers of one class and seed; distances in % of the side."""
    pose = case.points("pose", case.test)
    side = pose.sizes[0, 0]
    target = pose.xy / side  # [B, K, 2]
    half = generator_for(case.seed, "half", case.kind)
    given = sorted(torch.randperm(pose.num_keypoints, generator=half)[: pose.num_keypoints // 2].tolist())
    free = [k for k in range(pose.num_keypoints) if k not in given]
    runs = {"unguided": (None, 0, ""), "guided": (pose, 0, ""), "half": (pose, 0, ",".join(map(str, given)))}
    runs |= {f"unguided {n}": (None, n, "") for n in OTHER_NOISE}
    images, found, seconds = {}, {}, case.seconds(pose)
    for name, how in runs.items():
        images[name] = case.sampled(name, *how)
        found[name] = case.points(f"found {name}", ImageSet.from_arrays(images[name])).xy / side
    away = {name: np.linalg.norm(xy - target, axis=-1) for name, xy in found.items()}  # [B, K]
    permuted = np.roll(target, 1, 0)
    joints = Keypoints.load(IMAGES / case.kind / "test" / "joints.json")
    row = {name: i for i, name in enumerate(joints.images)}
    true = torch.from_numpy(np.stack([joints.xy[row[n]] for n in case.test.names]) / side)  # [B, J, 2]
    with torch.no_grad():
        judged = {n: float((judge(shrunk(images[n])) - true).norm(dim=-1).mean()) for n in ("unguided", "guided")}
        judged["real"] = float((judge(shrunk([image for _, image in case.test])) - true).norm(dim=-1).mean())
    known = torch.from_numpy(case.points("training", case.training).xy / side)
    usual = case.tokens.spatial_prior.residual(known).quantile(0.95, dim=0)  # [K]
    fits = (case.tokens.spatial_prior.residual(torch.from_numpy(found["half"])) <= usual)[:, free]
    best = np.min([away[n].mean(1) for n in away if n.startswith("unguided")], axis=0)
    percent = {
        "error guided": away["guided"].mean(),
        "error unguided": away["unguided"].mean(),
        "best of 2 unguided": best.mean(),
        "to permuted poses, guided": np.linalg.norm(found["guided"] - permuted, axis=-1).mean(),
        "to permuted poses, unguided": np.linalg.norm(found["unguided"] - permuted, axis=-1).mean(),
        "to permuted poses, the poses asked for": np.linalg.norm(target - permuted, axis=-1).mean(),
        "half given: those, guided": away["half"][:, given].mean(),
        "half given: those, unguided": away["unguided"][:, given].mean(),
        "half given: free ones": away["half"][:, free].mean(),
        "judge: guided": judged["guided"],
        "judge: unguided": judged["unguided"],
        "judge: the held-out images": judged["real"],
        "judge: its test error": judge_error,
    }
    return {name: round(100 * float(value), 2) for name, value in percent.items()} | {
        "PCK 10 % guided": round(float((away["guided"] < 0.1).mean()), 3),
        "PCK 10 % unguided": round(float((away["unguided"] < 0.1).mean()), 3),
        "free points as plausible as training images": round(float(fits.float().mean()), 3),
        "CPU seconds guided": round(seconds["guided"], 2),
        "CPU seconds unguided": round(seconds["unguided"], 2),
        "reader errors %": [round(100 * e, 1) for e in case.guidance.errors],
        "always the mean %": round(100 * case.guidance.guess_error, 1),
    }


def quality(cases: list[Case]) -> dict:
    """Distances of feature statistics to real images, over all seeds of a class."""
    backbone, kind = cases[0].backbone, cases[0].kind
    real = mid_features(
        backbone, [image for split in ("train", "test") for _, image in load_folder(IMAGES / kind / split)]
    )
    out = {}
    for name in ("guided", "unguided"):
        samples = [image for case in cases for image in case.sampled(name, None)]
        out[name] = frechet(mid_features(backbone, samples), real)
    return out | {"ratio": out["guided"] / out["unguided"]}


def ratios(rows: list[dict]) -> dict:
    """The issue's measures from the means over seeds."""
    mean = {k: float(np.mean([row[k] for row in rows])) for k, v in rows[0].items() if not isinstance(v, list)}
    return {
        "re-detected error, guided / unguided": mean["error guided"] / mean["error unguided"],
        "PCK 10 % guided": mean["PCK 10 % guided"],
        "independent judge, guided / unguided": mean["judge: guided"] / mean["judge: unguided"],
        "to permuted poses, guided / unguided": mean["to permuted poses, guided"] / mean["to permuted poses, unguided"],
        "to permuted poses, guided / the poses asked for": mean["to permuted poses, guided"]
        / mean["to permuted poses, the poses asked for"],
        "guided / best of 2 unguided": mean["error guided"] / mean["best of 2 unguided"],
        "half given: those, guided / unguided": mean["half given: those, guided"] / mean["half given: those, unguided"],
        "free points as plausible as training images": mean["free points as plausible as training images"],
        "time, guided / unguided": mean["CPU seconds guided"] / mean["CPU seconds unguided"],
    } | {"means": {k: round(v, 3) for k, v in mean.items()}}


def save_sheet(case: Case, path: Path, columns: int = 8) -> None:
    """Held-out image, unguided, guided, half guided below each other, with the pose drawn on the first and third."""
    from stablekp_core.drawing.overlay import draw_keypoints

    pose, rows = case.points("pose", case.test), []
    for name, drawn in (("pose", True), ("unguided", False), ("guided", False), ("guided", True)):
        images = [image for _, image in case.test] if name == "pose" else case.sampled(name, None)
        cells = []
        for i in range(min(columns, len(images))):
            cell = np.asarray(Image.fromarray(images[i]).resize((192, 192), Image.Resampling.LANCZOS))
            if drawn:
                xy = pose.xy[i] * 192 / pose.sizes[i, 0]
                cell = draw_keypoints(cell, xy, pose.confidence[i], numbers=False, skeleton=())
            cells.append(np.pad(cell, ((2, 2), (2, 2), (0, 0)), constant_values=255))
        rows.append(np.concatenate(cells, 1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", default=["dolls", "faces"], choices=("dolls", "faces"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--poses", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="sampling steps")
    parser.add_argument("--set", type=json.loads, default={}, help='settings of GuideConfig as JSON, {"strength": 2}')
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "guidance")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "guidance.json")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--fit-only", action="store_true", help="train tokens and fit guidance, then stop")
    args = parser.parse_args()
    backbone = load_backbone("demo", "fp32", "cpu")
    generator = None if args.fit_only else open_generator(backbone, "demo")
    result = json.loads(args.output.read_text()) if args.output.exists() else {}
    done: dict[str, list[Case]] = {kind: [] for kind in args.classes}
    rows: dict[str, dict] = {kind: {} for kind in args.classes}
    for seed in args.seeds:
        for kind in args.classes:
            case = Case(args, backbone, generator, kind, seed)
            if args.fit_only:
                continue
            path = args.cache / f"judge_{kind}.pt"
            if not path.exists():
                torch.save(train_judge(backbone, kind), path)
                note(f"{kind}: judge")
            judge = torch.load(path, weights_only=False)  # this benchmark's own file
            done[kind].append(case)
            rows[kind][str(seed)] = measure(case, *judge)
            result[kind] = {"seeds": rows[kind], "quality": quality(done[kind]), **ratios(list(rows[kind].values()))}
            result["how"] = how(args)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(result, indent=1) + "\n")
            print(kind, json.dumps({k: v for k, v in result[kind].items() if k != "seeds"}, indent=1), flush=True)
            if args.sheets and seed == args.seeds[0]:
                args.sheets.mkdir(parents=True, exist_ok=True)
                save_sheet(case, args.sheets / f"guidance_{kind}.jpg")


def how(args) -> dict:
    """What the numbers were measured with."""
    threads = torch.get_num_threads()
    return {
        "command": f"python benchmarks/guidance.py --poses {args.poses} --seeds {' '.join(map(str, args.seeds))}",
        "poses": args.poses,
        "sampling steps": args.steps,
        "settings": GuideConfig(**args.set).to_dict(),
        "device": f"CPU, {threads} thread{'' if threads == 1 else 's'}",
        "dtype": "fp32",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


if __name__ == "__main__":
    main()
