"""One definition per op, in the inputs' dtype throughout: in float64 what every backend is held against.

Written apart from the package's references (windows row by row, weights as dense products), so that a mistake there
cannot excuse one in a kernel; test_reference.py holds the references to these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def windows(
    frames: int,
    left: int,
    right: int,
    dilation: int = 1,
    shift: bool = False,
    ends: Sequence[int] | None = None,
) -> list[list[int]]:
    """The keys of each row, from the definition; padding aside. ends: where packed sequences begin and end."""
    ends = [0, frames] if ends is None else ends
    sees: list[list[int]] = []
    for first, last in itertools.pairwise(ends):
        for i in range(first, last):
            phase = [j for j in range(first, last) if (j - i) % dilation == 0]
            own = phase.index(i)
            before = len(phase) if left < 0 else left
            after = len(phase) if right < 0 else right
            begin = own - before
            if shift:
                begin = max(min(begin, len(phase) - (left + right + 1)), 0)
            sees.append(phase[max(begin, 0) : begin + before + after + 1])
    return sees


def window_mask(frames: int, sees: list[list[int]], key_mask: Tensor | None = None, batch: int = 1) -> Tensor:
    """bool [B, 1, T, T], True where row i sees key j."""
    mask = torch.zeros(batch, 1, frames, frames, dtype=torch.bool, device="cpu")
    for i, keys in enumerate(sees):
        mask[:, :, i, keys] = True
    if key_mask is not None:
        mask &= key_mask[:, None, None, :].cpu()
    return mask


def spread_bias(bias: Tensor, frames: int, before: int, dilation: int) -> Tensor:
    """[H, T, T] from a relative bias [H, N] whose entry `before` is that of the query's own frame; 0 beyond it."""
    steps = (torch.arange(frames)[None] - torch.arange(frames)[:, None]) / dilation + before
    inside = (steps == steps.round()) & (steps >= 0) & (steps < bias.shape[1])
    return bias[:, steps.clamp(0, bias.shape[1] - 1).long()] * inside


def rows_of_queries(queries: int, keys: int, ends: Sequence[int] | None, query_ends: Sequence[int] | None) -> list[int]:
    """The key beside which each query stands: those of a sequence beside its last keys."""
    if query_ends is None:
        return list(range(keys - queries, keys))
    assert ends is not None
    counts = (last - first for first, last in itertools.pairwise(query_ends))
    return [row for last, count in zip(ends[1:], counts, strict=True) for row in range(last - count, last)]


@cache
def keep_mask(seed: int, shape: tuple[int, int, int], p: float, row_offset: int = 0) -> Tensor:
    """[B, H, T, T]: 0 where dropout drops a weight, 1 / (1 - p) elsewhere. Philox4x32-10 in plain integers.

    row_offset: the number of the first frame, counted modulo 2^32.
    """
    batch, heads, frames = shape
    kept = torch.zeros(batch, heads, frames, frames, dtype=torch.float64, device="cpu")
    for b in range(batch):
        for h in range(heads):
            for i in range(frames):
                for j in range(frames):
                    row, column = ((x + row_offset) % 2**32 for x in (i, j))
                    c, key = [row, column, b * heads + h, 0], [seed & 0xFFFFFFFF, seed >> 32]
                    for _ in range(10):
                        x, y = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
                        c = [(y >> 32) ^ c[1] ^ key[0], y & 0xFFFFFFFF, (x >> 32) ^ c[3] ^ key[1], x & 0xFFFFFFFF]
                        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
                    kept[b, h, i, j] = c[0] >= int(p * 2**32)
    return kept / (1 - p)


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    *,
    scale: float | None = None,
    dilation: int = 1,
    shift: bool = False,
    ends: Sequence[int] | None = None,
    key_mask: Tensor | None = None,
    bias: Tensor | None = None,
    seed: int | None = None,
    dropout_p: float = 0.0,
    over_all: bool = False,
    query_ends: Sequence[int] | None = None,
    row_offset: int = 0,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """out [B, H, Tq, D] and lse [B, H, Tq] from q [B, H, Tq, D], k and v [B, K, T, D].

    Args:
        ends: where packed sequences begin and end. key_mask: bool [B, T]. bias: [H, N]. seed: of the dropout.
        query_ends: where those of q do, if it has fewer frames. row_offset: the number dropout gives the first key.
        sinks: [H], the score of one more key that every row of a head sees, whose value is 0; or each row's [B, H, Tq].
        softcap: 0 = none.
        over_all: the softmax runs among all valid keys of a sequence, of which the window then keeps its part.
    """
    batch, heads, queries, dim = q.shape
    frames = k.shape[2]
    rows = rows_of_queries(queries, frames, ends, query_ends)
    k, v = (x.repeat_interleave(heads // k.shape[1], 1) for x in (k, v))
    mask = window_mask(frames, windows(frames, left, right, dilation, shift, ends), key_mask, batch).to(q.device)
    over = window_mask(frames, windows(frames, -1, -1, ends=ends), key_mask, batch).to(q.device) if over_all else mask
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(dim) if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        spread = spread_bias(bias, frames, left + right if shift else left, dilation).to(scores.dtype)
        scores = scores + spread[:, rows]
    mask, over = mask[:, :, rows], over[:, :, rows]
    scores = scores.masked_fill(~over, torch.finfo(q.dtype).min)
    if sinks is not None:  # one more column, -inf as little as the others
        sinks = sinks.reshape(-1, heads, queries if sinks.dim() > 1 else 1)
        sink = sinks.to(scores).clamp_min(torch.finfo(scores.dtype).min / 2).expand(scores.shape[:-1])
        scores = torch.cat([scores, sink[..., None]], -1)
    weights = torch.softmax(scores, -1)[..., :frames].masked_fill(~mask, 0.0)
    if seed is not None:
        weights = weights * keep_mask(seed, (batch, heads, frames), dropout_p, row_offset)[:, :, rows].to(weights)
    some = over.any(-1).expand(scores.shape[:-1])
    if sinks is not None:
        some = some | (sinks > -math.inf)
    return weights @ v, torch.logsumexp(scores, -1).masked_fill(~some, -math.inf)


def choose(scores: Tensor, k: int) -> Tensor:
    """bool [N, S]: the k best of each row, ties to the lower slot; -inf never. Row by row, by Python's sort."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for row, values in enumerate(scores.tolist()):
        order = sorted((-z, s) for s, z in enumerate(values) if z > -math.inf)
        chosen[row, [s for _, s in order[:k]]] = True
    return chosen


def memory_weights(
    x: Tensor,
    keys: Tensor,
    factor: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [G, H, n, S], lse [G, H, n] and usage [G, H, S] as the registered ops take them.

    x [G, n, H, d], keys [G, H, S, d], factor [G, H, n], bias [G or 1, H or 1, S], mask bool [G, n].
    """
    if mask is not None:
        x = x.masked_fill(~mask[:, :, None, None], 0.0)
        factor = factor.masked_fill(~mask[:, None], 0.0)
    return softmax_over_slots(torch.einsum("gnhd,ghsd->ghns", x, keys) * factor[..., None], bias, mask, top_k)


def softmax_over_slots(
    scores: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, top_k: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What `memory_weights` makes of scores [G, H, n, S]."""
    if bias is not None:
        scores = scores + bias[:, :, None]
    dead = scores == -torch.inf
    if mask is not None:
        dead = dead | ~mask[:, None, :, None]
    if top_k is not None:
        open_scores = scores.detach().masked_fill(dead, -torch.inf)
        dead = dead | ~choose(open_scores.flatten(0, 2), top_k).view(scores.shape)
    scores = scores.masked_fill(dead, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, -1).masked_fill(dead, 0.0)
    return weights, torch.logsumexp(scores, -1).masked_fill(dead.all(-1), -torch.inf), weights.sum(2)


def memory_attention(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    scale: float | Tensor,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """out [N, E], lse [H, N] and usage [H, S] from x [N, D], keys [S, D] and values [S, E]; slot_bias [S] or [H, S]."""
    queries, bank, worth = x.unflatten(1, (heads, -1)), split(keys, heads), split(values, heads)
    if normalize:
        queries, bank = directed(queries), directed(bank)
    factor = torch.ones((1, heads, len(x)), dtype=x.dtype, device=x.device) * scale
    bias = None if slot_bias is None else slot_bias.expand(1, heads, len(keys))
    if slot_mask is not None:
        bias = torch.zeros((), dtype=x.dtype, device=x.device) if bias is None else bias
        bias = torch.where(slot_mask, bias, -torch.inf).expand(1, heads, len(keys))
    mask = None if query_mask is None else query_mask[None]
    weights, lse, usage = memory_weights(queries[None], bank[None], factor, bias, mask, top_k)
    return torch.einsum("hns,hse->nhe", weights[0], worth).flatten(1), lse[0], usage[0]


def memory_fuse(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float | Tensor,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    norm: tuple[Tensor | None, Tensor | None, float] | None = None,
    query_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """y [N, O] and usage [H, S]: what was read beside the frame, and the linear layer. Others as `memory_attention`."""
    if query_mask is not None:
        x = x.masked_fill(~query_mask[:, None], 0.0)
    queries = x if query_weight is None else x @ query_weight.t()
    read, _, usage = memory_attention(queries, keys, values, heads, scale, query_mask=query_mask, **options)
    if norm is not None:
        read = F.layer_norm(read, read.shape[-1:], *norm)
    y = torch.cat((x, read), -1) @ weight.t()
    y = y if bias is None else y + bias
    y = y if query_mask is None else y.masked_fill(~query_mask[:, None], 0.0)
    return y if residual is None else y + residual, usage


def directed(x: Tensor) -> Tensor:
    """Rows over their norms; a row whose norm is below 1e-12 is 0, and so is its gradient."""
    live = torch.linalg.vector_norm(x.detach().double(), dim=-1, keepdim=True) >= 1e-12
    return torch.where(live, F.normalize(torch.where(live, x, 1.0), dim=-1), 0.0)


def split(bank: Tensor, heads: int) -> Tensor:
    """[S, D] as [H, S, d]."""
    return bank.unflatten(1, (heads, bank.shape[1] // heads)).transpose(0, 1)
