"""How a call is computed: as the reference, or by the registered ops, folded or not."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from ..memory_attention.backends import SUFFIX, prefers_triton
from ..memory_attention.call import hidden, usable
from ..memory_attention.products import matmul
from ..memory_attention.read import keeps_weights, read, weigh
from ..memory_attention.reference import dropout_keep
from ..tensors import acc_dtype
from .call import Call
from .cpu import folded_layer, is_one_layer
from .fold import Folded, can_fold_keys, fold
from .reference import memory_fuse_reference


def preferred(call: Call) -> str | None:
    """As `memory_attention`'s, of the rows and the bank that folding leaves."""
    folded = call.fold
    if isinstance(folded, Folded):
        keys, values = folded.projected, folded.values is not None
    else:
        keys, values = folded
        keys = keys and can_fold_keys(call.bank, call.query_weight, call.options.normalize)
    key_dim = call.x.shape[2] if keys else call.bank.key_dim
    return prefers_triton(call, key_dim, call.weight.shape[0] if values else call.bank.values.shape[3])


def run(backend: str, call: Call) -> Any:
    """The call by a backend: y, with usage where it is wanted."""
    call = call._replace(bank=usable(call.bank))
    if backend == "reference":
        y, usage = _reference(call)
    else:
        folded = call.fold
        if not isinstance(folded, Folded):
            folded = fold(call.bank, call.weight, call.query_weight, call.options.normalize, *folded)
        elif isinstance(folded.keys, Tensor):
            keys, *values = hidden(call.bank.slot_bias, *(x for x in folded[:2] if isinstance(x, Tensor)))
            folded = folded._replace(keys=keys, values=values[0] if values else None)
        if folded.values is None:
            y, usage = _apart(call, folded, SUFFIX[backend])
        elif backend == "cpp" and is_one_layer(call, folded):
            y, usage = folded_layer(call, folded)
        else:
            y, usage = _folded(call, folded, folded.values, SUFFIX[backend])
    y = y.reshape(*call.leading, call.weight.shape[0])
    if not call.return_usage:
        return y
    return y, usage if call.bank.batched else usage[0]


def _reference(call: Call) -> tuple[Tensor, Tensor]:
    (groups, rows, _), bank, options = call.x.shape, call.bank, call.options
    return memory_fuse_reference(
        call.x,
        bank.keys,
        bank.values,
        call.weight,
        call.bias,
        query_weight=call.query_weight,
        residual=call.residual,
        norm=call.norm,
        scale=options.scale,
        normalize=options.normalize,
        slot_bias=bank.slot_bias,
        query_mask=options.query_mask,
        top_k=options.top_k,
        keep=dropout_keep(call.x, (groups, call.heads, rows, bank.slots), options.dropout_p),
    )


def _folded(call: Call, folded: Folded, values: Tensor, suffix: str) -> tuple[Tensor, Tensor]:
    options = call.options
    queries = _queries(call, folded)
    bank = call.bank._replace(keys=folded.keys, values=values)
    keeps = options.dropout_p > 0 or keeps_weights(queries, bank)
    if options.top_k is None and keeps and not bank.batched:
        found = weigh(queries, bank, options, suffix)
        weights = F.dropout(found.weights, options.dropout_p) if options.dropout_p > 0 else found.weights
        flat = weights[0].transpose(0, 1).flatten(1)  # [N, H * S]
        return _join(call, flat, values[0].flatten(0, 1), suffix), found.usage
    retrieved, _, usage = read(queries.to(values.dtype), bank, options, suffix, True)
    x, weight = _left_in(call).to(values.dtype), call.weight[:, : call.x.shape[2]].to(values.dtype)
    y = F.linear(x, weight, None if call.bias is None else call.bias.to(x.dtype)) + retrieved.sum(2)
    if call.residual is not None:
        y = y + call.residual
    return _masked(call, y.to(call.x.dtype)), usage


def _apart(call: Call, folded: Folded, suffix: str) -> tuple[Tensor, Tensor]:
    """What was retrieved is formed, and joined to the frame by W2."""
    bank = call.bank._replace(keys=folded.keys)
    retrieved, _, usage = read(_queries(call, folded), bank, call.options, suffix, True)
    m = retrieved.flatten(2)
    if call.norm is not None:
        gain, shift = (None if t is None else t.to(m.dtype) for t in call.norm[:2])
        m = F.layer_norm(m, m.shape[-1:], gain, shift, call.norm[2])
    return _join(call, m.flatten(0, 1), call.weight[:, call.x.shape[2] :].t().to(m.dtype), suffix), usage


def _queries(call: Call, folded: Folded) -> Tensor:
    """Rows as queries [G, n, H, d], and by their dtype what is read."""
    x, key_dim = call.x, call.bank.key_dim
    if folded.projected:
        return _wide(call, x)[:, :, None].expand(-1, -1, call.heads, -1)
    if (weight := call.query_weight) is None:
        x = _wide(call, x)
    else:  # 0 times NaN would be in the projection's gradient: only what is left in is projected
        x, weight = _wide(call, _left_in(call)), _wide(call, weight)
        x = matmul(x[:, None], weight.t().expand(x.shape[0], 1, -1, -1))[:, 0]
    return x.unflatten(2, (call.heads, key_dim))


def _wide(call: Call, x: Tensor) -> Tensor:
    """On the CPU in float32: float16 does not hold the gradient of a query next to 0, and the norm of a few numbers
    that are alike is one of their rounding. bfloat16 without a norm stays what its products are quicker for."""
    stays = x.device.type != "cpu" or (x.dtype == torch.bfloat16 and call.norm is None)
    return x if stays else x.to(acc_dtype(x.dtype))


def _left_in(call: Call) -> Tensor:
    """x, 0 in the rows that the query mask leaves out, whatever they hold."""
    mask = call.options.query_mask
    return call.x if mask is None else call.x.masked_fill(~mask[:, :, None], 0.0)


def _join(call: Call, weights: Tensor, bank: Tensor, suffix: str) -> Tensor:
    """x W1^T + weights bank + bias + residual [G, n, O]."""
    (groups, rows, dim), residual = call.x.shape, call.residual
    residual = None if residual is None else residual.flatten(0, 1)
    y = library.call(
        f"memory_join{suffix}_fwd",
        _left_in(call).flatten(0, 1),
        weights,
        call.weight[:, :dim],
        bank,
        call.bias,
        residual,
    )
    return _masked(call, y.view(groups, rows, y.shape[1]))


def _masked(call: Call, y: Tensor) -> Tensor:
    """y, and the residual alone, or 0, in the rows that the query mask leaves out."""
    mask = call.options.query_mask
    if mask is None:
        return y
    rest = y.new_zeros(()) if call.residual is None else call.residual
    return torch.where(mask[:, :, None], y, rest)
