"""Keys and values of neighbours, and their gradients on the way back, while other rows are computed.

Two autograd nodes stand around the rows that need no neighbour. `Begin` sends, and posts what is received; `Finish`
waits. Backward, autograd goes through the nodes in reverse: those of the rows that needed a neighbour first, then
`Finish`, which sends the gradients home, then the other rows', and at last `Begin`, which waits for those of its own
frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .group import GRADIENTS, KEYS, Group, Message, Post
from .plan import Piece, Plan, Window, plan


class Exchange:
    """One call's halo: its pieces of k, v and the mask."""

    def __init__(self, group: Group, plan: Plan, k: Tensor, mask: Tensor | None) -> None:
        """mask: bool [B, T], or the lengths [B] of the whole sequences, of which nothing need be sent."""
        self._group, self._plan, self._mask = group, plan, mask
        self._shape, self._like = k.shape, k.detach().new_empty(0)
        self.masks: list[Tensor] = []  # bool [B, n] of each received piece, where there is a mask
        self._out: Post | None = None
        self._back: Post | None = None
        self._gradients: list[Tensor] = []

    def begin(self, k: Tensor, v: Tensor) -> list[Tensor]:
        """Send; of each piece that is received, k and v [2, B, K, n, D], not there yet."""
        plan, mask = self._plan, self._mask
        messages = [Message(p.peer, torch.stack([self._own(x, p, 2) for x in (k, v)]), True) for p in plan.sent]
        received = [self._empty(piece) for piece in plan.received]
        messages += [Message(p.peer, x, False) for p, x in zip(plan.received, received, strict=True)]
        if mask is not None and mask.dim() == 1:
            self.masks = [valid_frames(mask, p.first, p.end) for p in plan.received]
        elif mask is not None:
            messages += [Message(p.peer, self._own(mask, p, 1).contiguous(), True) for p in plan.sent]
            self.masks = [mask.new_empty(mask.shape[0], p.end - p.first) for p in plan.received]
            messages += [Message(p.peer, x, False) for p, x in zip(plan.received, self.masks, strict=True)]
        self._out = Post(self._group, messages, KEYS)
        return received

    def wait(self) -> None:
        """Until the pieces are there."""
        if self._out is not None:
            self._out.wait()

    def settle(self) -> None:
        """Until they are, and what was sent has gone."""
        if self._out is not None:
            self._out.finish()
        self._out = None

    def begin_back(self, gradients: Sequence[Tensor | None]) -> None:
        """Send the received pieces' gradients to their owners."""
        messages = []
        for piece, gradient in zip(self._plan.received, gradients, strict=True):
            sent = self._empty(piece).zero_() if gradient is None else gradient.contiguous()
            messages.append(Message(piece.peer, sent, True))
        self._gradients = [self._empty(piece) for piece in self._plan.sent]
        messages += [Message(p.peer, x, False) for p, x in zip(self._plan.sent, self._gradients, strict=True)]
        self._back = Post(self._group, messages, GRADIENTS)

    def gradients(self, *of_own_rows: Tensor | None) -> list[Tensor]:
        """dk and dv: this rank's rows' share, and what comes home of the sent pieces, added in the order of ranks."""
        if self._back is None:  # no row here needed a neighbour
            self.begin_back([None] * len(self._plan.received))
        assert self._back is not None
        sums = [self._like.new_zeros(self._shape) if x is None else x.clone() for x in of_own_rows]
        self._back.finish()
        for piece, gradient in zip(self._plan.sent, self._gradients, strict=True):
            for x, added in zip(sums, gradient, strict=True):
                self._own(x, piece, 2).add_(added)
        self._back, self._gradients = None, []
        return sums

    def _own(self, x: Tensor, piece: Piece, dim: int) -> Tensor:
        return x.narrow(dim, piece.first - self._plan.first, piece.end - piece.first)

    def _empty(self, piece: Piece) -> Tensor:
        batch, heads, _, dim = self._shape
        return self._like.new_empty(2, batch, heads, piece.end - piece.first, dim)


def valid_frames(lengths: Tensor, first: int, end: int) -> Tensor:
    """bool [B, n], True for the frames from `first` to before `end` that sequences of these lengths have."""
    return torch.arange(first, end, device=lengths.device)[None] < lengths[:, None]


@torch.compiler.disable  # as sliding_window_attention
def with_halo(
    group: Group, lengths: Sequence[int], x: Tensor, y: Tensor, mask: Tensor, reach: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """x, y and mask with `reach` frames of the stretches before and after, as far as there are any; how many before.

    Args:
        x, y: [B, T, D], of one shape and dtype: this rank's frames. Neighbours add to their gradients.
        mask: bool [B, T].
    """
    own = plan(lengths, group.rank, Window(reach, reach, 1, False))
    exchange = Exchange(group, own, x[:, None], mask)
    try:
        x, y, *pieces = Begin.apply(exchange, x[:, None], y[:, None])
        if pieces:
            pieces = [piece.unbind(0) for piece in Finish.apply(exchange, *pieces)]
    finally:
        exchange.settle()
    before = sum(piece.first < own.first for piece in own.received)
    x, y = (
        torch.cat([*(p[n] for p in pieces[:before]), z, *(p[n] for p in pieces[before:])], 2)[:, 0]
        for n, z in enumerate((x, y))
    )
    return x, y, torch.cat([*exchange.masks[:before], mask, *exchange.masks[before:]], 1), own.before


class Begin(torch.autograd.Function):
    """k and v as they are, and the pieces of the halo, not there yet."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        ctx.set_materialize_grads(False)
        return k.view_as(k), v.view_as(v), *exchange.begin(k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dk: Tensor | None, dv: Tensor | None, *halo: None) -> tuple[Tensor | None, ...]:
        return None, *ctx.exchange.gradients(dk, dv)


class Finish(torch.autograd.Function):
    """The pieces of the halo, there."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, *pieces: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        ctx.set_materialize_grads(False)
        exchange.wait()
        return tuple(piece.view_as(piece) for piece in pieces)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        ctx.exchange.begin_back(gradients)
        return (None,) * (1 + len(gradients))
