"""Sliding-window attention with every option as a dense table of scores, pair by pair from the definition.

Differentiable and in the inputs' dtype throughout: the oracle in float64, eager PyTorch at a kernel's own dtype else.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from tests.emulator.run import Call

WORD = 0xFFFFFFFF


def sequences_of(call: Call) -> list[tuple[int, int]]:
    if call.cu_seqlens is None:
        return [(0, call.q.shape[2])]
    ends = call.cu_seqlens.tolist()
    return list(pairwise(ends))


def seen(call: Call) -> list[list[int]]:
    """For each row the keys in its window, padding aside."""
    windows: list[list[int]] = [[] for _ in range(call.q.shape[2])]
    for first, end in sequences_of(call):
        for i in range(first, end):
            row = [j for j in range(first, end) if (j - i) % call.dilation == 0]
            if call.shift:
                # The window of the nearest row of i's phase that has all its keys; else all keys of the phase.
                own, width = row.index(i), call.left + call.right + 1
                whole = range(call.left, len(row) - call.right)
                nearest = min(whole, key=lambda r: abs(r - own), default=None)
                windows[i] = row if nearest is None else row[nearest - call.left : nearest - call.left + width]
            else:
                windows[i] = [
                    j
                    for j in row
                    if (call.left < 0 or (i - j) // call.dilation <= call.left)
                    and (call.right < 0 or (j - i) // call.dilation <= call.right)
                ]
    return windows


def philox(seed: int, c0: int, c1: int, c2: int) -> int:
    """Word 0 of Philox4x32-10 in Python's own integers."""
    key0, key1, c3 = seed & WORD, seed >> 32 & WORD, 0
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = b >> 32 ^ c1 ^ key0, b & WORD, a >> 32 ^ c3 ^ key1, a & WORD
        key0, key1 = (key0 + 0x9E3779B9) & WORD, (key1 + 0xBB67AE85) & WORD
    return c0


def attention(call: Call) -> tuple[Tensor, Tensor]:
    """out [B, H, T, D] and lse [B, H, T], both in q's dtype."""
    (batch, heads, frames, _), group = call.q.shape, call.q.shape[1] // call.k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (call.k, call.v))
    visible = torch.zeros(batch, 1, frames, frames, dtype=torch.bool)
    entry = torch.zeros(frames, frames, dtype=torch.long)
    middle = call.left + call.right if call.shift else call.left
    for i, keys in enumerate(seen(call)):
        visible[:, :, i, keys] = True
        entry[i, keys] = torch.tensor([(j - i) // call.dilation + middle for j in keys], dtype=torch.long)
    if call.mask is not None:
        visible = visible & call.mask[:, None, None, :]
        padded = ~call.mask[:, None, :, None]
        k, v = k.masked_fill(padded, 0.0), v.masked_fill(padded, 0.0)
    scores = call.q @ k.transpose(-1, -2) * call.scale_used
    if call.bias is not None:
        scores = scores + call.bias.to(scores.dtype)[:, entry]
    some = visible.any(-1)
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1).masked_fill(~visible, 0.0)
    lse = torch.logsumexp(scores, -1).masked_fill(~some.expand(scores.shape[:-1]), -math.inf)
    if call.dropout_p > 0:
        assert call.seed is not None
        seed, below = int(call.seed), int(call.dropout_p * 2**32)
        kept = torch.zeros(batch, heads, frames, frames, dtype=weights.dtype)
        for b, h, i, j in visible.expand(batch, heads, frames, frames).nonzero().tolist():
            kept[b, h, i, j] = philox(seed, i, j, b * heads + h) >= below
        weights = weights * kept / (1 - call.dropout_p)
    return weights @ v, lse


def expected(call: Call, dout: Tensor, dlse: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs and gradients with the inputs in `dtype`; dk and dv are those of each query head."""
    group = call.q.shape[1] // call.k.shape[1]
    leaves = [call.q, *(x.repeat_interleave(group, 1) for x in (call.k, call.v))]
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in leaves)
    # Statistics, and the bias with its gradient, are float32 in the kernels whatever q is.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bias = None if call.bias is None else call.bias.detach().to(wide).requires_grad_()
    out, lse = attention(replace(call, q=q, k=k, v=v, bias=bias, scale=call.scale_used))
    names = ["q", "k", "v"] + (["bias"] if bias is not None else [])
    inputs = [q, k, v] + ([bias] if bias is not None else [])
    outputs, along = [out], [dout.to(dtype)]
    if dlse is not None:
        outputs.append(torch.where(lse.isinf(), torch.zeros_like(lse), lse))
        along.append(dlse.to(dtype))
    grads = torch.autograd.grad(outputs, inputs, along, allow_unused=True)
    result = {"out": out.detach(), "lse": lse.detach()}
    for name, x, grad in zip(names, inputs, grads, strict=True):
        result[f"d{name}"] = torch.zeros_like(x) if grad is None else grad
    return result
