"""The registered ops `sliding_window_attention_fwd` and `_bwd`: what the compiled backends implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import library

_WINDOW = "int left, int right, int dilation, float scale"


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_padding_mask: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor]:
    shape = q.shape[:3] if need_lse else (0,)
    return torch.empty_like(q), q.new_empty(shape, dtype=statistics_dtype(q.dtype))


def _backward_fake(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, *ctx.window, ctx.need_lse = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, mask)


def _gradient_by(op: str) -> Callable[..., tuple[Tensor | None, ...]]:
    def gradient(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        slopes = dlse.contiguous() if ctx.need_lse and dlse is not None else None
        dout = torch.zeros_like(q) if dout is None else dout
        grads = getattr(torch.ops.vtsum_kernels, op)(dout, q, k, v, mask, slopes, *ctx.window)
        return (*grads, None, None, None, None, None, None)

    return gradient


def _triton_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from . import triton

    return triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from . import triton

    return triton.backward(*arguments)


for _prefix in ("sliding_window_attention", "sliding_window_attention_triton"):
    library.define(
        f"{_prefix}_fwd(Tensor q, Tensor k, Tensor v, Tensor? key_padding_mask, {_WINDOW}, bool need_lse) "
        "-> (Tensor, Tensor)",
        _forward_fake,
        _gradient_by(f"{_prefix}_bwd"),
        _save,
    )
    library.define(
        f"{_prefix}_bwd(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor? key_padding_mask, Tensor? dlse, {_WINDOW}) "
        "-> (Tensor, Tensor, Tensor)",
        _backward_fake,
        library.refuse_double_backward("sliding_window_attention"),
    )
for _device in ("CUDA", "CPU"):  # the CPU for Triton's interpreter
    library.LIB.impl("sliding_window_attention_triton_fwd", _triton_forward, _device)
    library.LIB.impl("sliding_window_attention_triton_bwd", _triton_backward, _device)
