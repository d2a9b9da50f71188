"""Attention processors that capture the queries of a UNet, end its pass after the last one, and are taken out again.

Also here, sharing the processors: blocks that are computed again in the backward pass, and the keys of tokens.
Knows diffusers' UNets, nothing of latents, losses or files.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

SMALL_ATTENTION = 2**17  # positions times tokens


def captured_layers(unet) -> tuple[str, ...]:
    """Names of the first four cross-attentions of the up path (Eq. 3's layers 7 to 10)."""
    names = [name for name, _ in unet.named_modules() if name.startswith("up_blocks.") and name.endswith(".attn2")]
    return tuple(names[:4])


class LastQuery(Exception):
    """Raised by the last captured layer to end the UNet's forward pass."""


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Attention of q [B, h, P, d] to k, v [B, h, N, d]: PyTorch's fused function, except where its backward pass is
    slower than the plain formula (few positions in bf16 on a CPU)."""
    small = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] * k.shape[2] <= SMALL_ATTENTION
    if small and mask is None and q.requires_grad:
        return torch.softmax(torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)), -1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class _TokenAttention:
    """Cross-attention processor: keys and values of shared tokens are projected once for the whole batch."""

    def __init__(self, name: str, found: dict | None, stop: bool):
        self.name, self.found, self.stop = name, found, stop

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, mask=None):
        b = hidden_states.shape[0]
        q = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, h, P, d]
        if self.found is not None:
            self.found[self.name] = q
        if self.stop:
            raise LastQuery
        k = attn.to_k(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [1|B, h, N, d]
        v = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        if mask is not None:
            mask = mask[:, None].to(q.dtype)  # [B, 1, 1, N]
        out = _attend(q, k.expand(b, -1, -1, -1), v.expand(b, -1, -1, -1), mask)
        out = out.transpose(1, 2).flatten(2)  # [B, P, C]
        return attn.to_out[1](attn.to_out[0](out))


class _SelfAttention:
    """Self-attention processor that ignores the extra argument of the cross-attentions."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, mask=None):
        q, k, v = (
            f(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for f in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = _attend(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


@contextmanager
def _installed(unet, processors):
    """Within the context, the UNet has other attention processors; the former ones are restored at the end, also after
    an error."""
    before = dict(unet.attn_processors)
    unet.set_attn_processor(dict(processors))
    try:
        yield
    finally:
        unet.set_attn_processor(before)


@contextmanager
def _recomputed(unet, layers, processors):
    """Within the context, residual and transformer blocks keep only their inputs and are computed again in the backward
    pass with the same processors. Blocks with a captured query are left as they are: the last one ends the pass."""

    def again(forward, *args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _installed(unet, processors)),
            **kwargs,
        )

    blocks = [
        module
        for name, module in unet.named_modules()
        if type(module).__name__ in ("ResnetBlock2D", "BasicTransformerBlock")
        and not any(layer.startswith(name + ".") for layer in layers)
    ]
    for block in blocks:
        block.forward = partial(again, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def queries(unet, layers, stop: bool = True, recompute: bool = False):
    """Within the context, calls of the UNet fill the yielded dict: layer name -> queries [B, heads, P, d] (Q of Eq. 2).

    stop: a call ends at the last layer by raising `LastQuery`. recompute: blocks are computed again in the backward
    pass instead of keeping what they need for it. The former processors are restored at the end, also after an error.
    """
    before = dict(unet.attn_processors)
    found: dict[str, torch.Tensor] = {}
    processors = {}
    for key in before:
        name = key.removesuffix(".processor")
        if name.endswith(".attn2"):
            processors[key] = _TokenAttention(name, found if name in layers else None, stop and name == layers[-1])
        else:
            processors[key] = _SelfAttention()
    with _installed(unet, processors), _recomputed(unet, layers, processors) if recompute else nullcontext():
        yield found


def keys(unet, layer: str, tokens: torch.Tensor) -> torch.Tensor:
    """The keys K of Eq. 2 in one layer: fp32 [..., heads, N, d] of tokens [..., N, D]."""
    attn = unet.get_submodule(layer)
    k = F.linear(tokens.float(), attn.to_k.weight.float())
    return k.unflatten(-1, (attn.heads, -1)).transpose(-3, -2)
