"""The command `detect-dataset`: find keypoints on very many images."""

from __future__ import annotations

import argparse

from ..config import DetectConfig
from ..errors import KeypointError
from .arguments import add_config, add_model, add_preset, config_from, number, path, whole


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    p = commands.add_parser(
        "detect-dataset", help="find keypoints on very many images, with several processes or machines"
    )
    p.add_argument(
        "input",
        help="a folder, file or pattern (*) of images, .tar shards or .parquet files; a path, "
        "or a URL such as s3://bucket/shards/*.tar",
    )
    p.add_argument(
        "output", help="folder for the Parquet parts, a path or URL; started again, what is there is not made again"
    )
    p.add_argument("--tokens", dest="tokens_file", type=path, required=True, help="the file that train wrote")
    p.add_argument(
        "--workers",
        type=whole(0),
        default=0,
        help="processes, each with the model in memory; 0 = as many as the GPUs or cores allow (0)",
    )
    p.add_argument("--cpus", type=number(above=0), default=1, help="cores, and threads, of each worker (1)")
    p.add_argument(
        "--gpus", type=number(0), help="share of a GPU for each worker, such as 0.5 (1 where there are GPUs)"
    )
    p.add_argument("--address", help="of a running Ray cluster, or auto (this machine alone)")
    p.add_argument("--part-rows", type=whole(1), default=500, help="images per part; tar shards stay whole (500)")
    p.add_argument("--column", help="Parquet column with images, as bytes or paths (else found by common names)")
    p.add_argument("--id-column", help="Parquet column with the images' ids (the path, or FILE#ROW)")
    add_model(p)
    add_preset(p)
    add_config(p, DetectConfig, "detection")
    return p


def run(args: argparse.Namespace) -> None:
    """Find keypoints on very many images; raises KeypointError when some parts could not be made."""
    from tqdm import tqdm

    from ..keypoints.tokens import KeypointTokens
    from ..scale.cluster import Pool
    from ..scale.dataset import Report, detect_dataset
    from ..scale.engine import Done

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
