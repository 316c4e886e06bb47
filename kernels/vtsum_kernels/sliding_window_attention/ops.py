"""The registered ops `sliding_window_attention_fwd` and `_bwd`: what the compiled backends implement.

dk and dv come back with the query's number of heads; the gradient adds up those that share a key head, here and nowhere
else, so that every backend writes each gradient once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import library
from ..tensors import acc_dtype, dense_rows
from .call import NAME, key_gradient
from .mapping import mapped

_OPTIONS = "SymInt left, SymInt right, SymInt dilation, bool shift, float scale, float dropout_p, SymInt row_offset"
#: Behind all others, so that a call without them may leave them out.
_VARIANTS = "Tensor? sinks=None, float softcap=0.0"
_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor? key_mask, Tensor? cu_seqlens, Tensor? bias, Tensor? seed"

#: Beyond this many keys the backward pass is handed out and lse rather than computing them again.
MAX_KEYS_RECOMPUTED = 33


def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    need_lse: bool,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    shape = q.shape[:3] if need_lse else (0,)
    return torch.empty_like(dense_rows(q)), q.new_empty(shape, dtype=acc_dtype(q.dtype))


def _backward_fake(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    dlse: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = acc_dtype(q.dtype)
    dbias = q.new_empty(0, dtype=wide) if bias is None else bias.new_empty(bias.shape)
    delta = q.new_empty(0 if sinks is None else q.shape[:3], dtype=wide)
    q, k, v = dense_rows(q), dense_rows(k), dense_rows(v)
    return torch.empty_like(q), key_gradient(q, k), key_gradient(q, v), dbias, delta


def _summed_backward_fake(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Of a backend that adds up the query heads of a key head itself."""
    dq, _, _, *rows = _backward_fake(dout, q, k, v, *rest)
    return dq, torch.empty_like(dense_rows(k)), torch.empty_like(dense_rows(v)), *rows


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, cu_seqlens, bias, seed, *ctx.options, ctx.need_lse, sinks, ctx.softcap = inputs
    left, right = ctx.options[:2]
    ctx.set_materialize_grads(False)
    wide = left < 0 or right < 0 or left + right + 1 > MAX_KEYS_RECOMPUTED
    out = output[0] if ctx.need_lse and wide else None
    lse = output[1] if ctx.need_lse and (wide or sinks is not None) else None
    ctx.save_for_backward(q, k, v, mask, cu_seqlens, bias, seed, out, lse, sinks)


def _sum_groups(gradient: Tensor, keys: Tensor) -> Tensor:
    if gradient.shape == keys.shape:
        return gradient
    return gradient.unflatten(1, (keys.shape[1], -1)).sum(2)


def _gradient_of_sinks(sinks: Tensor, dout: Tensor, dlse: Tensor | None, delta: Tensor, lse: Tensor | None) -> Tensor:
    """A sink is a key whose value is 0: dp = 0 in all rows, and its weight there is exp(sink - lse)."""
    if lse is None:
        raise ValueError(f"{NAME}_fwd: need_lse must be True where sinks have a gradient, got False")
    weight = torch.exp(torch.where(lse > -torch.inf, sinks[:, None] - lse, -torch.inf))
    # A row without a gradient adds nothing, whatever it holds.
    live = (dout != 0).any(-1)
    live = live if dlse is None else live | (dlse != 0)
    return -torch.where(live, weight * delta, 0.0).sum((0, 2))


def _gradient_by(op: str) -> Callable[..., tuple[Tensor | None, ...]]:
    def gradient(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, mask, cu_seqlens, bias, seed, out, lse, sinks = ctx.saved_tensors
        dlse = dlse if ctx.need_lse else None
        dout = torch.zeros_like(q) if dout is None else dout
        given = dout, q, k, v, mask, cu_seqlens, bias, seed, dlse, out, lse
        dq, dk, dv, dbias, delta = library.call(op, *given, *ctx.options, sinks, ctx.softcap)
        rest = (None,) * (len(ctx.options) + 1)
        wanted = sinks is not None and ctx.needs_input_grad[7 + len(rest)]
        dsinks = _gradient_of_sinks(sinks, dout, dlse, delta, lse) if wanted else None
        dbias = None if bias is None else dbias
        return (dq, _sum_groups(dk, k), _sum_groups(dv, v), None, None, dbias, None, *rest, dsinks, None)

    return gradient


for _prefix in (NAME, f"{NAME}_triton", f"{NAME}_blockwise"):
    library.define(
        f"{_prefix}_fwd({_INPUTS}, {_OPTIONS}, bool need_lse, {_VARIANTS}) -> (Tensor, Tensor)",
        _forward_fake,
        _gradient_by(f"{_prefix}_bwd"),
        _save,
        mapped(3),
    )
    library.define(
        f"{_prefix}_bwd(Tensor dout, {_INPUTS}, Tensor? dlse, Tensor? out, Tensor? lse, {_OPTIONS}, {_VARIANTS}) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _summed_backward_fake if _prefix.endswith("blockwise") else _backward_fake,
        library.refuse_double_backward(NAME),
        vmap=mapped(4),
    )
#: On CUDA: which of the compiled kernels serve such a call, in words. need_lse: backward is handed out and lse.
library.LIB.define(f"{NAME}_form({_INPUTS}, {_OPTIONS}, bool need_lse, {_VARIANTS}) -> str")
for _pass, _function in (("fwd", "forward"), ("bwd", "backward")):
    library.implement_in_triton(f"{NAME}_triton_{_pass}", f"{__package__}.triton", _function)
