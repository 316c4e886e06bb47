"""Sliding-window attention: each frame attends to the frames near it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import checks, dispatch
from ..tensors import autocast
from .alignment import without_unseen
from .backends import BACKENDS, form, holds, preferred, run
from .call import (
    NAME,
    Call,
    bounded,
    check_bias,
    check_border,
    check_keys,
    check_mask,
    check_more_keys,
    check_row_offset,
    check_seed,
    check_sequences,
    check_sinks,
)
from .reference import sliding_window_attention_reference

__all__ = ["sliding_window_attention", "sliding_window_attention_reference"]


@dispatch.op(BACKENDS, run, preferred, form, holds=holds)
def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | tuple[int, int],
    *,
    scale: float | None = None,
    dilation: int = 1,
    causal: bool = False,
    key_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    bias: Tensor | None = None,
    border: str = "truncate",
    normalize: str = "window",
    dropout_p: float = 0.0,
    row_offset: int = 0,
    dropout_seed: Tensor | None = None,
    sinks: Tensor | None = None,
    softcap: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    """Attention of each frame to the frames in a window around it.

        out[b, h, i] = sum_j softmax_j(scale * q_i . k_j + bias[h, o]) v_j
        over j = i + o * dilation, -left <= o <= right,

    among the keys j that lie inside the sequence and are not padding. A row that sees no key gives 0, and its gradients
    are 0. torch.autocast casts q, k and v as it does those of scaled_dot_product_attention.

    Args:
        q (Tensor): [B, H, T, D], float32, float16, bfloat16 or float64; any strides. Packed: [total, H, D].
        k, v (Tensor): [B, K, Tk, D], where K divides H: query head h reads key head h // (H / K). Packed: [total, K,
            D]. Tk is at least T, and the last query stands at the last key, as in decoding: row i is that of key
            i + Tk - T, and out is the last T rows of what Tk queries would give. Work and memory grow with T and the
            window, not with Tk.
        window_size (int | tuple[int, int]): an odd int w (the frame itself and w // 2 on each side; with causal=True
            any w: the last w keys up to the frame itself), or (left, right), both inclusive, where -1 means unbounded.
            In steps of `dilation`.
        scale (float | None): factor of the scores; None means 1 / sqrt(D).
        dilation (int): distance in frames between neighbouring keys of a window.
        causal (bool): no key after the query: of (left, right), right becomes 0 and left stays.
        key_mask (Tensor | None): bool [B, Tk], True = valid; or int lengths [B] (int32 or int64). Packed:
            bool [total], k's.
        cu_seqlens (Tensor | None): int32 or int64 [N + 1], rising from 0 to total: sequence n is the frames
            cu_seqlens[n] to cu_seqlens[n + 1] - 1. On the CPU its values are checked; on a GPU, where that would wait
            for the device, frames outside of every sequence see nothing.
        cu_seqlens_k (Tensor | None): with `cu_seqlens`, which then are the queries' alone: the same of k and v, where
            each sequence has at least as many keys as queries and its last query stands at its last key. That is
            checked on the CPU; on a GPU, a query before its sequence's first key sees nothing. With dropout or
            normalize="global" the work grows with all keys.
        bias (Tensor | None): [H, left + right + 1], any float dtype, entry left + o for the key o steps from the query;
            with border="shift" [H, 2 * (left + right) + 1], entry left + right + o. Finite windows only.
        border (str): "truncate" cuts the window off where the sequence ends; "shift" moves it inside, so that every
            row keeps left + right + 1 keys (NATTEN's meaning) or all that a shorter sequence has.
        normalize (str): "window", the softmax among the keys of the window; or "global", the softmax among all valid
            keys of the sequence, of which the window then keeps its part (weights of a row sum to less than 1). The
            latter takes T x T work. Keys outside of the bias's reach have no bias.
        dropout_p (float): the share of weights set to 0, in [0, 1); the rest is multiplied by 1 / (1 - dropout_p). The
            seed is drawn from torch's generator, and every backend makes the same choice from the same seed: it goes
            by the seed, batch entry, head, and the numbers of the row and the key, counted along k.
        row_offset (int): the number of k's first frame in a sequence of which these are a part; dropout drops what it
            would drop in the whole, for the same seed. Counted modulo 2**32; nothing else depends on it.
        dropout_seed (Tensor | None): int64 [1] on q's device, the seed; None draws one from torch's generator. Calls
            for parts of a sequence share it.
        sinks (Tensor | None): [H], any float dtype: a logit a head that takes part in the softmax beside the row's keys
            and belongs to no value, so that a row's weights sum to less than 1. It is neither scaled nor capped. Its
            gradient is summed in float32 (float64 for float64). A row that sees no key still gives 0.
        softcap (float | None): the scores become softcap * tanh(scale * q . k / softcap); the bias is added after that,
            as flash-attn and Gemma-2 add theirs. None or 0.0, which is flash-attn's way to say so: no cap.
        return_lse (bool): also return the log of the sum of the exponentiated scores, the sink's among them.
        backend (str): "auto", or one of the op's backends; see `vtsum_kernels.explain`.
    Returns:
        Tensor: q's shape and dtype; accumulated in float32 (float64 for float64). With `return_lse`, a tuple of it and
        lse [B, H, T] (packed: [H, total]), float32 (float64 for float64), -inf where a row sees nothing, or with
        `sinks` the sink.
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape, device or value.
        NotImplementedError: if an explicit backend cannot serve the call.
        RuntimeError: for gradients of gradients, except with backend="reference", where they are right.

    Source: Beltagy et al. 2020, "Longformer", section 3.1 (sliding and dilated windows), in the two-sided form; Hassani
    et al. 2023, "Neighborhood Attention Transformer" (shifted borders); Lin et al. 2023, "VideoXum", the formula of
    local attention as printed (normalize="global"); Xiao et al. 2024, "Efficient Streaming Language Models with
    Attention Sinks", and OpenAI 2025, "gpt-oss" (sinks as logits); Gemma Team 2024, "Gemma 2" (softcap).
    """
    q, k, v = autocast(q, k, v)
    checks.is_floating(NAME, "q", q)
    packed = cu_seqlens is not None
    rank, names = (3, "[total, H, D]") if packed else (4, "[B, H, T, D]")
    checks.has_rank(NAME, "q", q, rank, names)
    if k.shape != q.shape or v.shape != q.shape or k.dtype != q.dtype or v.dtype != q.dtype or k.device != q.device:
        check_keys(q, k, v, packed, cu_seqlens_k is not None)
    if v.device != q.device:
        checks.fail(NAME, "v", f"on the device of q, {q.device}", v.device)
    heads, dim = (q.shape[1], q.shape[2]) if packed else (q.shape[1], q.shape[3])
    if dim < 1:
        checks.fail(NAME, "D", "at least 1", dim)
    if scale is None:
        scale = 1.0 / math.sqrt(dim)
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        checks.fail(NAME, "scale", "a float or None (1 / sqrt(D))", type(scale).__name__, TypeError)
    elif not -math.inf < scale < math.inf:  # as comparisons, which torch's compiler can take
        checks.fail(NAME, "scale", "finite", scale)
    if dilation != 1:
        checks.is_positive_int(NAME, "dilation", dilation)
    left, right = checks.window(NAME, window_size, causal)
    shift = check_border(NAME, border, left, right, causal)
    if normalize not in ("window", "global"):
        checks.fail(NAME, "normalize", '"window" or "global"', repr(normalize))
    softcap = 0.0 if softcap is None else checks.softcap(NAME, softcap)
    if softcap > 0.0 and normalize == "global":
        checks.fail(NAME, "normalize", '"window" where there is a softcap', repr(normalize))
    if dropout_p != 0.0 and (not isinstance(dropout_p, (int, float)) or not 0.0 <= dropout_p < 1.0):
        checks.fail(NAME, "dropout_p", "at least 0 and less than 1", dropout_p)
    if packed:
        same = cu_seqlens_k is None or cu_seqlens_k is cu_seqlens
        cu_seqlens, longest = check_sequences(cu_seqlens, q)
        if same:
            cu_seqlens_k = None
        else:
            cu_seqlens_k, longest = check_more_keys(cu_seqlens, cu_seqlens_k, k)
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    else:
        longest = k.shape[2]
        if cu_seqlens_k is not None:
            checks.fail(NAME, "cu_seqlens_k", "None where cu_seqlens is None", type(cu_seqlens_k).__name__)
    if bias is not None:
        bias = check_bias(bias, q, heads, left, right, shift)
    if not torch.compiler.is_compiling():  # there lengths may be symbolic, and the backends cut for themselves
        left, right, dilation, bias = bounded(longest, left, right, dilation, shift, bias)
    mask = None if key_mask is None else check_mask(key_mask, k, packed)
    call = Call(
        q,
        k,
        v,
        mask,
        cu_seqlens,
        bias,
        left,
        right,
        dilation,
        shift,
        float(scale),
        float(dropout_p),
        normalize,
        return_lse,
        packed,
        backend,
        cu_seqlens_k,
        0 if row_offset == 0 else check_row_offset(row_offset),
        longest,
        None if sinks is None else check_sinks(sinks, q, heads),
        softcap,
        None if dropout_seed is None else check_seed(dropout_seed, q),
    )
    return call if packed or not call.more_keys else without_unseen(call)
