"""How the window ops are vmapped: entries of the mapped dimension become heads, or batch entries with a mask each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .. import library


def mapped(mask_at: int) -> library.Rule:
    """The rule of an op whose tensors are [B, H, T, ...], but mask, cu_seqlens, bias and seed from `mask_at` on,
    and sinks [H], the last but one."""

    def rule(info: Any, in_dims: tuple[Any, ...], op: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
        _, sequences, bias, seed = arguments[mask_at : mask_at + 4]
        own_masks, own_sequences = (dim is not None for dim in in_dims[mask_at : mask_at + 2])
        sinks_at = len(arguments) - 2
        by_head = sequences is not None or bias is not None or arguments[sinks_at] is not None
        # What dropout keeps depends on the number of the head and the batch entry, and batch entries share the rest.
        if seed is not None or own_sequences or (own_masks and by_head):
            return library.one_by_one(info, in_dims, op, *arguments)
        size, at = info.batch_size, 0 if own_masks else 1

        def folded(n: int) -> Any:
            x, dim = arguments[n], in_dims[n]
            if not isinstance(x, Tensor) or n == mask_at + 1 or (n == mask_at and not own_masks):
                return x
            to = 0 if n in (mask_at + 2, sinks_at) else at
            x = x.movedim(dim, to) if dim is not None else x.unsqueeze(to).expand(*x.shape[:to], size, *x.shape[to:])
            return x.flatten(to, to + 1)

        results = op(*map(folded, range(len(arguments))))
        q, dim = arguments[mask_at - 3], in_dims[mask_at - 3]
        count = q.shape[at if dim is None or dim > at else at + 1]

        def apart(x: Tensor, to: int | None) -> Tensor:
            # By the result's own count, which for dk and dv may be that of the keys' heads.
            return x if to is None else x.unflatten(to, (size, x.shape[to] // size if size else count))

        # dbias is [H, N]; what is left out comes back as [0].
        dims = tuple({1: None, 2: 0}.get(x.dim(), at) for x in results)
        return tuple(map(apart, results, dims)), dims

    return rule
