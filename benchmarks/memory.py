"""Peak memory: of the map stage, naive against product, and of a whole training step at Stable Diffusion 1.5's shape.

    python benchmarks/memory.py                       # both; the step is 512 px, N=500, R=128, batch 4
    python benchmarks/memory.py --dtype bf16 --micro-batch 1

On a CPU memory is counted, not sampled: `LiveBytes` adds up the storages that PyTorch operations create and subtracts
them when they are freed, so that what else the process holds does not matter. On CUDA the allocator's own peak is read.
"""

from __future__ import annotations

import argparse
import json
import weakref

import naive
import torch
from models import demo, map_inputs, random_sd15
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from stablekp_core.attention import token_maps
from stablekp_core.config import TrainConfig
from stablekp_core.images.affine import random_affine
from stablekp_core.randomness import generator_for
from stablekp_core.training.trainer import training_step


class LiveBytes(TorchDispatchMode):
    """Counts bytes of storages born under it: `now` alive, `peak` most alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def _remember(self, t: torch.Tensor, size: int) -> None:
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size
        weakref.finalize(storage, self._forget, key)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_iter(out):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in inputs:
                self._remember(t, t.untyped_storage().nbytes())
        return out


def peak_bytes(function, device: str = "cpu") -> int:
    """Most bytes alive during `function()` beyond what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as counter:
        function()
    return counter.peak


def product_maps(queries, inputs, size: int) -> torch.Tensor:
    """[K, R, R] as the package computes them, from queries [1, s*s, C]."""
    logits = [
        torch.matmul(q[0].unflatten(-1, (len(k), -1)).transpose(0, 1) * k.shape[-1] ** -0.5, k.transpose(-1, -2))[None]
        for q, k in zip(queries, inputs.keys, strict=True)
    ]
    maps = token_maps.token_maps([x.detach() for x in logits], size)
    return token_maps.chosen_maps(logits, maps, inputs.chosen[None])[0]


def map_memory(tokens: int, size: int, device: str = "cpu") -> dict:
    """Peak bytes of queries -> maps, forward and backward, for one image."""
    inputs = map_inputs(tokens, device=device)
    heads = len(inputs.keys[0])

    def run_naive():
        maps = naive.maps_from_queries(inputs.queries, inputs.keys, heads, size)
        maps[inputs.chosen].square().sum().backward()

    def run_product():
        product_maps(inputs.queries, inputs, size).square().sum().backward()

    slow = peak_bytes(run_naive, device)
    inputs.reset()
    fast = peak_bytes(run_product, device)
    return {"tokens": tokens, "map_size": size, "naive_mb": slow / 1e6, "product_mb": fast / 1e6, "ratio": slow / fast}


def step_memory(backbone, config: TrainConfig, side: int) -> dict:
    """Peak bytes of one optimiser step beyond the weights: micro-batches one after the other, Adam's moments and the
    encoding of the views included."""
    b, micro = config.batch_size, config.micro_batch or config.batch_size
    g = generator_for(0, "memory benchmark")
    device = backbone.device

    def run():
        tokens = torch.randn(config.tokens, backbone.width, generator=g).to(device).requires_grad_()
        adam = torch.optim.Adam([tokens], lr=1e-3)
        theta = random_affine(b, config.rotation, config.scale, config.translation, g)
        for i in range(0, b, micro):
            images = torch.rand(2 * micro, 3, side, side, generator=g)
            latents = backbone.encode(images)
            noise = torch.randn(latents.shape, generator=g).to(device)
            out = training_step(backbone, config, tokens, latents[:micro], latents[micro:], theta[i : i + micro], noise)
            (out.total.sum() / b).backward()
        adam.step()

    return {
        "peak_gb": peak_bytes(run, device.type) / 1e9,
        "tokens": config.tokens,
        "map_size": config.map_size,
        "batch": b,
        "micro_batch": micro,
        "side": side,
        "recompute": backbone.recompute,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": device.type,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "demo"), default="sd15")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--keep-activations", action="store_true", help="without gradient checkpointing")
    args = parser.parse_args()
    print(json.dumps({"map stage": map_memory(args.tokens, 128, args.device)}, indent=1), flush=True)
    backbone = {"sd15": random_sd15, "demo": demo}[args.model](args.dtype, args.device)
    backbone.recompute = not args.keep_activations
    config = TrainConfig(tokens=args.tokens, map_size=128, batch_size=args.batch, micro_batch=args.micro_batch)
    print(json.dumps({"training step": step_memory(backbone, config, args.side)}, indent=1))


if __name__ == "__main__":
    main()
