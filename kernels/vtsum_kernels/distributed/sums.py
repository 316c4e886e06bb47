"""Sums over a group: of gradients of what all ranks share, of what each rank counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .group import SHARED, Group, everyones, swap


class _SumGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(ctx.group, gradient), None


class _SumValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return summed(group, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _SumShared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return summed(group, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(ctx.group, gradient), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return torch.stack(everyones(group, x, SHARED))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        group: Group = ctx.group
        sent = gradient.contiguous()
        found = [torch.empty_like(part) for part in sent]
        swap(group, list(sent), found, SHARED)
        return torch.stack(found).sum(0), None


def sum_value(group: Group, x: Tensor) -> Tensor:
    """The sum of all ranks' x. Its gradient is that of one loss, which every rank makes of it: no message."""
    result: Tensor = _SumValue.apply(x, group)
    return result


def sum_gradient(group: Group, x: Tensor) -> Tensor:
    """x, whose gradient is the sum of all ranks'."""
    result: Tensor = _SumGradient.apply(x, group)
    return result


def sum_shared(group: Group, x: Tensor) -> Tensor:
    """The sum of all ranks' x, with which each rank goes on as it likes: its gradient is the sum of all ranks'."""
    result: Tensor = _SumShared.apply(x, group)
    return result


def gather_shared(group: Group, x: Tensor) -> Tensor:
    """[ranks, ...]: all ranks' x, of one shape, with which each rank goes on as it likes: the gradient of x is the sum
    of what all ranks have for it."""
    result: Tensor = _Gather.apply(x, group)
    return result


def summed(group: Group, x: Tensor) -> Tensor:
    """The sum of all ranks' x, added in the order of ranks, so that every rank has the same bits."""
    return torch.stack(everyones(group, x, SHARED)).sum(0)
