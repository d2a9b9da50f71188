"""Detection by a pool of workers: Ray Data hands out pieces of the input, each worker holds the model and
works on one piece at a time. It knows nothing of what happens to the results, and leaves retries and machines
to Ray."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbone.backbone import Backbone
from ..backbone.devices import choose_device
from ..backbone.loading import load_backbone
from ..config import DetectConfig
from ..detection.detector import Detector
from ..errors import KeypointError
from ..images.files import BrokenImage
from ..keypoints.keypoints import POINT_FIELDS
from ..keypoints.tokens import KeypointTokens
from .cluster import Pool, settle
from .parts import Row

READERS = 4  # threads that read and decode for one worker
AHEAD = 8  # images decoded ahead of the model
RETRIES = 3  # times that a piece is begun again after its worker died
ERRORS = 20  # pieces that may raise before the run ends


@dataclass(frozen=True)
class Job:
    """What every worker does. model: a name or path that every machine can open, or a Backbone, which is
    sent. process: what to do with a piece, given the worker's Detector and the piece's (number, text); returns
    (rows, errors, payload). retries: times that a piece is begun again after its worker died."""

    model: str | Backbone
    tokens: KeypointTokens
    config: DetectConfig
    process: Callable[[Detector, int, str], tuple[int, int, bytes]]
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 1
    retries: int = RETRIES
    attempts: Any = None  # handle of the Attempts that all workers share


class Attempts:
    """Counts how often each piece was begun; an actor of its own, so that it outlives the workers."""

    def __init__(self):
        self.count: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Count one more attempt at piece `number`; how many there were, this one included."""
        self.count[number] = self.count.get(number, 0) + 1
        return self.count[number]


@dataclass(frozen=True)
class Done:
    """One piece. began, ended: time.time() of the worker; rss_mb: the worker's memory then; problem: why the
    piece has to be done again, or ""; fatal: why no worker can do any piece, or ""; notice: warnings about
    the model."""

    number: int
    rows: int
    errors: int
    payload: bytes
    began: float
    ended: float
    worker: str
    rss_mb: float
    problem: str = ""
    fatal: str = ""
    notice: str = ""


def rss_mb() -> float:
    """Resident memory of this process in MB; 0 where the system does not report it."""
    try:
        resident = Path("/proc/self/statm").read_text("ascii").split()[1]
        return int(resident) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, AttributeError):  # no /proc, no sysconf
        return 0.0


def read_ahead(
    items: Iterable[tuple[str, Callable[[], np.ndarray]]],
) -> Iterator[tuple[str, np.ndarray | str]]:
    """(id, image, or why it cannot be read) for (id, function that reads it), in order, a few ahead in
    threads."""

    def attempt(fetch: Callable[[], np.ndarray]) -> np.ndarray | str:
        try:
            return fetch()
        except BrokenImage as error:
            return error.reason
        except KeypointError as error:
            return str(error)

    waiting: deque = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for name, fetch in items:
            waiting.append((name, pool.submit(attempt, fetch)))
            if len(waiting) > AHEAD:
                done = waiting.popleft()
                yield done[0], done[1].result()
        while waiting:
            done = waiting.popleft()
            yield done[0], done[1].result()


def find_rows(detector: Detector, items: Iterable[tuple[str, np.ndarray | str]]) -> list[Row]:
    """A Row for every (id, image, or why there is none), in order; images share passes of the model."""
    rows: list[Row] = []
    waiting: deque[int] = deque()  # indices of the rows whose images are being processed

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        for name, image in items:
            if isinstance(image, str):
                rows.append(Row(name, error=image))
            else:
                waiting.append(len(rows))
                rows.append(Row(name))
                yield name, image

    for found in detector.stream(readable()):
        k, i = found.keypoints, waiting.popleft()
        points = {name: getattr(k, name)[0] for name in POINT_FIELDS}
        rows[i] = Row(rows[i].image_id, *map(int, k.sizes[0]), points, found.spread[0])
    return rows


class Worker:
    """One process with the model in memory; Ray Data calls it with tables of pieces."""

    def __init__(self, job_reference):
        import ray

        self.job: Job = ray.get(job_reference[0])
        torch.set_num_threads(self.job.threads)
        self.name, self.fatal, self.detector = f"{socket.gethostname()}:{os.getpid()}", "", None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                self.detector = Detector(self._backbone(), self.job.tokens, self.job.config)
            except (
                KeypointError,
                OSError,
            ) as error:  # reported with the first piece: Ray would start the worker again
                self.fatal = str(error)
        self.notice = " ".join(str(w.message) for w in caught if str(w.message).startswith("these tokens"))

    def _backbone(self) -> Backbone:
        model = self.job.model
        if isinstance(model, str):
            return load_backbone(model, self.job.dtype, self.job.device)
        device = choose_device(self.job.device)
        return dataclasses.replace(model, unet=model.unet.to(device), vae=model.vae.to(device), device=device)

    def __call__(self, table):
        """Do the pieces of a pyarrow table (number, piece); a table with one row a piece, the fields of `Done`."""
        import pyarrow as pa

        return pa.Table.from_pylist([self._one(**row) for row in table.to_pylist()])

    def _one(self, number: int, piece: str) -> dict[str, Any]:
        began, found, problem, fatal = time.time(), (0, 0, b""), "", self.fatal
        try:
            if not fatal:
                found, problem = self._process(number, piece)
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            reason = str(error).splitlines()[0]
            fatal = f"a worker ran out of memory ({reason}); lower batch_size, or start fewer workers"
        return dataclasses.asdict(
            Done(number, *found, began, time.time(), self.name, rss_mb(), problem, fatal, self.notice)
        )

    def _process(self, number: int, piece: str) -> tuple[tuple[int, int, bytes], str]:
        """(the result of `Job.process`, "") or (nothing, the problem)."""
        import ray
        from pyarrow import ArrowInvalid

        # Ray repeats the piece of a dead worker for ever; one that kills every worker must not hold up the
        # others.
        if ray.get(self.job.attempts.begin.remote(number)) > self.job.retries + 1:
            return (0, 0, b""), f"{self.job.retries + 1} workers died over it"
        try:
            return self.job.process(self.detector, number, piece), ""
        except (OSError, ArrowInvalid) as error:  # storage: tried again by the next run
            return (0, 0, b""), f"{type(error).__name__}: {error}"


def everywhere(model: str) -> str:
    """A model's path as other processes need it; names stay."""
    if model == "demo":  # the built-in one, whatever folders lie here
        return model
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model


def run_pieces(ray, job: Job, pieces: Sequence[tuple[int, str]], pool: Pool) -> Iterator[Done]:
    """Process (number, text) pieces; yields each one once when it is done, in any order.

    A worker that dies is replaced and its piece begun again, `Job.retries` times; then `Done.problem` says
    so. Pieces that raise anything but an OSError are missing from what is yielded; after `ERRORS` of them the
    run ends. Raises KeypointError when a worker cannot open the model or has too little memory."""
    workers, gpus, device = settle(ray, pool, job.device)
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    sent = ray.put(
        dataclasses.replace(
            job, model=_sendable(job.model), device=device, threads=max(1, int(pool.cpus)), attempts=attempts
        )
    )
    context = ray.data.DataContext.get_current()
    said: set[str] = set()
    ours = dict(enable_progress_bars=False, print_on_execution_start=False, max_errored_blocks=ERRORS)
    before = {name: getattr(context, name) for name in ours}
    _set(context, ours)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        data = ray.data.from_items(
            [{"number": n, "piece": text} for n, text in pieces], override_num_blocks=len(pieces)
        )
        data = data.map_batches(
            Worker,
            fn_constructor_args=([sent],),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.cpus,
            num_gpus=gpus or None,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(pieces)), max_tasks_in_flight_per_actor=2),
        )
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in table.to_pylist():
                if row["fatal"]:
                    raise KeypointError(row["fatal"])
                if row["notice"] and row["notice"] not in said:
                    said.add(row["notice"])
                    warnings.warn(row["notice"], stacklevel=2)
                yield Done(**row)
    finally:
        _set(context, before)


def _set(context, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(context, name, value)


def _sendable(model: str | Backbone) -> str | Backbone:
    """A Backbone goes from CPU to CPU, whatever device it is on here."""
    if isinstance(model, str) or model.device.type == "cpu":
        return model
    unet, vae = (copy.deepcopy(part).cpu() for part in (model.unet, model.vae))
    return dataclasses.replace(model, unet=unet, vae=vae, device=torch.device("cpu"))
