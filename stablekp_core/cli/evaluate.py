"""The command `evaluate`: arguments to settings, progress bars, the table and the JSON file."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..backbone.loading import load_backbone
from ..config import DetectConfig, TrainConfig
from ..errors import KeypointError
from ..evaluation.datasets import BUILT_IN, DATASETS, open_dataset
from ..evaluation.datasets.common import Dataset
from ..evaluation.metrics import metric
from ..evaluation.protocol import PAPER_ABLATION, Evaluation, Limits, ablate, evaluate, limit_splits, transfer
from ..files import write_atomically
from ..keypoints.tokens import KeypointTokens
from .bars import Bars
from .options import config_from


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table, write it and the JSON file."""
    for name in args.metrics or ():
        metric(name)
    if args.ablate and (args.tokens_file or args.transfer):
        raise KeypointError("--ablate trains tokens for each of its rows; leave out --tokens and --transfer.")
    if args.tokens_file and args.transfer:
        raise KeypointError("--tokens and --transfer both say where the tokens come from; give one of them.")
    if args.workers < 1:
        raise KeypointError(f"workers is {args.workers}, but it must be at least 1.")
    limits = Limits(
        *(args.limit if one is None else one for one in (args.limit_train, args.limit_regression, args.limit_test))
    )
    dataset = limit_splits(open_dataset(args.dataset, args.root, args.data_seed), limits)
    source, origin = _source(args, limits)
    backbone, bars = load_backbone(args.model, args.dtype, args.device, args.compile, args.recompute), Bars()
    look = config_from(args, DetectConfig)
    options = dict(metrics=args.metrics, cache=args.cache, workers=args.workers, on_progress=bars)
    try:
        if args.ablate:
            rows = dict(ablate(backbone, dataset, train_config(args, dataset), look, **options))
        else:
            rows = {origin: _one(args, backbone, source, dataset, look, options)}
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
        "seeds": {"training": first.train.get("seed"), "detection": look.seed, "data": args.data_seed},
        "limits": vars(limits),
        "versions": versions(),
        "command": " ".join(sys.argv[1:]),
        "rows": {name: row.to_dict() for name, row in rows.items()},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output, (json.dumps(report, indent=1) + "\n").encode())
    write_atomically(args.output.with_suffix(".txt"), text.encode())
    print(f"{text}\n{args.output}")


def train_config(args: argparse.Namespace, dataset: Dataset) -> TrainConfig:
    """The preset and the given flags, with the paper's K and number of steps for the data set where none is
    given."""
    given = argparse.Namespace(**vars(args))
    given.keypoints = dataset.keypoints if args.keypoints is None else args.keypoints
    given.steps = dataset.steps if args.steps is None else args.steps
    return config_from(given, TrainConfig)


def _source(args: argparse.Namespace, limits: Limits) -> tuple[KeypointTokens | Dataset | None, str]:
    """(tokens to use, or the other data set to train them on, or None for the data set itself; the name of
    the row in the table)."""
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
    source = open_dataset(args.transfer, args.transfer_root, args.data_seed)
    return limit_splits(source, limits), f"{args.transfer} -> {args.dataset}"


def _one(args: argparse.Namespace, backbone, source, dataset: Dataset, look: DetectConfig, options: dict):
    """The row of a run without --ablate."""
    if isinstance(source, Dataset):
        return transfer(backbone, source, dataset, train_config(args, source), look, **options)
    return evaluate(backbone, dataset, train_config(args, dataset), look, tokens=source, **options)


def table(dataset: Dataset, rows: dict[str, Evaluation]) -> str:
    """The results as text, one line per row and metric."""
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
