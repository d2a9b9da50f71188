"""Keypoints of whole data sets, millions of images, into Parquet parts: the command detect-dataset.

    report = detect_dataset("shards/*.tar", "keypoints", tokens, model="model.safetensors",
    pool=Pool(workers=8))

Needs Ray (the extra `scale`); docs/scale.md says what to expect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..backbone.checkpoint import load_model
from ..config import DetectConfig
from ..detection.detector import Detector
from ..errors import KeypointError
from ..keypoints.tokens import KeypointTokens
from .cluster import Pool, cluster
from .engine import Done, Job, everywhere, find_rows, read_ahead, run_pieces
from .inputs import Piece, find_pieces, piece_images
from .parts import Folder, part_bytes, part_name, read_plan, write_plan

REPORT = "_report.json"


@dataclass
class Report:
    """What a run did. rows, errors: images, and those of them that could not be read, of this run. parts:
    written by this run; skipped: there before; failed: number -> reason, to be made by starting again.
    seconds: from the first worker's first image to the last one's last. workers: name -> rows, busy seconds
    and memory in MB after its first and its last part, in order of time."""

    parts: int = 0
    skipped: int = 0
    rows: int = 0
    errors: int = 0
    seconds: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    workers: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began, self._ended = float("inf"), 0.0

    @property
    def rows_per_second(self) -> float:
        """Images per second of all workers together; 0 before the first part."""
        return self.rows / self.seconds if self.seconds else 0.0

    def add(self, done: Done) -> None:
        """Count one finished or failed piece."""
        if done.problem:
            self.failed[done.number] = done.problem
            return
        self.parts, self.rows, self.errors = self.parts + 1, self.rows + done.rows, self.errors + done.errors
        self._began, self._ended = min(self._began, done.began), max(self._ended, done.ended)
        self.seconds = self._ended - self._began
        mine = self.workers.setdefault(done.worker, {"rows": 0, "seconds": 0.0, "rss_mb_first": done.rss_mb})
        mine["rows"] += done.rows
        mine["seconds"] += done.ended - done.began
        mine["rss_mb_last"] = done.rss_mb

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "rows_per_second": self.rows_per_second}

    def text(self) -> str:
        """The report in a few lines."""
        lines = [
            f"{self.rows} rows ({self.errors} with an error) in {self.parts} parts, {self.skipped} parts "
            f"were there; {self.seconds:.1f} s, {self.rows_per_second:.2f} rows/s"
        ]
        lines += [
            f"  {name}: {w['rows']} rows, {w['rows'] / max(w['seconds'], 1e-9):.2f} rows/s, {w['rss_mb_last']:.0f} MB"
            for name, w in sorted(self.workers.items())
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class _WritePart:
    """Detect on a piece and write its part; runs in the workers."""

    output: str
    tokens: KeypointTokens

    def __call__(self, detector: Detector, number: int, text: str) -> tuple[int, int, bytes]:
        rows = find_rows(detector, read_ahead(piece_images(Piece.from_json(text))))
        Folder(self.output).write(part_name(number), part_bytes(rows, self.tokens, self.tokens.digest[:16]))
        return len(rows), sum(r.error is not None for r in rows), b""


def detect_dataset(
    source: str,
    output: str,
    tokens: KeypointTokens,
    config: DetectConfig | None = None,
    *,
    model: str = "demo",
    dtype: str = "auto",
    device: str = "auto",
    pool: Pool | None = None,
    part_rows: int = 500,
    column: str | None = None,
    id_column: str | None = None,
    on_part: Callable[[Report, Done, int], None] | None = None,
) -> Report:
    """Detect the keypoints on every image of `source` and write them as Parquet parts into the folder `output`.

    source: see `find_pieces`; output: a folder or fsspec URL. What an earlier run into this folder finished
    stays; new images in the source are added. on_part is called with the report so far, the part just done
    and the number of parts to make. Raises KeypointError when nothing is found or the folder belongs to a run
    with other settings; parts that could not be made are in `Report.failed`."""
    if part_rows < 1:
        raise KeypointError(f"part_rows is {part_rows}, but a part needs at least 1 row.")
    config, pool, folder = config or DetectConfig(), pool or Pool(), Folder(output)
    settings = {
        "input": str(source),
        "tokens": tokens.digest[:16],
        "model": load_model(model).hash[:16],
        "dtype": dtype,
        "detection": config.to_dict(),
    }
    pieces = read_plan(folder, settings)
    known = {url for piece in pieces for url in piece.urls()}
    new = find_pieces(source, part_rows, column, id_column, known, folder.url)
    with cluster(pool) as ray:
        folder.sweep()
        if new:
            pieces += new
            write_plan(folder, settings, pieces)
        there = folder.names()
        todo = [(n, piece.to_json()) for n, piece in enumerate(pieces) if part_name(n) not in there]
        report = Report(skipped=len(pieces) - len(todo))
        job = Job(everywhere(model), tokens, config, _WritePart(folder.url, tokens), dtype, device)
        missing = {number for number, _ in todo}
        for done in run_pieces(ray, job, todo, pool) if todo else ():
            missing.discard(done.number)
            report.add(done)
            if on_part is not None:
                on_part(report, done, len(todo))
        report.failed |= dict.fromkeys(missing, "the worker raised an error, which is shown above")
        folder.write(REPORT, json.dumps(report.to_dict(), indent=1).encode())
    return report
