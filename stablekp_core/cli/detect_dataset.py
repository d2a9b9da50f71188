"""The command `detect-dataset`: arguments to settings, a progress bar, the report."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from ..config import DetectConfig
from ..errors import KeypointError
from ..keypoints.tokens import KeypointTokens
from ..scale.cluster import Pool
from ..scale.dataset import Report, detect_dataset
from ..scale.engine import Done
from .options import config_from


def run(args: argparse.Namespace) -> None:
    """The command detect-dataset."""
    tokens, pool = (
        KeypointTokens.load(args.tokens_file),
        Pool(args.workers, args.cpus, args.gpus, args.address),
    )
    with tqdm(unit="part", desc="detecting") as bar:

        def show(report: Report, _: Done, total: int) -> None:
            bar.total = total
            bar.set_postfix(
                rows=report.rows,
                errors=report.errors,
                rows_per_s=f"{report.rows_per_second:.2f}",
                refresh=False,
            )
            bar.update(report.parts + len(report.failed) - bar.n)

        report = detect_dataset(
            args.input,
            args.output,
            tokens,
            config_from(args, DetectConfig),
            model=args.model,
            dtype=args.dtype,
            device=args.device,
            pool=pool,
            part_rows=args.part_rows,
            column=args.column,
            id_column=args.id_column,
            on_part=show,
        )
    print(f"{report.text()}\n{args.output}")
    if report.failed:
        number, reason = next(iter(sorted(report.failed.items())))
        raise KeypointError(
            f"{len(report.failed)} parts could not be made (part {number}: {reason}); start the same command "
            "again to make them."
        )
