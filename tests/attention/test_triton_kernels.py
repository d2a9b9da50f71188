"""The Triton kernels on the CPU, and what happens without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stablekp_core.attention import token_maps


def test_kernels_under_the_interpreter():
    """In a process of its own: Triton must be imported for interpretation from the start."""
    pytest.importorskip("triton", reason="Triton is not installed")
    cases = Path(__file__).parents[1] / "triton_cases.py"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        text=True,
        capture_output=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=cases.parent.parent,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_kernels_cuda_says_so_and_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # import triton fails
    monkeypatch.delitem(sys.modules, "stablekp_core.attention.token_maps.triton_kernels", raising=False)
    monkeypatch.delattr("stablekp_core.attention.token_maps.triton_kernels", raising=False)
    token_maps._fused.cache_clear()
    with pytest.warns(UserWarning, match="plain PyTorch"):
        assert token_maps._fused(torch.device("cuda", 0)) is None
    token_maps._fused.cache_clear()
    assert token_maps._fused(torch.device("cpu")) is None
