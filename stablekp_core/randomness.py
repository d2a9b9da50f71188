"""Random generators that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator for one purpose of one run: the same arguments, the same numbers, in any process."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def image_order(seed: int, start: int, count: int, images: int) -> list[int]:
    """Image indices number `start` to `start + count` of an endless sequence of shuffled epochs."""
    out: list[int] = []
    while len(out) < count:
        epoch, offset = divmod(start + len(out), images)
        order = torch.randperm(images, generator=generator_for(seed, "epoch", epoch)).tolist()
        out += order[offset : offset + count - len(out)]
    return out
