"""Running out of memory: telling it from other errors, and making room."""

from __future__ import annotations

import torch

_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` says that memory ran out, on any device; what a GPU holds in reserve is then given back."""
    found = any(text in str(error).lower() for text in _TEXTS)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found
