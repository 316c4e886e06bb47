"""Ways to attend within windows over a sequence in stretches on ranks: by a halo, and what else is done for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

#: Of q, k, v [B, H, T_r, D] and a window: this rank's rows.
Way = Callable[[Tensor, Tensor, Tensor, int], Tensor]
#: What this process has handed to collectives for others, in bytes.
handed = 0


def hand(x: Tensor, share: float) -> None:
    global handed
    handed += round(x.numel() * x.element_size() * share)


class _Gather(torch.autograd.Function):
    """x [T_r, ...] of all ranks, one after another; backward each gets the sum for its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        whole = x.new_empty(ranks * x.shape[0], *x.shape[1:])
        hand(x, ranks - 1)
        dist.all_gather(list(whole.chunk(ranks)), x.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        own = gradient.new_empty(gradient.shape[0] // ranks, *gradient.shape[1:])
        hand(own, ranks - 1)
        dist.reduce_scatter(own, list(gradient.contiguous().chunk(ranks)))
        return own


class _Swap(torch.autograd.Function):
    """x [N, ...]: part n goes to rank n, and of each rank comes one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _swapped(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _swapped(gradient)


def _swapped(x: Tensor) -> Tensor:
    ranks = dist.get_world_size()
    hand(x, (ranks - 1) / ranks)
    found = torch.empty_like(x, memory_format=torch.contiguous_format)
    dist.all_to_all_single(found, x.contiguous())
    return found


def halo(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Ours, with the message of lengths and options."""
    from vtsum_kernels import distributed

    out: Tensor = distributed.sliding_window_attention(q, k, v, window)
    return out


def gathered(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """k and v of all ranks, [B, H, T, D]."""
    whole = _Gather.apply(torch.stack([k, v]).permute(3, 0, 1, 2, 4)).permute(1, 2, 3, 0, 4)
    return whole[0], whole[1]


def gather(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """k and v whole on every rank; the rows are computed with those of them that the window needs."""
    from vtsum_kernels import sliding_window_attention

    frames, rank, side = q.shape[2], dist.get_rank(), window // 2
    k, v = gathered(k, v)
    first, end = rank * frames, (rank + 1) * frames
    lowest, highest = max(first - side, 0), min(end + side, k.shape[2])
    k, v = k[:, :, lowest:highest], v[:, :, lowest:highest]
    out: Tensor = sliding_window_attention(F.pad(q, (0, 0, first - lowest, highest - end)), k, v, window)
    return out[:, :, first - lowest : end - lowest]


def ulysses(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """All frames of H / N heads on every rank, and back (DeepSpeed-Ulysses, Jacobs et al. 2023)."""
    from vtsum_kernels import sliding_window_attention

    ranks = dist.get_world_size()
    # [N, 3, B, H / N, T_r, D]: by the rank whose heads they are, then by the rank whose frames.
    parts = _Swap.apply(torch.stack([q, k, v]).unflatten(2, (ranks, -1)).movedim(2, 0))
    whole = parts.movedim(0, 3).flatten(3, 4)
    out = sliding_window_attention(whole[0], whole[1], whole[2], window)
    back = _Swap.apply(out.unflatten(2, (ranks, -1)).movedim(2, 0))
    return back.movedim(0, 1).flatten(1, 2)


def alone(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Without any exchange: no rival, since wrong where stretches meet, but the time that is not the exchange's."""
    from vtsum_kernels import sliding_window_attention

    out: Tensor = sliding_window_attention(q, k, v, window)
    return out


WAYS: dict[str, Way] = {"halo": halo, "ulysses": ulysses, "gather": gather, "alone": alone}


def count_messages() -> None:
    """Have `handed` count what our own messages hold, too."""
    from vtsum_kernels.distributed import exchange, group

    class Counted(group.Post):
        def __init__(self, of: group.Group, messages: Any, what: str) -> None:
            for message in messages:
                hand(message.tensor, message.sent)
            super().__init__(of, messages, what)

    exchange.Post = group.Post = Counted  # type: ignore[misc,assignment]
