"""The public op `memory_fuse`: retrieval and the linear layer after it, as one product where that is less work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks, dispatch
from .shapes import check_bank, check_masks, check_queries, check_scale
from .weights import cpp_can_run, softmax_over_slots, unit_keys

_NAME = "memory_fuse"


class FuseCall(NamedTuple):
    """A checked call: x as [N, C], the bank as [H, S, d] and [H, S, e], and which products are folded into the bank."""

    x: Tensor
    keys: Tensor
    values: Tensor
    scale: float | Tensor
    normalize: bool
    slot_mask: Tensor | None
    query_mask: Tensor | None
    residual: Tensor | None
    fold_keys: bool
    fold_values: bool


def _check(
    x: Tensor,
    keys: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    fold: str | bool = "auto",
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    return_usage: bool = False,
) -> FuseCall:
    check_queries(_NAME, x)
    keys, values = check_bank(_NAME, keys, values, num_heads, x)
    (heads, slots, key_dim), value_dim, dim = keys.shape, values.shape[2], x.shape[-1]
    if query_weight is None:
        if dim != heads * key_dim:
            checks.fail(_NAME, "x", f"of shape [..., T, C] with C = {heads * key_dim}, as the keys have", list(x.shape))
    else:
        checks.matches(_NAME, "query_weight", query_weight, "x", x)
        checks.has_shape(_NAME, "query_weight", query_weight, (heads * key_dim, dim), "[keys' D, C]")
    checks.matches(_NAME, "weight", weight, "x", x)
    checks.has_rank(_NAME, "weight", weight, 2, "[O, C + E]")
    checks.has_shape(_NAME, "weight", weight, (weight.shape[0], dim + heads * value_dim), "[O, C + E]")
    if bias is not None:
        checks.matches(_NAME, "bias", bias, "x", x)
        checks.has_shape(_NAME, "bias", bias, (weight.shape[0],), "[O]")
    if residual is not None:
        checks.matches(_NAME, "residual", residual, "x", x)
        checks.has_shape(_NAME, "residual", residual, (*x.shape[:-1], weight.shape[0]), "[..., T, O]")
        residual = residual.reshape(-1, weight.shape[0])
    if fold != "auto" and not isinstance(fold, bool):
        checks.fail(_NAME, "fold", '"auto", True or False', repr(fold))
    slot_mask, query_mask = check_masks(_NAME, x, slots, slot_mask, query_mask)
    flat = x.reshape(-1, dim)
    fold_keys, fold_values = _plan(fold, flat, keys, values, weight, query_weight is not None, normalize)
    return FuseCall(
        flat,
        keys,
        values,
        check_scale(_NAME, scale, key_dim, x),
        normalize,
        slot_mask,
        query_mask,
        residual,
        fold_keys,
        fold_values,
    )


def _plan(
    fold: str | bool, x: Tensor, keys: Tensor, values: Tensor, weight: Tensor, projected: bool, normalize: bool
) -> tuple[bool, bool]:
    """Which products to fold into the bank: those that save multiplications, or as `fold` says.

    A cosine of projected queries needs the projection itself, for its norm: there the keys never fold.
    """
    can_fold_keys = projected and not normalize
    if fold != "auto":
        return bool(fold) and can_fold_keys, bool(fold)
    frames, dim = x.shape
    heads, slots, key_dim = keys.shape
    value_dim, out_dim = values.shape[2], weight.shape[0]
    bank = heads * slots
    keys_apart = frames * heads * key_dim * (dim + slots)
    keys_folded = bank * dim * (frames + key_dim)
    values_apart = frames * heads * value_dim * (out_dim + slots)
    values_folded = bank * out_dim * (frames + value_dim)
    return can_fold_keys and keys_folded < keys_apart, values_folded < values_apart


def _weights(call: FuseCall, x: Tensor, query_weight: Tensor | None, compiled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [H, N, S], lse [H, N] and usage [H, S]."""
    heads, _, key_dim = call.keys.shape
    keys = unit_keys(call.keys) if call.normalize else call.keys
    if query_weight is not None and call.fold_keys:
        folded = torch.matmul(keys, query_weight.unflatten(0, (heads, key_dim)))  # [H, S, C]
        scores = torch.matmul(x, folded.transpose(1, 2))
        return softmax_over_slots(scores, call.scale, None, call.slot_mask, call.query_mask, compiled)
    queries = x if query_weight is None else x @ query_weight.t()
    queries = queries.unflatten(1, (heads, key_dim))
    scores = torch.matmul(queries.transpose(0, 1), keys.transpose(1, 2))
    of_cosine = queries if call.normalize else None
    return softmax_over_slots(scores, call.scale, of_cosine, call.slot_mask, call.query_mask, compiled)


def _compute(
    call: FuseCall, weight: Tensor, bias: Tensor | None, query_weight: Tensor | None, compiled: bool
) -> tuple[Tensor, Tensor]:
    """y [N, O] and usage [H, S]."""
    x = call.x
    if call.query_mask is not None:
        x = x.masked_fill(~call.query_mask[:, None], 0.0)
    (heads, _, value_dim), dim = call.values.shape, x.shape[1]
    weights, _, usage = _weights(call, x, query_weight, compiled)
    weights = weights.to(x.dtype)
    if call.fold_values:
        outward = weight[:, dim:].unflatten(1, (heads, value_dim))  # [O, H, e]
        bank = torch.matmul(call.values, outward.permute(1, 2, 0)).flatten(0, 1)  # [H * S, O]
        joint = torch.cat((x, weights.transpose(0, 1).flatten(1)), 1)
        y = F.linear(joint, torch.cat((weight[:, :dim], bank.t()), 1), bias)
    else:
        retrieved = torch.matmul(weights, call.values).transpose(0, 1).flatten(1)
        y = F.linear(torch.cat((x, retrieved), 1), weight, bias)
    if call.query_mask is not None:
        y = y.masked_fill(~call.query_mask[:, None], 0.0)
    if call.residual is not None:
        y = y + call.residual
    return y, usage


def _reference_can_run(call: FuseCall) -> str | None:
    return None


def _cpp_can_run(call: FuseCall) -> str | None:
    return cpp_can_run(call.x)


OP = dispatch.register(dispatch.Op(_NAME, {"cpp": _cpp_can_run, "reference": _reference_can_run}, _check))


def memory_fuse(
    x: Tensor,
    keys: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    fold: str | bool = "auto",
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    return_usage: bool = False,
    backend: str = "auto",
) -> Any:
    """Retrieval from a bank and the linear layer that joins it to the frame.

        y = [x, m] weight^T + bias (+ residual),   m = memory_attention(x query_weight^T, keys, values)

    With weight = [W1, W2], V' = values W2^T and K' = keys query_weight are small ([S, O] and [S, C]), and
    y = [x, P] [W1, V'^T]^T with P = softmax(scale * x K'^T): m is never formed. That is the folded form.

    Args:
        x (Tensor): [..., T, C], float32, float16, bfloat16 or float64.
        keys, values, num_heads, scale, normalize, slot_mask: as `memory_attention` takes them.
        weight (Tensor): [O, C + E], that of a Linear on [x, m]. bias (Tensor | None): [O].
        query_weight (Tensor | None): [D, C], a projection of x to the keys' D; None: x itself is the query.
        residual (Tensor | None): [..., T, O], added to the result (also at frames that query_mask leaves out).
        fold (str | bool): "auto" folds what saves multiplications; True and False force it. A cosine of projected
            queries cannot fold the keys (their norm needs the projection) and folds the values alone.
        query_mask (Tensor | None): bool [..., T], True = valid. At other frames y is the residual, or 0.
        return_usage (bool): also return usage [H, S], the sum over frames of the weight each slot got, differentiable.
        backend (str): "auto", or one of the op's backends; see `vtsum_kernels.explain`.
    Returns:
        Tensor: [..., T, O], dtype of x; with `return_usage` a tuple (y, usage).
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape, device or value.
        NotImplementedError: if an explicit backend cannot serve the call.

    Source: the linear layer on [x, m] is that of the reference model; the folding is associativity.
    """
    call = _check(
        x,
        keys,
        values,
        weight,
        bias,
        query_weight=query_weight,
        residual=residual,
        fold=fold,
        num_heads=num_heads,
        scale=scale,
        normalize=normalize,
        slot_mask=slot_mask,
        query_mask=query_mask,
    )
    compiled = dispatch.choose(OP, backend, call) == "cpp"
    y, usage = _compute(call, weight, bias, query_weight, compiled)
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return (y, usage) if return_usage else y
