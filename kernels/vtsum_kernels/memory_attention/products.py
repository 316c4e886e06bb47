"""Matrix products on the CPU: the BLAS that torch carries, or ours where that leaves half of the processor unused.

MKL, the usual BLAS, chooses AVX2 on AMD's processors: where such a one has AVX-512, `memory_product_` of csrc/cpu is
about twice as fast in float32. Where it has AVX-512's bfloat16 products too, ours multiply bfloat16 matrices and keep
the sums, which torch's round, in float32. Everywhere else it stays out of the way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import library
from ..tensors import contiguous
from .mapping import by_group

library.LIB.define(
    "memory_product_(Tensor(a!) out, Tensor a, Tensor b, bool add, Tensor? bias=None, Tensor(b!)? rounded=None) -> ()"
)
library.LIB.define("memory_product_pays(ScalarType dtype) -> bool")
_product = library.OPS.memory_product_.default
#: The dtypes whose products are ours on this machine.
OURS = frozenset(
    dtype
    for dtype in (torch.float32, torch.bfloat16)
    if library.refusal("_cpu") is None and library.OPS.memory_product_pays(dtype)
)


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b + bias, for matrices of any strides; in float32 for bfloat16 ones, which must be among OURS."""
    out = a.new_empty((a.shape[0], b.shape[1]), dtype=torch.float32 if a.dtype == torch.bfloat16 else a.dtype)
    product_into(out, a, b, bias)
    return out


def product_into(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> None:
    """out = a b + bias; the rows of out must be dense, and bias [n] of its dtype."""
    if a.numel() == 0:
        out.zero_() if bias is None else out.copy_(bias)
    elif a.dtype in OURS:
        _product(out, a, b, False, contiguous(bias))
    elif bias is None:
        torch.mm(a, b, out=out)
    else:
        torch.addmm(bias, a, b, out=out)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out += a b; the rows of out must be dense."""
    if a.numel() == 0:
        return
    if a.dtype in OURS:
        _product(out, a, b, True)
    else:
        out.addmm_(a, b)


def rounded_sum(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """out + a b in the dtype of a, which may have fewer digits than out, where sums are kept on their way."""
    if out.dtype == a.dtype or a.numel() == 0:
        add_product(out, a, b)
        return out.to(a.dtype)
    rounded = torch.empty_like(out, dtype=a.dtype)
    _product(out, a, b, True, None, rounded)
    return rounded


def multiply(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out[g, h] = a[g, h] b[g, h] for tensors [G, H, ., .], where a and b may be any views."""
    groups, heads = out.shape[:2]
    if a.dtype in OURS or groups * heads == 1:
        for g in range(groups):
            for h in range(heads):
                product_into(out[g, h], a[g, h], b[g, h])
    elif heads == 1:
        torch.bmm(a[:, 0], b[:, 0], out=out[:, 0])
    else:
        for g in range(groups):
            torch.bmm(a[g], b[g], out=out[g])


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty((*a.shape[:3], b.shape[3]))
    multiply(out, a, b)
    return out


def _fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((*a.shape[:3], b.shape[3]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, dout: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        matmul(dout, b.transpose(2, 3)) if wanted[0] else None,
        matmul(a.transpose(2, 3), dout) if wanted[1] else None,
    )


library.define("memory_matmul(Tensor a, Tensor b) -> Tensor", _fake, _gradient, _save, by_group)
library.LIB.impl("memory_matmul", _matmul, "CPU")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b for tensors [G, H, m, k] and [G, H, k, n], differentiable any number of times."""
    if torch.float32 in OURS and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32:
        result: Tensor = library.call("memory_matmul", a, b)
        return result
    return torch.matmul(a, b)
