"""The registered ops of the dense read: weights of all slots, and the read that keeps no weights.

Shapes: n rows in each of G groups (one group where all share a bank), H heads, S slots. Statistics are float32, float64
for float64. The compiled libraries and Triton implement the same schemas; the CPU's stand in `cpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import library
from ..tensors import acc_dtype
from .mapping import by_group

WEIGHTS = "Tensor x, Tensor keys, Tensor factor, Tensor? slot_bias, Tensor? query_mask"
FLASH = "Tensor x, Tensor keys, Tensor values, Tensor factor, Tensor? slot_bias, Tensor? query_mask"

#: Ops under two names: the compiled libraries' and Triton's.
SUFFIXES = ("", "_triton")


def like_bias(dslot_bias: Tensor, slot_bias: Tensor | None) -> Tensor | None:
    """[G, H, S] added up to the shape of the bias, which groups and heads may share."""
    if slot_bias is None:
        return None
    for dim in (0, 1):
        if slot_bias.shape[dim] == 1 and dslot_bias.shape[dim] != 1:
            dslot_bias = dslot_bias.sum(dim, keepdim=True)
    return dslot_bias.to(slot_bias.dtype)


def _statistics(x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    groups, rows, heads, _ = x.shape
    lse = x.new_empty((groups, heads, rows), dtype=acc_dtype(x.dtype))
    return lse, x.new_empty((groups, heads, keys.shape[2]), dtype=acc_dtype(x.dtype))


def _weights_fake(
    x: Tensor, keys: Tensor, factor: Tensor, slot_bias: Tensor | None, query_mask: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    groups, rows, heads, _ = x.shape
    return x.new_empty((groups, heads, rows, keys.shape[2]), dtype=dtype), *_statistics(x, keys)


def _weights_bwd_fake(
    dweights: Tensor | None,
    dlse: Tensor | None,
    dusage: Tensor | None,
    weights: Tensor,
    x: Tensor,
    keys: Tensor,
    factor: Tensor,
    query_mask: Tensor | None,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    groups, heads, slots = keys.shape[:3]
    dslot_bias = factor.new_empty((groups, heads, slots) if need_bias else (0,))
    return x.new_empty(x.shape), keys.new_empty(keys.shape), factor.new_empty(factor.shape), dslot_bias


def _save_weights(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, keys, factor, slot_bias, query_mask, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], x, keys, factor, slot_bias, query_mask)


def _weights_gradient(op: str) -> Callable[..., tuple[Tensor | None, ...]]:
    def gradient(
        ctx: Any, dweights: Tensor | None, dlse: Tensor | None, dusage: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        weights, x, keys, factor, slot_bias, query_mask = ctx.saved_tensors
        dx, dkeys, dfactor, dslot_bias = library.call(
            op, dweights, dlse, dusage, weights, x, keys, factor, query_mask, ctx.needs_input_grad[3]
        )
        return dx, dkeys, dfactor, like_bias(dslot_bias, slot_bias) if ctx.needs_input_grad[3] else None, None, None

    return gradient


def _flash_fake(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    need_usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    lse, usage = _statistics(x, keys)
    return x.new_empty((*x.shape[:3], values.shape[3])), lse, usage if need_usage else usage.new_empty((0,))


def _flash_bwd_fake(
    dout: Tensor,
    dlse: Tensor | None,
    dusage: Tensor | None,
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    factor: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (x, keys, values, factor)
    dx, dkeys, dvalues, dfactor = (t.new_empty(t.shape) for t in tensors)
    return dx, dkeys, dvalues, dfactor, factor.new_empty(keys.shape[:3])


def _save_flash(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.need_usage = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[0], output[1])


def _flash_gradient(op: str) -> Callable[..., tuple[Tensor | None, ...]]:
    def gradient(
        ctx: Any, dout: Tensor | None, dlse: Tensor | None, dusage: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, keys, values, factor, slot_bias, query_mask, out, lse = ctx.saved_tensors
        dout = torch.zeros_like(out) if dout is None else dout
        dusage = dusage if ctx.need_usage else None
        *gradients, dslot_bias = library.call(
            op, dout, dlse, dusage, x, keys, values, factor, slot_bias, query_mask, out, lse
        )
        return *gradients, like_bias(dslot_bias, slot_bias), None, None

    return gradient


_REFUSE = library.refuse_double_backward("memory_attention")
for _suffix in SUFFIXES:
    library.define(
        f"memory_weights{_suffix}_fwd({WEIGHTS}, ScalarType dtype) -> (Tensor weights, Tensor lse, Tensor usage)",
        _weights_fake,
        _weights_gradient(f"memory_weights{_suffix}_bwd"),
        _save_weights,
        by_group,
    )
    library.define(
        f"memory_weights{_suffix}_bwd(Tensor? dweights, Tensor? dlse, Tensor? dusage, Tensor weights, Tensor x, "
        "Tensor keys, Tensor factor, Tensor? query_mask, bool need_bias) "
        "-> (Tensor dx, Tensor dkeys, Tensor dfactor, Tensor dslot_bias)",
        _weights_bwd_fake,
        _REFUSE,
        vmap=by_group,
    )
    library.define(
        f"memory_flash{_suffix}_fwd({FLASH}, bool need_usage) -> (Tensor out, Tensor lse, Tensor usage)",
        _flash_fake,
        _flash_gradient(f"memory_flash{_suffix}_bwd"),
        _save_flash,
        by_group,
    )
    library.define(
        f"memory_flash{_suffix}_bwd(Tensor dout, Tensor? dlse, Tensor? dusage, {FLASH}, Tensor out, Tensor lse) "
        "-> (Tensor dx, Tensor dkeys, Tensor dvalues, Tensor dfactor, Tensor dslot_bias)",
        _flash_bwd_fake,
        _REFUSE,
        vmap=by_group,
    )


for _op, _function in (
    ("memory_weights_triton_fwd", "weights_forward"),
    ("memory_weights_triton_bwd", "weights_backward"),
    ("memory_flash_triton_fwd", "flash_forward"),
    ("memory_flash_triton_bwd", "flash_backward"),
):
    library.implement_in_triton(_op, f"{__package__}.triton", _function)
