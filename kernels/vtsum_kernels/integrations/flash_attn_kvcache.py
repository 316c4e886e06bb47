"""flash-attn's call for decoding: queries against a cache of keys, which takes up new ones first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..sliding_window_attention.call import values_are_free
from .align import aligned_attention

_OP = "flash_attn_with_kvcache"


def _lengths(name: str, value: Any, q: Tensor) -> Tensor | int:
    """An int, or one for each of q's batch entries; where looking at those costs nothing and all agree, that one."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            checks.fail(_OP, name, "at least 0", value)
        return value
    checks.is_tensor(_OP, name, value)
    if value.dtype not in (torch.int32, torch.int64):
        checks.fail(_OP, name, "int32 or int64", value.dtype, TypeError)
    checks.has_shape(_OP, name, value, (q.shape[0],), "[B]")
    if value.device != q.device:
        checks.fail(_OP, name, f"on the device of q, {q.device}", value.device)
    if values_are_free(value):
        values = value.tolist()
        if min(values, default=0) < 0:
            checks.fail(_OP, name, "at least 0", values)
        if len(set(values)) == 1:
            return int(values[0])
    return value.long()


def _append(cache: Tensor, new: Tensor, rows: Tensor, first: Tensor | int) -> None:
    """Writes new [B, n, K, D] into the cache's rows [B], from frame `first` of each on."""
    count = new.shape[1]
    if isinstance(first, int):
        cache[:, first : first + count].index_copy_(0, rows, new)
    else:
        frames = first[:, None] + torch.arange(count, device=new.device)
        cache.index_put_((rows[:, None], frames), new)


def _has_room(length: Tensor | int, new: int, room: int) -> None:
    """Refuses more keys than the cache holds, where its lengths can be looked at."""
    if isinstance(length, Tensor):
        if not values_are_free(length):
            return
        length = max(length.tolist(), default=0)
    if length + new > room:
        checks.fail(_OP, "cache_seqlens", f"such that the cache's {room} frames hold all keys", f"{length} + {new}")


@torch.no_grad()
def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: Tensor | int | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Any:
    """Attention of a few queries to a cache, as `flash_attn.flash_attn_with_kvcache` computes it. No gradients.

    Entry b has n_b = cache_seqlens[b] keys in the cache, and new ones are written behind them, in place. The last query
    stands at the last key. Only keys inside the window are read; where the lengths differ, they are copied.

    Args:
        q (Tensor): [B, Tq, H, D].
        k_cache, v_cache (Tensor): [C, S, K, D], H a multiple of K; C is B without cache_batch_idx.
        k, v (Tensor | None): [B, Tnew, K, D], written to frames n_b to n_b + Tnew - 1 of the cache, which must have
            room for them.
        cache_seqlens (Tensor | int | None): [B], int32 or int64, or one for all; None: S, where k is None.
        cache_batch_idx (Tensor | None): [B], the cache's entry of each of q's; entries that k and v are written to must
            differ.
        cache_leftpad (Tensor | None): [B], how many of a cache entry's first frames are no keys.
        softmax_scale (float | None): factor of the scores; None means 1 / sqrt(D).
        causal (bool), window_size (tuple[int, int]): as in `flash_attn_func`.
        rotary_cos, rotary_sin, block_table, alibi_slopes: None; rotate q and k beforehand.
        softcap (float): as `flash_attn_func`'s.
        rotary_interleaved (bool): of the rotation, which is not served.
        num_splits (int): 0 or 1.
        return_softmax_lse (bool): return (out, lse [B, H, Tq]).
    Returns:
        Tensor: [B, Tq, H, D].
    Raises:
        NotImplementedError: for rotary_cos, rotary_sin, block_table, alibi_slopes, and num_splits above 1.
    Source: as for `flash_attn_func`.
    """
    for name, x, names in (("q", q, "[B, T, H, D]"), ("k_cache", k_cache, "[C, S, K, D]")):
        checks.is_tensor(_OP, name, x)
        checks.has_rank(_OP, name, x, 4, names)
    checks.matches(_OP, "k_cache", k_cache, "q", q)
    checks.matches(_OP, "v_cache", v_cache, "k_cache", k_cache)
    checks.has_shape(_OP, "v_cache", v_cache, tuple(k_cache.shape), "k_cache's [C, S, K, D]")
    for name, refused, remedy in (
        ("rotary_cos", rotary_cos, "rotate q and k beforehand"),
        ("rotary_sin", rotary_sin, "rotate q and k beforehand"),
        ("block_table", block_table, "a paged cache is not served"),
        ("alibi_slopes", alibi_slopes, "flash_attn_func serves them"),
    ):
        if refused is not None:
            raise NotImplementedError(f"{_OP}: {name} must be None, got {type(refused).__name__}; {remedy}")
    checks.softcap(_OP, softcap)
    if num_splits not in (0, 1):
        raise NotImplementedError(f"{_OP}: num_splits must be 0 or 1, got {num_splits}; keys are not split here")
    if not isinstance(window_size, (tuple, list)):
        checks.fail(_OP, "window_size", "(left, right)", type(window_size).__name__, TypeError)
    window = checks.window(_OP, tuple(window_size), causal)

    batch, queries = q.shape[:2]
    entries, room = k_cache.shape[:2]
    if cache_batch_idx is None:
        if entries != batch:
            checks.fail(_OP, "k_cache", f"of q's B = {batch} entries where cache_batch_idx is None", entries)
        rows = torch.arange(batch, device=q.device)
    else:
        checks.is_tensor(_OP, "cache_batch_idx", cache_batch_idx)
        if cache_batch_idx.dtype not in (torch.int32, torch.int64):
            checks.fail(_OP, "cache_batch_idx", "int32 or int64", cache_batch_idx.dtype, TypeError)
        checks.has_shape(_OP, "cache_batch_idx", cache_batch_idx, (batch,), "[B]")
        rows = cache_batch_idx.long()
    if cache_seqlens is None and k is not None:
        checks.fail(_OP, "cache_seqlens", "given where k and v are, which are written behind them", None)
    length = room if cache_seqlens is None else _lengths("cache_seqlens", cache_seqlens, q)
    if k is not None or v is not None:
        checks.is_tensor(_OP, "k", k)
        checks.is_tensor(_OP, "v", v)
        assert k is not None
        assert v is not None
        new = k.shape[1] if k.dim() == 4 else 1
        for name, x in (("k", k), ("v", v)):
            checks.matches(_OP, name, x, "q", q)
            checks.has_shape(_OP, name, x, (batch, new, *k_cache.shape[2:]), "[B, Tnew, K, D]")
        _has_room(length, new, room)
        _append(k_cache, k, rows, length)
        _append(v_cache, v, rows, length)
        length = length + new
    else:
        _has_room(length, 0, room)

    if isinstance(length, int):
        first = 0 if window[0] < 0 else max(length - queries - window[0], 0)
        frames = torch.arange(first, length, device=q.device).expand(batch, -1)
        valid = None
        keys, values = (x[:, first:length] for x in (k_cache, v_cache))
        if cache_batch_idx is not None:
            keys, values = keys.index_select(0, rows), values.index_select(0, rows)
    else:
        kept = max(queries, room if window[0] < 0 else min(room, queries + window[0]))
        frames = length[:, None] + torch.arange(-kept, 0, device=q.device)
        valid = frames >= 0
        keys, values = (x[rows[:, None], frames.clamp_min(0)] for x in (k_cache, v_cache))
    if cache_leftpad is not None:
        pad = _lengths("cache_leftpad", cache_leftpad, q)
        seen = frames >= (pad if isinstance(pad, int) else pad[:, None])
        valid = seen if valid is None else valid & seen
    q, keys, values = (x.transpose(1, 2) for x in (q, keys, values))
    found = aligned_attention(
        q,
        keys,
        values,
        window,
        offset=keys.shape[2] - queries,
        key_mask=valid,
        scale=softmax_scale,
        softcap=softcap,
        return_lse=return_softmax_lse,
    )
    return (found[0].transpose(1, 2), found[1]) if return_softmax_lse else found.transpose(1, 2)
