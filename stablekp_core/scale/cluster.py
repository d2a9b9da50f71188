"""The machines of a big detection run: how many workers with what, and the Ray cluster they live in."""

from __future__ import annotations

import logging
import os
import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import KeypointError


@dataclass(frozen=True)
class Pool:
    """The workers. workers: how many; 0 = as many as the GPUs or cores allow. cpus: cores, so also threads,
    of each. gpus: share of a GPU for each (0.25: four on one); None = 1 where there are GPUs and the device
    allows. address: of a running Ray cluster; None = this machine."""

    workers: int = 0
    cpus: float = 1
    gpus: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 0 or self.cpus <= 0 or (self.gpus or 0) < 0:
            raise KeypointError(
                f"{self.workers} workers with {self.cpus:g} cores and {self.gpus or 0:g} GPUs each were "
                "asked for, but these must be positive numbers; 0 workers means as many as possible."
            )


def _ray():
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise KeypointError(
            "Detection with several workers needs Ray, which is not installed; install it with: pip install "
            '"ray[data]" pyarrow.'
        ) from error
    return ray


@contextmanager
def cluster(pool: Pool):
    """The `ray` module, connected: to the cluster that was connected before, to the one at `address`, or to
    one on this machine that ends with the context. Raises KeypointError when it cannot be reached."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # a dead worker is reported by its piece
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.ERROR)
    if pool.address:
        options["address"] = pool.address
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        options |= dict(num_cpus=max(cores, -int(-pool.workers * pool.cpus // 1)), include_dashboard=False)
    _reachable(pool.address)
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise KeypointError(
            f"There is no Ray cluster at {pool.address} ({str(error).splitlines()[0]}); check the "
            "address, or leave it out to use this machine."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reachable(address: str | None) -> None:
    """Raise KeypointError at once where nothing listens at HOST:PORT; Ray itself tries for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", address or "")
    if found:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise KeypointError(
                f"There is no Ray cluster at {address} ({str(error).rsplit('] ', 1)[-1]}); check the address, or leave "
                "it out to use this machine."
            ) from error


def settle(ray, pool: Pool, device: str) -> tuple[int, float, str]:
    """(workers, GPU share of each, device) for the resources there are; KeypointError when there are too few GPUs."""
    has = ray.cluster_resources()
    gpus = (
        pool.gpus if pool.gpus is not None else float(device.startswith("cuda") or (device == "auto" and "GPU" in has))
    )
    if gpus and not pool.address and has.get("GPU", 0) < gpus * max(pool.workers, 1):
        raise KeypointError(
            f"{max(pool.workers, 1)} workers with {gpus:g} GPUs each were asked for, but this machine has "
            f"{has.get('GPU', 0):g}; use fewer workers or a smaller share."
        )
    most = int(has.get("GPU", 0) / gpus) if gpus else int(has.get("CPU", 1) / pool.cpus)
    return (
        pool.workers or max(1, most),
        gpus,
        ("cuda" if device == "auto" else device) if gpus else ("cpu" if device == "auto" else device),
    )
