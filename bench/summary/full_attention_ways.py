"""Ways for every frame to attend to every other, where a sequence lies in stretches on ranks: frames exchanged for
heads, and what else is done for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from bench.summary import sequence_parallel_ways as ways

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def heads(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Ours (after DeepSpeed-Ulysses, Jacobs et al. 2023)."""
    from vtsum_kernels import distributed

    return distributed.full_attention(q, k, v, lengths=[q.shape[2]] * dist.get_world_size())


def gather(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """k and v whole on every rank."""
    k, v = ways.gathered(k, v)
    return F.scaled_dot_product_attention(q, k, v)


class _Ring(torch.autograd.Function):
    """k and v go round the ranks, and what they find is merged (Liu et al. 2023, Ring Attention); backward they go
    round again, with their gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, lse, kv = torch.zeros_like(q), q.new_full(q.shape[:3], -torch.inf), torch.stack([k, v])
        for step in range(dist.get_world_size()):
            part, of_part = _FORWARD(q, kv[0], kv[1])
            whole = torch.logaddexp(lse, of_part)
            out = out * (lse - whole).exp()[..., None] + part * (of_part - whole).exp()[..., None]
            lse = whole
            if step + 1 < dist.get_world_size():
                kv = _passed_on(kv)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        dq, carried = torch.zeros_like(q), torch.stack([k, v, torch.zeros_like(k), torch.zeros_like(v)])
        for _ in range(dist.get_world_size()):
            found = _BACKWARD(gradient, q, carried[0], carried[1], out, lse, 0.0, False)
            dq += found[0]
            carried[2] += found[1]
            carried[3] += found[2]
            carried = _passed_on(carried)
        return dq, carried[2], carried[3]


def _passed_on(x: Tensor) -> Tensor:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    received = torch.empty_like(x)
    ways.hand(x, 1)
    sent = dist.isend(x, (rank + 1) % ranks)
    dist.recv(received, (rank - 1) % ranks)
    assert sent is not None  # None is for ranks outside of the group
    sent.wait()
    return received


def ring(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """k and v on their way round, one stretch at a time."""
    out: Tensor = _Ring.apply(q, k, v)
    return out


def alone(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Without any exchange: as much to compute, of wrong numbers."""
    ranks = dist.get_world_size()
    return F.scaled_dot_product_attention(q, k.repeat(1, 1, ranks, 1), v.repeat(1, 1, ranks, 1))


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "heads": heads,
    "ring": ring,
    "gather": gather,
    "alone": alone,
}
