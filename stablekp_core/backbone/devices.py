"""Devices and dtypes by name, and out-of-memory errors: how to recognise one and free memory after it."""

from __future__ import annotations

import logging

import torch

from ..errors import KeypointError

_log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` says that memory ran out, on any device; the unused memory that PyTorch holds on a GPU is then
    freed."""
    found = any(text in str(error).lower() for text in _TEXTS)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto": CUDA, else Apple's MPS, else the CPU. Raises KeypointError for one that cannot
    be used here."""
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
    """The dtype of that name (DTYPE_CHOICES); "auto": fp32 on the CPU, elsewhere bf16 where the device has it, else
    fp16. A warning is logged for fp16 on a CPU. Raises KeypointError for another name."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise KeypointError(f"There is no dtype {dtype!r}; use auto, {', '.join(DTYPES)}.")
        if (dtype, device.type) == ("fp16", "cpu"):
            _log.warning("fp16 is for GPUs: a CPU takes as long as in fp32, which is more exact; bf16 may be faster.")
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
