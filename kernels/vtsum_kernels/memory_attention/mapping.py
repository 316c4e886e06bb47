"""How the memory ops are vmapped: what is mapped becomes groups, each with rows and a bank of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def by_group(info: Any, in_dims: tuple[Any, ...], op: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """The rule of an op whose tensors all have G as their first dimension (a bias may have 1 there)."""
    tensors = [
        (argument, dim) for argument, dim in zip(arguments, in_dims, strict=True) if isinstance(argument, Tensor)
    ]
    groups = max(argument.shape[1 if dim == 0 else 0] for argument, dim in tensors)
    if any(0 in argument.shape[:2] for argument, _ in tensors):
        groups = min(argument.shape[1 if dim == 0 else 0] for argument, dim in tensors)

    def folded(argument: Any, dim: int | None) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        x = argument[None] if dim is None else argument.movedim(dim, 0)
        return x.expand(info.batch_size, groups, *x.shape[2:]).flatten(0, 1)

    results = op(*(folded(argument, dim) for argument, dim in zip(arguments, in_dims, strict=True)))
    size = (info.batch_size, groups)
    if isinstance(results, Tensor):
        return results.unflatten(0, size), 0
    # What a call leaves out comes back as [0].
    return tuple(x if x.dim() == 1 else x.unflatten(0, size) for x in results), tuple(
        None if x.dim() == 1 else 0 for x in results
    )
