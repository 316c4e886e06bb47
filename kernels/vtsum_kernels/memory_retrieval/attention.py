"""The public op `memory_attention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import dispatch
from .reference import memory_attention_reference
from .shapes import Call, check_bank, check_masks, check_queries, check_scale, split_queries
from .weights import cpp_can_run, softmax_over_slots, unit_keys

_NAME = "memory_attention"


def _check(
    x: Tensor,
    keys: Tensor,
    values: Tensor | None = None,
    *,
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    return_lse: bool = False,
    return_usage: bool = False,
) -> Call:
    check_queries(_NAME, x)
    keys, values = check_bank(_NAME, keys, values, num_heads, x)
    queries = split_queries(_NAME, x, num_heads, keys.shape[2])
    slot_mask, query_mask = check_masks(_NAME, x, keys.shape[1], slot_mask, query_mask)
    return Call(queries, keys, values, check_scale(_NAME, scale, keys.shape[2], x), normalize, slot_mask, query_mask)


def _cpp_can_run(call: Call) -> str | None:
    return cpp_can_run(call.x)


def _reference_can_run(call: Call) -> str | None:
    return None


OP = dispatch.register(dispatch.Op(_NAME, {"cpp": _cpp_can_run, "reference": _reference_can_run}, _check))


def _compiled(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """torch's matrix products around the compiled softmax."""
    x = call.x
    if call.query_mask is not None:
        x = x.masked_fill(~call.query_mask[:, None, None], 0.0)
    keys = unit_keys(call.keys) if call.normalize else call.keys
    scores = torch.matmul(x.transpose(0, 1), keys.transpose(1, 2))
    of_cosine = x if call.normalize else None
    weights, lse, usage = softmax_over_slots(scores, call.scale, of_cosine, call.slot_mask, call.query_mask, True)
    return torch.matmul(weights, call.values).transpose(0, 1), lse, usage


def _reference(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    return memory_attention_reference(
        call.x,
        call.keys,
        call.values,
        scale=call.scale,
        normalize=call.normalize,
        slot_mask=call.slot_mask,
        query_mask=call.query_mask,
    )


_RUN = {"cpp": _compiled, "reference": _reference}


def memory_attention(
    x: Tensor,
    keys: Tensor,
    values: Tensor | None = None,
    *,
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    return_lse: bool = False,
    return_usage: bool = False,
    backend: str = "auto",
) -> Any:
    """Reads, for each frame, the softmax-weighted mean of a bank's values.

        out[t] = sum_s softmax_s(scale * x_t . keys_s) values_s

    With `normalize`, x and keys are divided by their norms first (cosine similarity); values never are.

    Args:
        x (Tensor): [..., T, D], float32, float16, bfloat16 or float64.
        keys (Tensor): [S, D], or [H, S, d] with D = H * d; x's dtype and device.
        values (Tensor | None): [S, E] or [H, S, e]; None means the keys themselves, unnormalised.
        num_heads (int): H; each head reads with its own d of the D features.
        scale (float | Tensor | None): factor of the scores; a tensor of one element may be learned. None: 1 / sqrt(d).
        normalize (bool): cosine similarity in place of the plain product.
        slot_mask (Tensor | None): bool [S], True = usable. Where no slot is usable, the output is 0.
        query_mask (Tensor | None): bool [..., T], True = valid. Other frames give 0, pass no gradient and count for
            no usage.
        return_lse (bool): also return lse [..., H, T], float32 (float64 for float64), -inf where nothing was read.
        return_usage (bool): also return usage [H, S], the sum over frames of the weight each slot got, differentiable.
        backend (str): "auto", or one of the op's backends; see `vtsum_kernels.explain`.
    Returns:
        Tensor: [..., T, E], dtype of x; or a tuple (out[, lse][, usage]).
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape, device or value.
        NotImplementedError: if an explicit backend cannot serve the call.

    Source: Weston et al. 2015, "Memory Networks"; Sukhbaatar et al. 2015, "End-To-End Memory Networks", section 2.
    """
    call = _check(
        x,
        keys,
        values,
        num_heads=num_heads,
        scale=scale,
        normalize=normalize,
        slot_mask=slot_mask,
        query_mask=query_mask,
    )
    out, lse, usage = _RUN[dispatch.choose(OP, backend, call)](call)
    lead = x.shape[:-1]
    results: list[Tensor] = [out.reshape(*lead, out.shape[1] * out.shape[2])]
    if return_lse:
        results.append(lse.reshape(num_heads, *lead).movedim(0, -2))
    if return_usage:
        results.append(usage)
    return results[0] if len(results) == 1 else tuple(results)
