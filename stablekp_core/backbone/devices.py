"""Devices and dtypes by name, and running out of memory: telling it from other errors, and making room."""

from __future__ import annotations

import torch

from ..errors import KeypointError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPE_CHOICES = ("auto", *DTYPES)
_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` says that memory ran out, on any device; what a GPU holds in reserve is then given back."""
    found = any(text in str(error).lower() for text in _TEXTS)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def choose_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if device != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(1, device=chosen)
            return chosen
        except (RuntimeError, AssertionError) as error:
            raise KeypointError(
                f"The device {device!r} cannot be used here ({str(error).splitlines()[0]}); use auto, cpu or cuda."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is fp32 on the CPU; elsewhere bf16 where the device has it, else fp16."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise KeypointError(f"There is no dtype {dtype!r}; use auto, {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
