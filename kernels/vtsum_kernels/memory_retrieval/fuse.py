"""The public op `memory_fuse`: retrieval and the linear layer after it, as one product where that is less work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks, dispatch
from . import plan
from .attention import reference_keep
from .backends import SUFFIX, predicates
from .fold_cache import folded, keeps
from .layer import folded_layer
from .ops import wide
from .products import matmul
from .read import keeps_weights, read, unit_keys, weigh
from .reference import memory_fuse_reference
from .shapes import Bank, Options, check_bank, check_options, check_rows, rows_of

_NAME = "memory_fuse"
Norm = tuple[Tensor | None, Tensor | None, float]


class FuseCall(NamedTuple):
    """A checked call: x as [G, n, C], the bank in its one form, and which products are folded into the bank."""

    x: Tensor
    bank: Bank
    options: Options
    heads: int
    weight: Tensor
    bias: Tensor | None
    query_weight: Tensor | None
    residual: Tensor | None  # [G, n, O]
    norm: Norm | None
    fold_keys: bool
    fold_values: bool
    sources: tuple[Any, Any]  # keys and values as they were given: what the folded constants are known by


def _check(
    x: Tensor,
    keys: Tensor | tuple[Tensor, Tensor],
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    fold: str | bool = "auto",
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    dropout_p: float = 0.0,
    return_usage: bool = False,
    deterministic: bool = True,
) -> FuseCall:
    check_rows(_NAME, x)
    dim = x.shape[-1]
    if query_weight is not None:
        checks.matches(_NAME, "query_weight", query_weight, "x", x)
        checks.has_rank(_NAME, "query_weight", query_weight, 2, "[D, C]")
        checks.has_shape(_NAME, "query_weight", query_weight, (query_weight.shape[0], dim), "[D, C]")
    queries = dim if query_weight is None else query_weight.shape[0]
    bank = check_bank(_NAME, x, keys, values, num_heads, queries, slot_mask, slot_bias)
    options = check_options(_NAME, x, bank, scale, normalize, query_mask, top_k, dropout_p, deterministic)
    value_dim = bank.values.shape[3]
    checks.matches(_NAME, "weight", weight, "x", x)
    checks.has_rank(_NAME, "weight", weight, 2, "[O, C + E]")
    checks.has_shape(_NAME, "weight", weight, (weight.shape[0], dim + num_heads * value_dim), "[O, C + E]")
    out_dim = weight.shape[0]
    if bias is not None:
        checks.matches(_NAME, "bias", bias, "x", x)
        checks.has_shape(_NAME, "bias", bias, (out_dim,), "[O]")
    if residual is not None:
        checks.matches(_NAME, "residual", residual, "x", x)
        checks.has_shape(_NAME, "residual", residual, (*x.shape[:-1], out_dim), "[..., T, O]")
        residual = rows_of(residual, bank)
    if norm is not None:
        norm = _check_norm(norm, x, num_heads * value_dim)
    if fold != "auto" and not isinstance(fold, bool):
        checks.fail(_NAME, "fold", '"auto", True or False', repr(fold))
    if fold is True and norm is not None:
        checks.fail(_NAME, "fold", '"auto" or False with a norm of what was retrieved, which does not fold', fold)
    flat = rows_of(x, bank)
    # A cosine of projected queries needs the projection itself, for its norm; product keys are searched by halves.
    can_keys = query_weight is not None and not normalize and not isinstance(keys, (tuple, list))
    can_values = norm is None
    if fold == "auto":
        groups, frames = flat.shape[0], flat.shape[0] * flat.shape[1]
        kept = keeps(_tensors(keys, values, weight, query_weight))
        sizes = (num_heads, bank.slots, bank.key_dim, value_dim, out_dim, groups, options.top_k, kept)
        fold_keys, fold_values = plan.folds(frames, dim, *sizes)
    else:
        fold_keys = fold_values = bool(fold)
    return FuseCall(
        flat,
        bank,
        options,
        num_heads,
        weight,
        bias,
        query_weight,
        residual,
        norm,
        fold_keys and can_keys,
        fold_values and can_values,
        (keys, values),
    )


def _check_norm(norm: Any, x: Tensor, size: int) -> Norm:
    if not isinstance(norm, (tuple, list)) or len(norm) != 3:
        checks.fail(_NAME, "norm", "a tuple (weight, bias, eps) or None", type(norm).__name__, TypeError)
    gain, shift, eps = norm
    for name, tensor in (("norm[0]", gain), ("norm[1]", shift)):
        if tensor is not None:
            checks.matches(_NAME, name, tensor, "x", x)
            checks.has_shape(_NAME, name, tensor, (size,), "[E]")
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        checks.fail(_NAME, "norm[2]", "a float, the eps", type(eps).__name__, TypeError)
    return gain, shift, float(eps)


OP = dispatch.register(dispatch.Op(_NAME, predicates(lambda call: (call.x, call.options.top_k is not None)), _check))


def _tensors(*given: Any) -> tuple[Tensor, ...]:
    return tuple(t for t in given if isinstance(t, Tensor))


def _with_folded_keys(call: FuseCall) -> FuseCall:
    """Keys K' = K Wq, for rows x themselves: [G, H, S, C]."""

    def make() -> Tensor:
        by_head = call.query_weight.unflatten(0, (call.heads, call.bank.key_dim))  # type: ignore[union-attr]
        return _product(call.bank.keys, by_head[None])  # type: ignore[arg-type]

    made = folded(("keys", call.heads), _tensors(call.sources[0], call.query_weight), make)
    return call._replace(bank=call.bank._replace(keys=made), query_weight=None)


def _folded_values(call: FuseCall) -> Tensor:
    """V' = V W2^T [G, H, S, O]."""

    def make() -> Tensor:
        outward = call.weight[:, call.x.shape[2] :].unflatten(1, (call.heads, call.bank.values.shape[3]))
        return _product(call.bank.values, outward.permute(1, 2, 0)[None])

    keys, values = call.sources
    return folded(("values", call.heads), _tensors(keys if values is None else values, call.weight), make)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product in float32 at least on the CPU, where what it feeds is float32 too; on a GPU in its own dtype."""
    if a.device.type == "cpu":
        a, b = a.to(wide(a.dtype)), b.to(wide(b.dtype))
    return matmul(a, b.expand(a.shape[0], -1, -1, -1))


def _queries(call: FuseCall) -> tuple[Tensor, FuseCall]:
    """Rows as queries [G, n, H, d], and the call with the keys that they are compared with."""
    x = call.x
    if call.query_weight is None:
        return x.unflatten(2, (call.heads, call.bank.key_dim)), call
    if call.fold_keys:
        return x[:, :, None].expand(-1, -1, call.heads, -1), _with_folded_keys(call)
    projected = matmul(x[:, None], call.query_weight.t().expand(x.shape[0], 1, -1, -1))[:, 0]
    return projected.unflatten(2, (call.heads, call.bank.key_dim)), call


def _compute(call: FuseCall, suffix: str) -> tuple[Tensor, Tensor]:
    """y [G, n, O] and usage [G, H, S]."""
    if call.fold_values:
        if suffix == "" and call.x.device.type == "cpu" and _is_one_layer(call):
            return _layer(call)
        return _folded(call, suffix)
    return _unfolded(call, suffix)


def _is_one_layer(call: FuseCall) -> bool:
    """Whether the op of the whole layer serves the call: one head, one bank, weights of all slots that can be kept."""
    options = call.options
    return (
        call.heads == 1
        and not call.bank.batched
        and options.top_k is None
        and options.dropout_p == 0
        and (call.query_weight is None or call.fold_keys)
        and keeps_weights(call.x[:, :, None], call.bank)
    )


def _layer(call: FuseCall) -> tuple[Tensor, Tensor]:
    options, dim = call.options, call.x.shape[2]
    if call.fold_keys:
        call = _with_folded_keys(call)
    keys: Tensor = call.bank.keys  # type: ignore[assignment]  # a pair is never scored in full
    if options.normalize:
        split = keys
        keys = folded(("unit", call.heads), _tensors(call.sources[0]), lambda: unit_keys(split))
    bank = _folded_values(call)
    y, usage = folded_layer(
        call.x[0],
        keys[0, 0],
        bank[0, 0],
        call.weight[:, :dim],
        call.bias,
        options.scale,
        None if call.bank.slot_bias is None else call.bank.slot_bias.reshape(-1),
        None if options.query_mask is None else options.query_mask[0],
        options.normalize,
    )
    y, usage = y[None], usage.view(1, 1, -1)
    return (y if call.residual is None else y + call.residual), usage


def _folded(call: FuseCall, suffix: str) -> tuple[Tensor, Tensor]:
    dtype, dim, options = call.x.dtype, call.x.shape[2], call.options
    queries, call = _queries(call)
    values = _folded_values(call)
    bank = call.bank._replace(values=values)
    if options.query_mask is not None:
        call = call._replace(x=call.x.masked_fill(~options.query_mask[:, :, None], 0.0))
    keeps = options.dropout_p > 0 or keeps_weights(queries, bank)
    if options.top_k is None and keeps and not bank.batched:
        found = weigh(queries, bank, options, suffix)
        weights = F.dropout(found.weights, options.dropout_p) if options.dropout_p > 0 else found.weights
        flat = weights[0].transpose(0, 1).flatten(1)  # [N, H * S]
        return _masked(_join(call, flat, values[0].flatten(0, 1), suffix), call), found.usage
    read_out, _, usage = read(queries.to(values.dtype), bank, options, suffix, True)
    x = call.x.to(values.dtype)
    bias = None if call.bias is None else call.bias.to(x.dtype)
    y = F.linear(x, call.weight[:, :dim].to(x.dtype), bias) + read_out.sum(2)
    return _masked(y.to(dtype), call), usage


def _unfolded(call: FuseCall, suffix: str) -> tuple[Tensor, Tensor]:
    queries, call = _queries(call)
    retrieved, _, usage = read(queries, call.bank, call.options, suffix, True)
    m = retrieved.flatten(2)
    if call.norm is not None:
        m = F.layer_norm(m, m.shape[-1:], *call.norm)
    if call.options.query_mask is not None:
        left_out = ~call.options.query_mask[:, :, None]
        call = call._replace(x=call.x.masked_fill(left_out, 0.0))
    return _masked(_join(call, m.flatten(0, 1), call.weight[:, call.x.shape[2] :].t(), suffix), call), usage


def _join(call: FuseCall, weights: Tensor, bank: Tensor, suffix: str) -> Tensor:
    """x W1^T + weights bank + bias [G, n, O]."""
    op = getattr(torch.ops.vtsum_kernels, f"memory_join{suffix}_fwd")
    groups, rows, dim = call.x.shape
    y = op(call.x.flatten(0, 1), weights, call.weight[:, :dim], bank, call.bias, None)
    return y.view(groups, rows, y.shape[1])


def _masked(y: Tensor, call: FuseCall) -> Tensor:
    if call.options.query_mask is not None:
        y = y.masked_fill(~call.options.query_mask[:, :, None], 0.0)
    return y if call.residual is None else y + call.residual


def memory_fuse(
    x: Tensor,
    keys: Tensor | tuple[Tensor, Tensor],
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    query_weight: Tensor | None = None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    fold: str | bool = "auto",
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    dropout_p: float = 0.0,
    return_usage: bool = False,
    deterministic: bool = True,
    backend: str = "auto",
) -> Any:
    """Retrieval from a bank and the linear layer that joins it to the frame.

        y = [x, norm(m)] weight^T + bias (+ residual),   m = memory_attention(x query_weight^T, keys, values)

    With weight = [W1, W2], V' = values W2^T and K' = keys query_weight are small ([S, O] and [S, C]), and
    y = [x, P] [W1, V'^T]^T with P = softmax(scale * x K'^T): m is never formed. That is the folded form. Where no
    gradient of them is wanted, V' and K' are kept from call to call until the bank or the weights change.

    Args:
        x (Tensor): [..., T, C], float32, float16, bfloat16 or float64.
        keys, values, num_heads, scale, normalize, slot_mask, slot_bias, top_k, dropout_p, deterministic: as
            `memory_attention` takes them; the keys' D is C, or the projection's.
        weight (Tensor): [O, C + E], that of a Linear on [x, m]. bias (Tensor | None): [O].
        query_weight (Tensor | None): [D, C], a projection of x to the keys' D; None: x itself is the query.
        residual (Tensor | None): [..., T, O], added to the result (also at frames that query_mask leaves out).
        norm (tuple | None): (weight [E], bias [E], eps) of a LayerNorm of m, as torch.nn.LayerNorm holds them; weight
            and bias may be None. It does not fold: with it m is formed.
        fold (str | bool): "auto" folds what saves multiplications; True and False force it. A cosine of projected
            queries cannot fold the keys (their norm needs the projection) and folds the values alone.
        query_mask (Tensor | None): bool [..., T], True = valid. At other frames y is the residual, or 0.
        return_usage (bool): also return usage [H, S] ([B, H, S] for a bank a batch entry), the sum over frames of the
            weight each slot got, differentiable.
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
        norm=norm,
        fold=fold,
        num_heads=num_heads,
        scale=scale,
        normalize=normalize,
        slot_mask=slot_mask,
        slot_bias=slot_bias,
        query_mask=query_mask,
        top_k=top_k,
        dropout_p=dropout_p,
        deterministic=deterministic,
    )
    chosen = dispatch.choose(OP, backend, call)
    if chosen == "reference":
        queries = call.x[:, :, None].expand(-1, -1, num_heads, -1)
        y, usage = memory_fuse_reference(
            call.x,
            call.bank.keys,
            call.bank.values,
            weight,
            bias,
            query_weight=query_weight,
            residual=call.residual,
            norm=call.norm,
            scale=call.options.scale,
            normalize=normalize,
            slot_bias=call.bank.slot_bias,
            query_mask=call.options.query_mask,
            top_k=call.options.top_k,
            keep=reference_keep(call.bank, call.options, queries),
        )
    else:
        y, usage = _compute(call, SUFFIX[chosen])
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    if not return_usage:
        return y
    return y, usage if call.bank.batched else usage[0]
