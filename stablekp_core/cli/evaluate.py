"""The command `evaluate`: run a protocol of the paper, write its table and its numbers."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from .arguments import add_category, add_config, add_model, add_preset, config_from, path, whole
from .outputs import Output, check_outputs, write_text

if TYPE_CHECKING:
    from ..evaluation.datasets.common import Dataset
    from ..evaluation.protocol import Evaluation, Limits
    from ..keypoints.tokens import KeypointTokens


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    from ..evaluation.datasets import DATASETS

    p = commands.add_parser("evaluate", help="run a protocol of the paper on a data set and report its metrics")
    p.add_argument(
        "--dataset",
        required=True,
        choices=DATASETS,
        help="dolls and faces are built in; folder = your own "
        "images in ROOT/train and ROOT/test, each with COCO keypoints in one .json file",
    )
    p.add_argument("--root", type=path, help="folder with the data set's files as they are distributed")
    p.add_argument(
        "--tokens", dest="tokens_file", type=path, metavar="TOKENS", help="tokens to use instead of training"
    )
    p.add_argument(
        "--transfer", metavar="FROM", help="use tokens of other images (Table 5): a tokens file, or a data set"
    )
    p.add_argument("--transfer-root", type=path, help="folder with the files of the data set given as FROM")
    p.add_argument("--ablate", action="store_true", help="the five rows of Table 4, each trained on its own")
    p.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics by name (the paper's for the data set)")
    p.add_argument(
        "--cache",
        type=path,
        default=Path("evaluation_cache"),
        help="folder for finished stages; a stopped run goes on from there (evaluation_cache)",
    )
    p.add_argument(
        "--output",
        type=path,
        default=Path("evaluation.json"),
        help="the result; the table goes beside it as .txt (evaluation.json)",
    )
    p.add_argument("--limit", type=whole(1), metavar="N", help="at most N images of each split, for a quick run")
    for split in ("train", "regression", "test"):
        p.add_argument(f"--limit-{split}", type=whole(1), metavar="N", help=f"at most N images of the {split} split")
    p.add_argument("--workers", type=whole(1), default=1, help="processes for detection; more than 1 needs Ray (1)")
    p.add_argument("--data-seed", type=whole(), default=0, help="of the crops that are part of some protocols (0)")
    add_category(p, "labels")
    add_model(p)
    add_preset(p)
    p.add_argument("--num-tokens", dest="tokens", type=whole(2), metavar="N", help="learned tokens (500)")
    add_config(p, TrainConfig, "training; without --keypoints and --steps the paper's are used", skip=("tokens",))
    add_config(p, DetectConfig, "detection", skip=("map_size", "batch_size", "seed"))
    return p


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table, write it and the JSON file."""
    beside = args.output.with_suffix(".txt")
    check_outputs(
        [Output(args.output, "JSON"), Output(beside, "text"), Output(args.cache, "folder")], [args.tokens_file]
    )
    from ..backbone.loading import load_backbone
    from ..evaluation.metrics import metric
    from ..evaluation.protocol import Limits, ablate, limit_splits
    from .bars import Bars

    for name in args.metrics or ():
        metric(name)
    if args.ablate and (args.tokens_file or args.transfer):
        raise KeypointError("--ablate trains tokens for each of its rows; leave out --tokens and --transfer.")
    if args.tokens_file and args.transfer:
        raise KeypointError("--tokens and --transfer both say where the tokens come from; give one of them.")
    limits = Limits(
        *(args.limit if one is None else one for one in (args.limit_train, args.limit_regression, args.limit_test))
    )
    dataset = limit_splits(_open(args, args.dataset, args.root), limits)
    source, origin = _source(args, limits)
    backbone, bars = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute), Bars()
    detect_config = config_from(args, DetectConfig)
    options = dict(metrics=args.metrics, cache=args.cache, workers=args.workers, on_progress=bars)
    try:
        if args.ablate:
            rows = dict(ablate(backbone, dataset, train_config(args, dataset), detect_config, **options))
        else:
            rows = {origin: _one(args, backbone, source, dataset, detect_config, options)}
    finally:
        bars.close()
    first = next(iter(rows.values()))
    text = table(dataset, rows)
    report = {
        "dataset": dataset.name,
        "from": dataset.where,
        "tokens_from": dataset.name if source is None else origin,
        "metrics": {n: metric(n).unit for n in first.metrics},
        "model": {
            "name": backbone.name,
            "hash": backbone.hash,
            "device": str(backbone.device),
            "dtype": str(backbone.dtype).removeprefix("torch."),
        },
        "preset": args.preset,
        "seeds": {"training": first.train.get("seed"), "detection": detect_config.seed, "data": args.data_seed},
        "limits": vars(limits),
        "versions": versions(),
        "command": " ".join(sys.argv[1:]),
        "rows": {name: row.to_dict() for name, row in rows.items()},
    }
    write_text(args.output, json.dumps(report, indent=1))
    write_text(beside, text)
    print(f"{text}\n{args.output}")


def train_config(args: argparse.Namespace, dataset: Dataset) -> TrainConfig:
    """The preset and the given flags, with the paper's K and number of steps for the data set where none is
    given."""
    given = argparse.Namespace(**vars(args))
    given.keypoints = dataset.keypoints if args.keypoints is None else args.keypoints
    given.steps = dataset.steps if args.steps is None else args.steps
    return config_from(given, TrainConfig)


def _open(args: argparse.Namespace, name: str, root: Path | None) -> Dataset:
    from ..evaluation.datasets import open_dataset

    category = args.category if name == "folder" else None
    return open_dataset(name, root, args.data_seed, reference=args.preset == "reference", category=category)


def _source(args: argparse.Namespace, limits: Limits) -> tuple[KeypointTokens | Dataset | None, str]:
    """(tokens to use, or the other data set to train them on, or None for the data set itself; the name of
    the row in the table)."""
    from ..evaluation.datasets import BUILT_IN, DATASETS
    from ..evaluation.protocol import limit_splits
    from ..keypoints.tokens import KeypointTokens

    if args.tokens_file:
        return KeypointTokens.load(args.tokens_file), args.tokens_file.name
    if not args.transfer:
        return None, args.dataset
    if args.transfer not in DATASETS:
        path = Path(args.transfer)
        if not path.is_file():
            raise KeypointError(
                f"{args.transfer} is neither a tokens file nor a data set; the data sets are {', '.join(DATASETS)}."
            )
        return KeypointTokens.load(path), f"{path.name} -> {args.dataset}"
    if args.transfer_root is None and args.transfer not in BUILT_IN:
        raise KeypointError(f"Tokens of {args.transfer} have to be trained; give its folder with --transfer-root.")
    return limit_splits(_open(args, args.transfer, args.transfer_root), limits), f"{args.transfer} -> {args.dataset}"


def _one(args: argparse.Namespace, backbone, source, dataset: Dataset, detect_config: DetectConfig, options: dict):
    """The row of a run without --ablate."""
    from ..evaluation.datasets.common import Dataset
    from ..evaluation.protocol import evaluate, transfer

    if isinstance(source, Dataset):
        return transfer(backbone, source, dataset, train_config(args, source), detect_config, **options)
    return evaluate(backbone, dataset, train_config(args, dataset), detect_config, tokens=source, **options)


def table(dataset: Dataset, rows: dict[str, Evaluation]) -> str:
    """The results as text, one line per row and metric."""
    from ..evaluation.metrics import metric
    from ..evaluation.protocol import PAPER_ABLATION

    head = ("tokens", "K", "metric", "value", "intercept", "mean guess", "paper", "unit")
    lines = [head]
    for name, row in rows.items():
        for key, value in row.metrics.items():
            paper = dataset.paper.get((key, row.keypoints))
            if len(rows) > 1:
                ablated = dataset.name == "cub_all" and key == "visible_mean_image" and row.keypoints == 4
                paper = PAPER_ABLATION.get(name) if ablated else None
            elif name != dataset.name:
                paper = None  # the paper's number is for tokens of this data set
            shown = (f"{number:.2f}" for number in (value, row.with_intercept[key], row.baseline[key]))
            unit = metric(key).unit + (", higher is better" if metric(key).higher else "")
            lines.append((name, str(row.keypoints), key, *shown, "" if paper is None else f"{paper:g}", unit))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "-" * max(map(len, text)))
    return "\n".join([f"{dataset.name}: {_counts(next(iter(rows.values())))}", *text]) + "\n"


def _counts(row: Evaluation) -> str:
    parts = []
    for which, count in row.counts.items():
        skipped = f", {len(count['skipped'])} skipped" if count["skipped"] else ""
        dropped = "".join(f", {n} dropped ({reason})" for reason, n in count["dropped"].items())
        parts.append(f"{which} {count['used']} of {count['listed']}{skipped}{dropped}")
    if row.left_out:
        parts.append(f"landmarks left out: {', '.join(map(str, row.left_out))}")
    return "; ".join(parts)


def versions() -> dict[str, Any]:
    """What the numbers were made with."""
    found = {"stable-keypoints": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "numpy", "pillow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
