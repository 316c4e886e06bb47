"""flash-attn's calls, [B, T, H, D] and packed [total, H, D], on our op: also on the CPU, and in float32 and float64.

Meanings are flash-attn 2's: a window (left, right) is inclusive, -1 is unbounded, and where queries and keys differ in
number the last query stands at the last key: query i sees keys i + Tk - Tq - left .. i + Tk - Tq + right. Rows that see
nothing give 0. Gradients are deterministic always.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..sliding_window_attention import sliding_window_attention
from .align import aligned_attention
from .flash_attn_kvcache import flash_attn_with_kvcache

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]


def _window(op: str, window_size: Any, causal: bool) -> tuple[int, int]:
    if not isinstance(window_size, (tuple, list)):
        checks.fail(op, "window_size", "(left, right)", type(window_size).__name__, TypeError)
    return checks.window(op, tuple(window_size), causal)


def _check(op: str, dropout_p: float, softcap: float, return_attn_probs: bool) -> None:
    checks.softcap(op, softcap)
    if return_attn_probs and dropout_p > 0.0:
        raise NotImplementedError(
            f"{op}: return_attn_probs must be False where dropout_p > 0 (its third result, the pattern of dropout, is "
            f"never written down), got True with dropout_p = {dropout_p}"
        )


def _slopes(op: str, alibi_slopes: Tensor, shapes: dict[str, list[int]], q: Tensor) -> Tensor:
    checks.is_tensor(op, "alibi_slopes", alibi_slopes)
    if list(alibi_slopes.shape) not in shapes.values():
        rule = " or ".join(f"{name} = {shape}" for name, shape in shapes.items())
        checks.fail(op, "alibi_slopes", f"of shape {rule}", list(alibi_slopes.shape))
    if alibi_slopes.device != q.device:
        checks.fail(op, "alibi_slopes", f"on the device of q, {q.device}", alibi_slopes.device)
    return alibi_slopes


def _bias(slopes: Tensor, window: tuple[int, int]) -> Tensor:
    """-slope * distance for every key of the window: [H, left + right + 1]."""
    distance = torch.arange(-window[0], window[1] + 1, device=slopes.device).abs()
    return -slopes.detach().double()[:, None] * distance


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention as `flash_attn.flash_attn_func` computes it.

    Args:
        q (Tensor): [B, Tq, H, D].
        k, v (Tensor): [B, Tk, K, D], H a multiple of K.
        dropout_p (float): the share of weights set to 0; the choice is the op's own, not flash-attn's.
        softmax_scale (float | None): factor of the scores; None means 1 / sqrt(D).
        causal (bool): right becomes 0; the last query stands at the last key.
        window_size (tuple[int, int]): keys before and after, inclusive, -1 = unbounded.
        softcap (float): the scores become softcap * tanh(score / softcap), before alibi_slopes add theirs; 0.0: none.
        alibi_slopes (Tensor | None): [H] or [B, H]: -slope * |i + Tk - Tq - j| is added to the scores. No gradient.
        deterministic (bool): either way the gradients are.
        return_attn_probs (bool): return (out, lse [B, H, Tq], None); the weights themselves are never written down.
    Returns:
        Tensor: [B, Tq, H, D]. A row's lse is -inf where it sees nothing (flash-attn's forward writes +inf).
    Raises:
        NotImplementedError: for return_attn_probs with dropout.
    Source: Dao 2023, "FlashAttention-2"; the docstrings of flash-attn 2.8.
    """
    op = "flash_attn_func"
    for name, x in (("q", q), ("k", k), ("v", v)):
        checks.is_tensor(op, name, x)
        checks.has_rank(op, name, x, 4, "[B, T, H, D]")
    _check(op, dropout_p, softcap, return_attn_probs)
    window = _window(op, window_size, causal)
    batch, queries, heads = q.shape[:3]
    keys = k.shape[1]
    bias, fold = None, False
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if alibi_slopes is not None:
        slopes = _slopes(op, alibi_slopes, {"[H]": [heads], "[B, H]": [batch, heads]}, q)
        # No row sees further than across both lengths, so that every window is finite.
        far = max(queries, keys)
        window = (far if window[0] < 0 else min(window[0], far), far if window[1] < 0 else min(window[1], far))
        fold = slopes.dim() == 2  # slopes of their own for each batch entry: the entries become heads
        bias = _bias(slopes.flatten(), window)
        if fold:
            q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
    found = aligned_attention(
        q,
        k,
        v,
        window,
        offset=keys - queries,
        scale=softmax_scale,
        bias=bias,
        dropout_p=dropout_p,
        softcap=softcap,
        return_lse=return_attn_probs,
    )
    out, lse = found if return_attn_probs else (found, None)
    if fold:
        out = out.squeeze(0).unflatten(0, (batch, heads))
        lse = None if lse is None else lse.squeeze(0).unflatten(0, (batch, heads))
    out = out.transpose(1, 2)
    return (out, lse, None) if return_attn_probs else out


class _Keys(NamedTuple):
    """Packed keys, of which each sequence has at least as many as queries, and which of them there are."""

    k: Tensor
    v: Tensor
    bounds: Tensor
    valid: Tensor | None


def _enough_keys(op: str, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> _Keys:
    """Where a sequence has fewer keys than queries, masked ones before them: the last two stand together."""
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        checks.fail(op, "cu_seqlens_k", f"of cu_seqlens_q's shape {list(cu_seqlens_q.shape)}", list(cu_seqlens_k.shape))
    of_queries, of_keys = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    for name, bounds, lengths, total in (
        ("cu_seqlens_q", cu_seqlens_q, of_queries, q.shape[0]),
        ("cu_seqlens_k", cu_seqlens_k, of_keys, k.shape[0]),
    ):
        first, last, shortest = int(bounds[0]), int(bounds[-1]), int(lengths.min()) if len(lengths) else 0
        if first != 0 or last != total or shortest < 0:
            checks.fail(op, name, f"rising from 0 to {total}", bounds.tolist())
    if not bool((of_keys < of_queries).any()):
        return _Keys(k, v, cu_seqlens_k, None)
    bounds = F.pad(torch.maximum(of_queries, of_keys).cumsum(0), (1, 0))
    frames = int(bounds[-1])
    place = torch.arange(k.shape[0], device=k.device) + (bounds - cu_seqlens_k)[1:].repeat_interleave(of_keys)
    k, v = (x.new_zeros(frames, *x.shape[1:]).index_copy(0, place, x) for x in (k, v))
    valid = torch.zeros(frames, dtype=torch.bool, device=k.device).index_fill(0, place, True)
    return _Keys(k, v, bounds, valid)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Any:
    """Attention over packed sequences as `flash_attn.flash_attn_varlen_func` computes it.

    Args:
        q (Tensor): [total_q, H, D].
        k, v (Tensor): [total_k, K, D], H a multiple of K.
        cu_seqlens_q, cu_seqlens_k (Tensor): int32 [N + 1], 0 to total_q and to total_k. Where they differ, a GPU is
            waited for.
        max_seqlen_q, max_seqlen_k (int): of the longest sequence, or more; only an unbounded window together with
            alibi_slopes looks at them.
        alibi_slopes (Tensor | None): [H]. Slopes for each sequence, [N, H], are not served.
        block_table: None; a paged cache is not served.
        The others as in `flash_attn_func`; lse is [H, total_q].
    Returns:
        Tensor: [total_q, H, D].
    Raises:
        NotImplementedError: for block_table, [N, H] slopes, and return_attn_probs with dropout.
    Source: as for `flash_attn_func`.
    """
    op = "flash_attn_varlen_func"
    for name, x in (("q", q), ("k", k), ("v", v)):
        checks.is_tensor(op, name, x)
        checks.has_rank(op, name, x, 3, "[total, H, D]")
    _check(op, dropout_p, softcap, return_attn_probs)
    if block_table is not None:
        raise NotImplementedError(f"{op}: block_table must be None, got a tensor")
    for name, x in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        checks.is_tensor(op, name, x)
    window = _window(op, window_size, causal)
    bias = None
    if alibi_slopes is not None:
        checks.is_tensor(op, "alibi_slopes", alibi_slopes)
        if alibi_slopes.dim() == 2:
            raise NotImplementedError(f"{op}: alibi_slopes must be [H], got {list(alibi_slopes.shape)}")
        far = max(max_seqlen_q, max_seqlen_k)
        window = (far if window[0] < 0 else min(window[0], far), far if window[1] < 0 else min(window[1], far))
        bias = _bias(_slopes(op, alibi_slopes, {"[H]": [q.shape[1]]}, q), window)
    # The same tensor twice is the common case, and comparing values would make a GPU wait.
    same = cu_seqlens_k is cu_seqlens_q
    keys = _Keys(k, v, cu_seqlens_k, None)
    if not same and not torch.compiler.is_compiling():  # there the op has room for whatever they may be
        same = torch.equal(cu_seqlens_q, cu_seqlens_k)
        keys = keys if same else _enough_keys(op, q, k, v, cu_seqlens_q, cu_seqlens_k)
    found = sliding_window_attention(
        q,
        keys.k,
        keys.v,
        window,
        scale=softmax_scale,
        key_mask=keys.valid,
        cu_seqlens=cu_seqlens_q,
        cu_seqlens_k=None if same else keys.bounds,
        bias=bias,
        dropout_p=dropout_p,
        softcap=softcap,
        return_lse=return_attn_probs,
    )
    out, lse = found if return_attn_probs else (found, None)
    return (out, lse, None) if return_attn_probs else out


def _unbound(op: str, name: str, x: Tensor, names: str) -> tuple[Tensor, ...]:
    """q, k and v, or k and v, which stand one after another before the heads."""
    checks.is_tensor(op, name, x)
    count = 3 if name == "qkv" else 2
    if x.dim() != names.count(",") + 1 or x.shape[-3] != count:
        checks.fail(op, name, f"of shape {names}", list(x.shape))
    return x.unbind(-3)


def flash_attn_qkvpacked_func(qkv: Tensor, *options: Any, **named: Any) -> Any:
    """`flash_attn_func` of q, k and v in one tensor [B, T, 3, H, D]; everything after it as there."""
    q, k, v = _unbound("flash_attn_qkvpacked_func", "qkv", qkv, "[B, T, 3, H, D]")
    return flash_attn_func(q, k, v, *options, **named)


def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, *options: Any, **named: Any) -> Any:
    """`flash_attn_func` of q [B, Tq, H, D], and k and v in one tensor [B, Tk, 2, K, D]; the rest as there."""
    k, v = _unbound("flash_attn_kvpacked_func", "kv", kv, "[B, T, 2, K, D]")
    return flash_attn_func(q, k, v, *options, **named)


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, *options: Any, **named: Any
) -> Any:
    """`flash_attn_varlen_func` of q, k and v in one tensor [total, 3, H, D], of the same sequences."""
    q, k, v = _unbound("flash_attn_varlen_qkvpacked_func", "qkv", qkv, "[total, 3, H, D]")
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, *options, **named)


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *options: Any,
    **named: Any,
) -> Any:
    """`flash_attn_varlen_func` of q [total_q, H, D], and k and v in one tensor [total_k, 2, K, D]."""
    k, v = _unbound("flash_attn_varlen_kvpacked_func", "kv", kv, "[total, 2, K, D]")
    sizes = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return flash_attn_varlen_func(q, k, v, *sizes, *options, **named)
