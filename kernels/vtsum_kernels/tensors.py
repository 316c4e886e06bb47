"""The dtype and the memory layout that kernels want of a tensor."""

from __future__ import annotations

from typing import Any

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


#: Over 512 rows, the most that a tile of Triton's memory kernels spans, so many elements a row are counted in 32 bits.
MAX_STEP = 2**22


def near_rows(x: Tensor, dim: int) -> Tensor:
    """`dense_rows` whose step from row to row, along `dim`, is less than MAX_STEP: else a copy."""
    x = dense_rows(x)
    return x if x.shape[dim] <= 1 or x.stride(dim) < MAX_STEP else x.clone(memory_format=torch.contiguous_format)


def autocasts(device: torch.device) -> bool:
    """Whether torch.autocast is on for tensors of a device."""
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)


def autocast(x: Any, *others: Any) -> tuple[Any, ...]:
    """x and other arguments as torch.autocast hands them to matrix products: floating tensors, but for float64, in its
    dtype. Tuples are entered; whatever else stays as it is."""
    if not isinstance(x, Tensor) or not autocasts(x.device):
        return x, *others
    dtype = torch.get_autocast_dtype(x.device.type)

    def cast(given: Any) -> Any:
        if isinstance(given, (tuple, list)):
            return tuple(map(cast, given))
        floats = isinstance(given, Tensor) and given.is_floating_point() and given.dtype != torch.float64
        return given.to(dtype) if floats and given.device == x.device else given

    return tuple(map(cast, (x, *others)))


def readable(x: Tensor) -> bool:
    """Whether a tensor's values can be looked at: not while compiling, nor where it is fake or one of many."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter):
        return False
    return not torch._C._functorch.is_batchedtensor(x)


def contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
