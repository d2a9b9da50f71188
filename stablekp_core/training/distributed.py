"""Several processes in one run: how they join, which images of a batch each one takes, and sums over processes.

    accelerate launch --multi_gpu --num_processes 8 -m stablekp_core train IMAGES TOKENS.safetensors ...

`accelerate launch` (or torchrun, or mpirun) describes the processes in the environment; Accelerate joins
them, over NCCL on CUDA and over Gloo on CPUs. Without a launcher there is one process and all of this does nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbone.devices import choose_device
from ..errors import KeypointError
from ..files import write_atomically

# Set by accelerate launch and torchrun, by Intel MPI and MPICH, by Open MPI, by MVAPICH.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Ranks:
    """The number of this process among `size` processes."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> Ranks:
        """The number and size of the group that `process_group` joined, or those of a single process."""
        d = torch.distributed
        if d.is_available() and d.is_initialized():
            return Ranks(d.get_rank(), d.get_world_size())
        return Ranks()

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def share(self, count: int) -> list[int]:
        """The indices, of 0 to `count` - 1, of the items that this process works on."""
        return list(range(self.rank, count, self.size))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all processes, computed in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def of_first(self, value: Any) -> Any:
        """What the first process has as `value`, in every process: what lies on its disk decides for all, so that none
        ends while others wait."""
        box = [value]
        if self.size > 1:
            torch.distributed.broadcast_object_list(box, 0)
        return box[0]

    @contextmanager
    def first_copy(self, path: Path) -> Iterator[Path]:
        """Within the context, a path to the file that the first process has at `path`; no file exists there if it has
        none.

        In the first process it is `path` itself. The others get a temporary copy: they may run on other machines,
        where `path` is absent or is left over from an older run.
        """
        if self.size == 1:
            yield path
            return
        content = self.of_first(path.read_bytes() if self.first and path.is_file() else None)
        if self.first:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            if content is not None:
                write_atomically(copy, content)
            yield copy


def launched_processes() -> int:
    """The number of processes that the launcher started; 1 without a launcher."""
    return max([1, *(int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit())])


@contextmanager
def process_group(device: str = "auto") -> Iterator[tuple[Ranks, str]]:
    """Within the context, this process belongs to the group that was launched; yields (its ranks, its device).

    device: "auto", "cpu" or "cuda"; every process gets a GPU of its own where there are GPUs. A single process gets
    `device` as it was given. Raises KeypointError for a device that several processes cannot share, when Accelerate is
    missing, and when fewer processes join than were launched.
    """
    if launched_processes() == 1:
        yield Ranks(), device
        return
    if device not in ("auto", "cpu", "cuda"):
        raise KeypointError(
            f"The device {device!r} was given to {launched_processes()} processes, but each needs one of "
            "its own; use auto, cpu or cuda."
        )
    cpu = choose_device(device).type != "cuda"
    try:
        from accelerate import PartialState
    except ModuleNotFoundError as error:
        raise KeypointError(
            f"{launched_processes()} processes were launched, but Accelerate is not installed; pip install "
            "accelerate, or start one process."
        ) from error
    state = PartialState(cpu=True, backend="gloo") if cpu else PartialState()
    ranks = Ranks.current()
    if ranks.size != launched_processes():
        raise KeypointError(
            f"{launched_processes()} processes were launched, but this one finds {ranks.size}; start them "
            "with accelerate launch."
        )
    yield ranks, "cpu" if cpu else str(state.device)
    # Only after success: when this process fails, others may still wait in a sum, and leaving would wait for
    # them.
    state.destroy_process_group()
