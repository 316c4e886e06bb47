"""`memory_fuse`: retrieval and the linear layer after it, as one product where that is less work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks, dispatch
from ..memory_attention.backends import BACKENDS, holds
from ..memory_attention.call import check_bank, check_options, check_rows, rows_of
from ..tensors import autocast
from .backends import preferred, run
from .call import NAME, Call, Norm, check_folded, check_norm, check_query_weight, check_weight
from .cpu import layer_speed
from .fold import Folded, fold, saves
from .reference import memory_fuse_reference

__all__ = ["Folded", "fold_bank", "memory_fuse", "memory_fuse_reference"]


@torch.no_grad()
def fold_bank(
    keys: Tensor,
    values: Tensor | None,
    weight: Tensor,
    *,
    query_weight: Tensor | None = None,
    num_heads: int = 1,
    normalize: bool = False,
    top_k: int | None = None,
) -> Folded:
    """What `memory_fuse` folds of a bank and weights that stand still, once for many calls: its `fold` takes it.

    It is a snapshot, without a gradient: who changes any of these tensors folds again. What saves no multiplications,
    even when folding costs nothing, is not folded.

    Args:
        keys, values, weight, query_weight, num_heads, normalize, top_k: as `memory_fuse` takes them; a bank that all
            batch entries share, and no product keys.
    Returns:
        Folded: keys [1, H, S, d] or, with the projection in them, [1, H, S, C], and values [1, H, S, O] or None.
    Raises:
        TypeError: for a wrong type or dtype.
        ValueError: for a wrong shape or device.
    """
    op = "fold_bank"
    checks.is_floating(op, "keys", keys)
    if keys.dim() not in (2, 3):
        checks.fail(op, "keys", "of shape [S, D] or [H, S, d]", list(keys.shape))
    checks.is_positive_int(op, "num_heads", num_heads)
    if query_weight is None:
        dim = keys.shape[-1] * (num_heads if keys.dim() == 3 else 1)
    else:
        checks.is_tensor(op, "query_weight", query_weight)
        dim = query_weight.shape[-1]
    x = keys.new_empty((0, dim))  # a call without frames
    bank = check_bank(op, x, keys, values, num_heads, check_query_weight(op, x, query_weight))
    check_weight(op, x, weight, num_heads * bank.values.shape[3])
    which = saves(bank, 1, x.shape[1], weight.shape[0], top_k, made=True)
    with torch.no_grad(), torch.autocast(keys.device.type, enabled=False):
        folded = fold(bank, weight, query_weight, normalize, *which)
    return folded._replace(keys=folded.keys.clone()) if isinstance(folded.keys, Tensor) else folded


@dispatch.op(BACKENDS, run, preferred, holds=holds)
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
    fold: str | bool | Folded = "auto",
    num_heads: int = 1,
    scale: float | Tensor | None = None,
    normalize: bool = False,
    slot_mask: Tensor | None = None,
    slot_bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    dropout_p: float = 0.0,
    return_usage: bool = False,
    backend: str = "auto",
) -> Any:
    """Retrieval from a bank and the linear layer that joins it to the frame.

        y = [x, norm(m)] weight^T + bias (+ residual),   m = memory_attention(x query_weight^T, keys, values)

    With weight = [W1, W2], V' = values W2^T and K' = keys query_weight are small ([S, O] and [S, C]), and
    y = [x, P] [W1, V'^T]^T with P = softmax(scale * x K'^T): m is never formed. That is the folded form. V' and K' are
    made anew in each call; where bank and weights stand still, `fold_bank` makes them once. torch.autocast casts x, the
    bank, the weights, bias, norm and residual.

    Args:
        x (Tensor): [..., T, C], float32, float16, bfloat16 or float64.
        keys, values, num_heads, scale, normalize, slot_mask, slot_bias, top_k, dropout_p: as
            `memory_attention` takes them; the keys' D is C, or the projection's.
        weight (Tensor): [O, C + E], that of a Linear on [x, m]. bias (Tensor | None): [O].
        query_weight (Tensor | None): [D, C], a projection of x to the keys' D; None: x itself is the query.
        residual (Tensor | None): [..., T, O], added to the result (also at frames that query_mask leaves out).
        norm (tuple | None): (weight [E], bias [E], eps) of a LayerNorm of m, as torch.nn.LayerNorm holds them; weight
            and bias may be None. It does not fold: with it m is formed.
        fold (str | bool | Folded): "auto" folds what saves time, by its products; True and False force it. A cosine of
            projected queries cannot fold the keys (their norm needs the projection) and folds the values alone. What
            `fold_bank` made of this bank and these weights is taken as it is, without a gradient of them.
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
    x, keys, values, weight, bias, query_weight, residual, norm = autocast(
        x, keys, values, weight, bias, query_weight, residual, norm
    )
    check_rows(NAME, x)
    bank = check_bank(NAME, x, keys, values, num_heads, check_query_weight(NAME, x, query_weight), slot_mask, slot_bias)
    options = check_options(NAME, x, bank, scale, normalize, query_mask, top_k, dropout_p)
    retrieved = num_heads * bank.values.shape[3]
    check_weight(NAME, x, weight, retrieved)
    out_dim = weight.shape[0]
    if bias is not None:
        checks.matches(NAME, "bias", bias, "x", x)
        checks.has_shape(NAME, "bias", bias, (out_dim,), "[O]")
    if residual is not None:
        checks.matches(NAME, "residual", residual, "x", x)
        checks.has_shape(NAME, "residual", residual, (*x.shape[:-1], out_dim), "[..., T, O]")
        residual = rows_of(residual, bank)
    if norm is not None:
        norm = check_norm(norm, x, retrieved)
    rows = rows_of(x, bank)
    which: Folded | tuple[bool, bool]
    if isinstance(fold, Folded):
        check_folded(fold, x, bank, weight, query_weight, normalize)
        which = fold
    elif isinstance(fold, bool):
        which = fold, fold
    elif fold == "auto":
        speed = layer_speed(rows, bank, options) if query_weight is None else 1
        keys_save, values_save = saves(bank, rows.shape[1], rows.shape[2], out_dim, options.top_k, layer_speed=speed)
        which = keys_save, values_save and norm is None
    else:
        checks.fail(NAME, "fold", '"auto", True, False or what fold_bank makes', repr(fold))
    if norm is not None and (fold is True or isinstance(fold, Folded)):
        checks.fail(
            NAME,
            "fold",
            '"auto" or False with a norm of what was retrieved, which does not fold',
            fold if fold is True else "a folded bank",
        )
    leading = x.shape[:-1]
    return Call(rows, bank, options, weight, bias, query_weight, residual, norm, which, leading, return_usage, backend)
