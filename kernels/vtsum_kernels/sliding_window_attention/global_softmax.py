"""normalize="global": the softmax runs over the whole sequence before the band is cut out of it.

With lse the log-sum-exp over the window and LSE that over the whole sequence, the weights differ by a factor a row:

    out_global = out_window * exp(lse - LSE)

so the band costs what it always costs, and only LSE, which no band can give, takes T x T work. It is computed block by
block of rows and never stored: memory O(T). A head's sink counts in LSE, and not in lse.

A row that holds or sees what is not finite is NaN, and passes no gradient on: 0 times NaN would be in those of others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from ..tensors import acc_dtype, readable
from .call import Call

#: Scores held at a time.
_BLOCK = 1 << 23


def rescale(call: Call, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """From the windowed softmax's out and lse to those of the global one."""
    inputs = call.q, call.k, call.mask, call.cu_seqlens, call.bias
    options = call.left, call.right, call.dilation, call.shift, call.scale
    # The registered op keeps no scores; what is asked of plain PyTorch is every derivative.
    plain = call.backend == "reference" or library.transformed()
    if plain and not torch.compiler.is_compiling() and (call.cu_seqlens is None or readable(call.cu_seqlens)):
        whole = _forward(*inputs, *options)
    else:
        whole = library.call("global_lse_fwd", *inputs, *options)
    spoilt = whole.isnan()
    whole = whole.masked_fill(spoilt, 0.0)
    if call.sinks is not None:  # which the windowed softmax went without
        none = (call.sinks == -torch.inf)[:, None]
        whole = torch.where(none, whole, torch.logaddexp(whole, call.sinks[:, None].masked_fill(none, 0.0)))
    lost = spoilt | _not_finite(out)
    seen = (lse > -torch.inf) & ~lost
    share = torch.where(seen, torch.exp(torch.where(seen, lse - whole, torch.zeros_like(lse))), torch.zeros_like(lse))
    out = (out.masked_fill(lost[..., None], 0.0) * share[..., None]).to(out.dtype)
    return out.masked_fill(lost[..., None], torch.nan), whole.masked_fill(spoilt, torch.nan)


def _finite(q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q and k with 0 in frames that are padded or not finite, and which are not finite: [B, H, T] and [B, K, T]."""
    if mask is not None:
        k = k.masked_fill(~mask[:, None, :, None], 0.0)
    of_q, of_k = _not_finite(q), _not_finite(k)
    return q.masked_fill(of_q[..., None], 0.0), k.masked_fill(of_k[..., None], 0.0), of_q, of_k


def _not_finite(x: Tensor) -> Tensor:
    """[..., D] -> [...]: whether one of D is infinite or NaN, which nothing times 0 is; isfinite takes longer."""
    return (x.detach() * 0.0).sum(-1).isnan()


def _blocks(q: Tensor, cu_seqlens: Tensor | None) -> Iterator[tuple[slice, slice]]:
    """Rows and keys of each block of scores."""
    frames = q.shape[2]
    ends = [0, frames] if cu_seqlens is None else cu_seqlens.tolist()
    for first, last in itertools.pairwise(ends):
        rows = max(_BLOCK // max(q.shape[0] * q.shape[1] * (last - first), 1), 1)
        for start in range(first, last, rows):
            yield slice(start, min(start + rows, last)), slice(first, last)


def _band(rows: slice, keys: slice, bias: Tensor, before: int, dilation: int) -> tuple[Tensor, Tensor]:
    """For each row of a block and each entry of the bias: the column it is added to, and whether that exists."""
    device = bias.device
    offsets = (torch.arange(bias.shape[1], device=device) - before) * dilation
    column = torch.arange(rows.start, rows.stop, device=device)[:, None] + offsets - keys.start
    exists = (column >= 0) & (column < keys.stop - keys.start)
    return column.clamp(0, max(keys.stop - keys.start - 1, 0)), exists


def _scores(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    rows: slice,
    keys: slice,
    before: int,
    dilation: int,
    scale: float,
) -> Tensor:
    """[B, K, H / K, rows, keys] in the statistics' dtype; padded keys are -inf."""
    wide = acc_dtype(q.dtype)
    heads = (k.shape[1], -1)
    x = q[:, :, rows].to(wide).unflatten(1, heads) * scale
    scores = x @ k[:, :, None, keys].to(wide).transpose(-1, -2)
    if bias is not None:
        column, exists = _band(rows, keys, bias, before, dilation)
        values = (bias[:, None, :] * exists).unflatten(0, heads)
        index = column.expand(*scores.shape[:-1], -1)
        scores = scores.scatter_add(-1, index, values.expand(index.shape))
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, None, keys], -torch.inf)
    return scores


def _forward(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
) -> Tensor:
    blocks = list(_blocks(q, cu_seqlens)) if q.numel() else []
    if not blocks:
        return q.new_full(q.shape[:3], -torch.inf, dtype=acc_dtype(q.dtype))
    parts = []
    before = left + right if shift else left
    q, k, of_q, of_k = _finite(q, k, mask)
    for rows, keys in blocks:
        scores = _scores(q, k, mask, bias, rows, keys, before, dilation, scale)
        spoilt = of_q[:, :, rows].unflatten(1, (k.shape[1], -1)) | of_k[:, :, None, keys].any(-1, keepdim=True)
        parts.append(torch.logsumexp(scores, -1).masked_fill(spoilt, torch.nan).flatten(1, 2))
    outside = blocks[0][0].start, q.shape[2] - blocks[-1][0].stop  # rows of no sequence
    return F.pad(torch.cat(parts, 2), outside, value=-torch.inf)


def _backward(
    dlse: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = acc_dtype(q.dtype)
    dq, dk = torch.zeros_like(q, dtype=wide), torch.zeros_like(k, dtype=wide)
    dbias = q.new_zeros(0, dtype=wide) if bias is None else torch.zeros_like(bias)
    if q.numel() == 0:
        return dq.to(q.dtype), dk.to(k.dtype), dbias
    before = left + right if shift else left
    q, k, *_ = _finite(q, k, mask)
    heads = (k.shape[1], -1)
    for rows, keys in _blocks(q, cu_seqlens):
        scores = _scores(q, k, mask, bias, rows, keys, before, dilation, scale)
        top = lse[:, :, rows].unflatten(1, heads)[..., None]
        back = dlse[:, :, rows].unflatten(1, heads)[..., None]
        ds = scores.sub_(torch.where(top > -torch.inf, top, torch.zeros_like(top))).exp_()  # in place: T x T
        ds = ds.mul_(back).masked_fill_(back == 0, 0.0)
        dq[:, :, rows] = (ds @ k[:, :, None, keys].to(wide)).flatten(1, 2) * scale
        x = q[:, :, rows].to(wide).unflatten(1, heads)
        dk[:, :, keys] += (ds.transpose(-1, -2) @ x).sum(2) * scale
        if bias is not None:
            column, exists = _band(rows, keys, bias, before, dilation)
            gathered = ds.gather(-1, column.expand(*ds.shape[:-1], -1)) * exists
            dbias += gathered.flatten(1, 2).sum((0, 2))
    return dq.to(q.dtype), dk.to(k.dtype), dbias


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, left, right, dilation, shift, scale = inputs
    ctx.options = (left, right, dilation, shift, scale)
    ctx.save_for_backward(output, *tensors)


def _gradient(ctx: Any, dlse: Tensor) -> tuple[Tensor | None, ...]:
    lse, *tensors = ctx.saved_tensors
    dq, dk, dbias = library.call("global_lse_bwd", dlse, lse, *tensors, *ctx.options)
    return (dq, dk, None, None, None if tensors[4] is None else dbias, None, None, None, None, None)


def _forward_fake(q: Tensor, *rest: Any) -> Tensor:
    return q.new_empty(q.shape[:3], dtype=acc_dtype(q.dtype))


def _backward_fake(
    dlse: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    dbias = lse.new_empty(0) if bias is None else torch.empty_like(bias)
    return torch.empty_like(q), torch.empty_like(k), dbias


_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor? key_mask, Tensor? cu_seqlens, Tensor? bias, "
    "SymInt left, SymInt right, SymInt dilation, bool shift, float scale"
)
library.define(f"global_lse_fwd({_ARGUMENTS}) -> Tensor", _forward_fake, _gradient, _save)
library.define(
    f"global_lse_bwd(Tensor dlse, Tensor lse, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    _backward_fake,
    library.refuse_double_backward("sliding_window_attention"),
)
for _device in ("CPU", "CUDA"):
    library.LIB.impl("global_lse_fwd", _forward, _device)
    library.LIB.impl("global_lse_bwd", _backward, _device)
