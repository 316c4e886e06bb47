"""The registered op of the joined product: y = x W1^T + P V + bias + residual, P and V the weights and the bank."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import library
from ..memory_attention.ops import SUFFIXES
from ..memory_attention.products import matmul

JOIN = "Tensor x, Tensor weights, Tensor weight, Tensor bank, Tensor? bias, Tensor? residual"


def _fake(
    x: Tensor, weights: Tensor, weight: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _times(a: Tensor, b: Tensor) -> Tensor:
    return matmul(a[None, None], b[None, None])[0, 0]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weights, weight, bank = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    back = dy.to(bank.dtype)
    return (
        _times(dy, weight) if wanted[0] else None,
        _times(back, bank.t()).to(weights.dtype) if wanted[1] else None,
        _times(dy.t(), x) if wanted[2] else None,
        _times(weights.t().to(bank.dtype), back) if wanted[3] else None,
        dy.sum(0) if wanted[4] else None,
        dy if wanted[5] else None,
    )


for _suffix in SUFFIXES:
    library.define(f"memory_join{_suffix}_fwd({JOIN}) -> Tensor", _fake, _gradient, _save)
library.implement_in_triton("memory_join_triton_fwd", f"{__package__}.triton", "join")
