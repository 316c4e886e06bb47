"""Every op with its tensors laid out in every way: what comes back, and what the op's fake says of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

WINDOW = (1, 1, 1, False, 0.5, 0.0, 0)


def randoms(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape).to(dtype) for shape in shapes]


def _window(shape: tuple[int, ...], key_heads: int) -> dict[str, list[Any]]:
    keys = (shape[0], key_heads, *shape[2:])
    q, k, v, dout = randoms(shape, keys, keys, shape)
    options: list[Any] = [None, None, torch.randn(shape[1], 3), None]
    calls = {}
    for backend in ("", "_blockwise"):
        calls[f"sliding_window_attention{backend}_fwd"] = [q, k, v, *options, *WINDOW, True]
        calls[f"sliding_window_attention{backend}_bwd"] = [dout, q, k, v, *options, None, None, None, *WINDOW]
    return calls


def _whole_sequence(shape: tuple[int, ...]) -> dict[str, list[Any]]:
    q, k = randoms(shape, shape)
    dlse, lse = randoms(shape[:3], shape[:3])
    rest = [q, k, None, None, None, *WINDOW[:5]]
    return {"global_lse_fwd": rest, "global_lse_bwd": [dlse, lse, *rest]}


def _memory(groups: int, heads: int, rows: int = 5, slots: int = 6) -> dict[str, list[Any]]:
    x, keys, values, dout = randoms((groups, rows, heads, 4), *[(groups, heads, slots, n) for n in (4, 2)],
                                    (groups, rows, heads, 2))  # fmt: skip
    (factor, lse, dlse), bias = randoms(*[(groups, heads, rows)] * 3), torch.randn(1, heads, slots)
    weights, dweights = randoms(*[(groups, heads, rows, slots)] * 2)
    dusage = torch.randn(groups, heads, slots)
    index = torch.randint(slots, (groups, heads, rows, 3), dtype=torch.int32)
    shares = torch.randn(index.shape)
    return {
        "memory_weights_fwd": [x, keys, factor, bias, None, torch.float32],
        "memory_weights_bwd": [dweights, dlse, dusage, weights, x, keys, factor, None, True],
        "memory_flash_fwd": [x, keys, values, factor, bias, None, True],
        "memory_flash_bwd": [dout, dlse, dusage, x, keys, values, factor, bias, None, dout, lse],
        "memory_topk": [x, keys, factor, bias, 3],
        "memory_gather": [shares, index, values],
        "memory_gather_dot": [x, index, keys],
        "memory_scatter": [shares, index, x, slots],
        "memory_matmul": [x.transpose(1, 2), keys.transpose(2, 3)],
    }


def _joined() -> dict[str, list[Any]]:
    x, weights, weight, bank, bias, residual = randoms((5, 4), (5, 6), (3, 4), (6, 3), (3,), (5, 3))
    return {"memory_join_fwd": [x, weights, weight, bank, bias, residual]}


def calls() -> Iterator[tuple[str, list[Any]]]:
    """Of every op that has a form of its own on a GPU, and of those that plain PyTorch implements."""
    parts = [
        _window((2, 4, 5, 3), 4),
        _window((2, 4, 5, 3), 2),
        _window((1, 1, 5, 1), 1),
        _whole_sequence((2, 3, 5, 4)),
    ]
    parts += [_memory(2, 3), _memory(1, 1), _joined()]
    return itertools.chain.from_iterable(part.items() for part in parts)


def _stepped(x: Tensor, dim: int) -> Tensor:
    return torch.stack([x, x], dim + 1).flatten(dim, dim + 1).transpose(0, dim)[::2].transpose(0, dim)


def layouts(rank: int) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """The same tensor (or, expanded, one of its entries again and again) under other strides."""
    dims = list(range(rank))
    for one, other in itertools.combinations(dims, 2):
        yield f"swapped {one} {other}", lambda x, d=(one, other): x.transpose(*d).contiguous().transpose(*d)
    for order in (dims[::-1], dims[1:] + dims[:1], dims[-1:] + dims[:-1]):
        back = [order.index(dim) for dim in dims]
        yield f"ordered {order}", lambda x, order=order, back=back: x.permute(order).contiguous().permute(back)
    for dim in dims:
        yield f"every other of {dim}", lambda x, dim=dim: _stepped(x, dim)
        yield f"part of {dim}", lambda x, dim=dim: torch.cat([x, x], dim).narrow(dim, 0, x.shape[dim])
        yield f"expanded {dim}", lambda x, dim=dim: x.narrow(dim, 0, 1).expand(x.shape)
    yield "expanded", lambda x: x[(slice(0, 1),) * x.dim()].expand(x.shape)


def significant(x: Tensor) -> list[int]:
    """The strides that say where an element is."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1] if x.numel() else []


def agrees(real: Any, fake: Any, arguments: list[Any]) -> None:
    """Holds an op to its fake, and to itself over contiguous tensors, each of its tensors in every layout."""
    for n, given in enumerate(arguments):
        for name, lay_out in layouts(given.dim()) if isinstance(given, Tensor) else ():
            x = lay_out(given)
            others = arguments[:n], arguments[n + 1 :]
            wanted = real(*others[0], x.contiguous(), *others[1])
            _compare(real, fake, [*others[0], x, *others[1]], wanted, f"argument {n} {name}")


def agrees_throughout(real: Any, fake: Any, arguments: list[Any]) -> None:
    """The same with all of its tensors in one of a few layouts, where calls are slow."""
    wanted = real(*arguments)
    for dims in ((1, 2), (2, 3)):
        others = [
            x.transpose(*dims).contiguous().transpose(*dims) if isinstance(x, Tensor) and x.dim() > dims[1] else x
            for x in arguments
        ]
        _compare(real, fake, others, wanted, f"swapped {dims}")


def _compare(real: Any, fake: Any, arguments: list[Any], wanted: Any, where: str) -> None:
    got = real(*arguments)
    with FakeTensorMode() as mode:
        promised = fake(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in arguments))
    for mine, same, theirs in zip(*map(_tuple, (got, wanted, promised)), strict=True):
        laid_out = [(x.shape, x.dtype, significant(x)) for x in (mine, theirs)]
        assert laid_out[0] == laid_out[1], where
        if mine.numel():
            assert (mine - same).abs().max() <= 1e-4 * (1 + same.abs().max()), where


def _tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)
