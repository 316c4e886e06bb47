"""Sums over a group: of the gradients of what all ranks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .group import SHARED, Group, everyones


class _SumGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(ctx.group, gradient), None


def sum_gradient(group: Group, x: Tensor) -> Tensor:
    """x, whose gradient is the sum of all ranks'."""
    result: Tensor = _SumGradient.apply(x, group)
    return result


def summed(group: Group, x: Tensor) -> Tensor:
    """The sum of all ranks' x, added in the order of ranks, so that every rank has the same bits."""
    return torch.stack(everyones(group, x, SHARED)).sum(0)
