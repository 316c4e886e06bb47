"""The dtype and the memory layout that kernels want of a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def acc_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of accumulators and softmax statistics."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dense_rows(x: Tensor) -> Tensor:
    """x, its last dimension contiguous: a gradient may come expanded, a bank transposed.

    A clone, since of an empty tensor `contiguous` leaves any strides as they are.
    """
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.clone(memory_format=torch.contiguous_format)


def readable(x: Tensor) -> bool:
    """Whether a tensor's values can be looked at: not while compiling, nor where it is fake or one of many."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    return not torch._C._functorch.is_batchedtensor(x)


def contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
