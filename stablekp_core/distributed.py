"""Several processes on one run: who takes which pictures of a batch, and sums over processes.

Built on torch.distributed, which `accelerate launch` (or torchrun) describes in the environment; without it there is
one process and nothing here does anything.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ranks:
    """This process's number among `size` processes."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> Ranks:
        """The group `start_processes` joined, or a group of one."""
        d = torch.distributed
        if d.is_available() and d.is_initialized():
            return Ranks(d.get_rank(), d.get_world_size())
        return Ranks()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> list[int]:
        """Which of `count` items are this process's."""
        return list(range(self.rank, count, self.size))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor summed over processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor
