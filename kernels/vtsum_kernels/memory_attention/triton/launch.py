"""Launching of the weights of all slots, and of their backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...tensors import contiguous, dense_rows, near_rows
from ...triton_kit.launch import (
    aligned,
    aligned_strides,
    cdiv,
    launch,
    mask_arguments,
    on_its_device,
    power_of_two,
    run,
    strides,
)
from ...triton_kit.tuning import Config
from . import configs
from .configs import PRECISION, about
from .scores import memory_scores_bwd_kernel
from .weights import memory_weights_bwd_kernel, memory_weights_fwd_kernel


@on_its_device
def weights_forward(
    x: Tensor,
    keys: Tensor,
    factor: Tensor,
    slot_bias: Tensor | None,
    query_mask: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax over slots of factor x . k + bias: weights [G, H, n, S] of `dtype`, lse [G, H, n] and usage [G, H, S].

    Args:
        x (Tensor): [G, n, H, d], float32, float16 or bfloat16. keys (Tensor): [G, H, S, d].
        factor (Tensor): float32 [G, H, n]. slot_bias (Tensor | None): [G or 1, H or 1, S]; -inf leaves a slot out.
        query_mask (Tensor | None): bool [G, n]; other rows get weights 0 and lse -inf.
    """
    (groups, n, heads, dim), slots = x.shape, keys.shape[2]
    statistics: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    weights = torch.empty((groups, heads, n, slots), dtype=dtype, device=x.device)
    lse = torch.empty((groups, heads, n), **statistics)
    if weights.numel() == 0:
        return weights, lse.fill_(-torch.inf), torch.zeros((groups, heads, slots), **statistics)
    x, keys = near_rows(x, 1), near_rows(keys, 2)
    bias = None if slot_bias is None else dense_rows(slot_bias)
    step = configs.block_k(x.dtype)
    values: dict[str, Any] = {
        "x_ptr": x, "keys_ptr": keys, "factor_ptr": factor.contiguous(), "bias_ptr": bias, "weights_ptr": weights,
        "lse_ptr": lse, "n": n, **aligned("S", slots), "H": heads, "D": dim, "HAS_BIAS": bias is not None,
        "PRECISION": PRECISION,
        **aligned_strides("x", x, "gnh"), **aligned_strides("keys", keys, "ghs"), **strides("bias", bias, "gh"),
        **mask_arguments(query_mask, "gn"),
    }  # fmt: skip

    def call(config: Config) -> Tensor:
        blocks = cdiv(n, config.block_m)
        shares = torch.empty((groups, heads, blocks, slots), **statistics)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_S": config.block_n, "BLOCK_K": min(step, power_of_two(dim))}
        even = {"EVEN_D": dim % sizes["BLOCK_K"] == 0, "EVEN_S": slots % config.block_n == 0}
        tiles = 0 if config.form == "walk" else cdiv(slots, config.block_n)
        others = {"blocks": blocks, "partial_ptr": shares, "TILES": tiles, **sizes, **even}
        launch(memory_weights_fwd_kernel, groups * heads * blocks, config, values, **others)
        return shares.sum(2)

    words = ("memory_weights_fwd", x.dtype, dtype, dim, power_of_two(slots), about(groups * heads * n))
    return weights, lse, run(words, x.device, configs.weights_forward_candidates(x.dtype, slots), call)


def _dscores(
    dweights: Tensor | None,
    dlse: Tensor | None,
    dusage: Tensor | None,
    weights: Tensor,
    query_mask: Tensor | None,
    dtype: torch.dtype,
    need_bias: bool,
) -> tuple[Tensor, Tensor]:
    """The scores' gradient [G, H, n, S] of `dtype`, and the slot bias' [G, H, S] or [0]."""
    groups, heads, n, slots = weights.shape
    dscores = torch.empty(weights.shape, dtype=dtype, device=weights.device)
    values: dict[str, Any] = {
        "weights_ptr": weights.contiguous(), "dscores_ptr": dscores,
        "dweights_ptr": contiguous(dweights),
        "dlse_ptr": contiguous(dlse),
        "dusage_ptr": contiguous(dusage),
        "n": n, **aligned("S", slots), "H": heads, "HAS_DWEIGHTS": dweights is not None, "HAS_DLSE": dlse is not None,
        "HAS_DUSAGE": dusage is not None, "NEED_BIAS": need_bias, **mask_arguments(query_mask, "gn"),
    }  # fmt: skip

    def call(config: Config) -> Tensor:
        blocks = cdiv(n, config.block_m)
        shares = weights.new_empty((groups, heads, blocks, slots) if need_bias else (0, 0, 0), dtype=torch.float32)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_S": config.block_n, "EVEN_S": slots % config.block_n == 0}
        others = {"blocks": blocks, "partial_ptr": shares if need_bias else None, "SINGLE": config.form == "single"}
        launch(memory_weights_bwd_kernel, groups * heads * blocks, config, values, **others, **sizes)
        return shares.sum(2) if need_bias else shares.flatten()

    options = (dweights is not None, dlse is not None, dusage is not None, need_bias, query_mask is not None)
    words = ("memory_weights_bwd", weights.dtype, dtype, power_of_two(slots), about(groups * heads * n), *options)
    return dscores, run(words, weights.device, configs.weights_backward_candidates(slots), call)


@on_its_device
def scores_backward(
    dscores: Tensor, x: Tensor, keys: Tensor, factor: Tensor, query_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dx [G, n, H, d], dkeys [G, H, S, d] and dfactor [G, H, n] from the gradient [G, H, n, S] of the scaled scores."""
    (groups, n, heads, dim), slots = x.shape, keys.shape[2]
    dx = torch.empty((groups, n, heads, dim), dtype=x.dtype, device=x.device)
    scaled = torch.empty((groups, heads, n, dim), dtype=x.dtype, device=x.device)
    if dscores.numel() == 0 or dim == 0:
        return dx.zero_(), torch.zeros(keys.shape, dtype=keys.dtype, device=x.device), factor.new_zeros(factor.shape)
    x, keys = near_rows(x, 1), near_rows(keys, 2)
    values: dict[str, Any] = {
        "dscores_ptr": dscores.contiguous(), "x_ptr": x, "keys_ptr": keys, "factor_ptr": factor.contiguous(),
        "dx_ptr": dx, "scaled_ptr": scaled, "n": n, **aligned("S", slots), "H": heads,
        **aligned("D", dim), "pairs_n": groups * heads * n,
        "GROUP": 8, "PRECISION": PRECISION, **aligned_strides("x", x, "gnh"), **aligned_strides("keys", keys, "ghs"),
        **mask_arguments(query_mask, "gn"),
    }  # fmt: skip

    def call(config: Config) -> Tensor:
        row_blocks, column_blocks = cdiv(n, config.block_m), cdiv(dim, config.block_n)
        step = configs.block_k(x.dtype)
        shares = torch.empty((column_blocks, groups, heads, n), dtype=torch.float32, device=x.device)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": step}
        even = {"EVEN_D": dim % config.block_n == 0, "EVEN_S": slots % step == 0}
        others = {"row_blocks": row_blocks, "column_blocks": column_blocks, "partial_ptr": shares, **sizes, **even}
        launch(memory_scores_bwd_kernel, groups * heads * row_blocks * column_blocks, config, values, **others)
        return shares.sum(0)

    words = ("memory_scores_bwd", x.dtype, dim, power_of_two(slots), about(groups * heads * n))
    dfactor = run(words, x.device, configs.scores_backward_candidates(x.dtype, dim), call)
    return dx, torch.matmul(dscores.transpose(2, 3), scaled), dfactor


@on_its_device
def weights_backward(
    dweights: Tensor | None,
    dlse: Tensor | None,
    dusage: Tensor | None,
    weights: Tensor,
    x: Tensor,
    keys: Tensor,
    factor: Tensor,
    query_mask: Tensor | None,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `weights_forward`: dx, dkeys, dfactor and dslot_bias ([G, H, S], or [0] where not needed)."""
    if weights.numel() == 0 or all(gradient is None for gradient in (dweights, dlse, dusage)):
        shape = (*weights.shape[:2], weights.shape[3]) if need_bias else (0,)
        dx, dkeys = (torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in (x, keys))
        return dx, dkeys, factor.new_zeros(factor.shape), factor.new_zeros(shape)
    dscores, dbias = _dscores(dweights, dlse, dusage, weights, query_mask, x.dtype, need_bias)
    return *scores_backward(dscores, x, keys, factor, query_mask), dbias
