"""The registered ops `memory_softmax_fwd` and `_bwd`: what lies between the two matrix products of a retrieval."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import library


def _forward_fake(
    scores: Tensor, factor: Tensor, slot_mask: Tensor | None, query_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    heads, frames, slots = scores.shape
    return scores.new_empty(scores.shape), scores.new_empty((heads, frames)), scores.new_empty((heads, slots))


def _backward_fake(
    dweights: Tensor | None,
    dlse: Tensor | None,
    dusage: Tensor | None,
    weights: Tensor,
    scores: Tensor,
    factor: Tensor,
    query_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape), scores.new_empty(factor.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, factor, _, query_mask = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], scores, factor, query_mask)


def _dense(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()


def _gradient(
    ctx: Any, dweights: Tensor | None, dlse: Tensor | None, dusage: Tensor | None
) -> tuple[Tensor | None, ...]:
    weights, scores, factor, query_mask = ctx.saved_tensors
    slopes = torch.ops.vtsum_kernels.memory_softmax_bwd(
        _dense(dweights), _dense(dlse), _dense(dusage), weights, scores, factor, query_mask
    )
    return (*slopes, None, None)


library.define(
    "memory_softmax_fwd(Tensor scores, Tensor factor, Tensor? slot_mask, Tensor? query_mask) "
    "-> (Tensor, Tensor, Tensor)",
    _forward_fake,
    _gradient,
    _save,
)
library.define(
    "memory_softmax_bwd(Tensor? dweights, Tensor? dlse, Tensor? dusage, Tensor weights, Tensor scores, Tensor factor, "
    "Tensor? query_mask) -> (Tensor, Tensor)",
    _backward_fake,
    library.refuse_double_backward("memory_attention"),
)
