"""Memory retrieval in Triton: weights of all slots, the joined product, and flash attention over many slots.

Shapes: n rows of each of G groups (1 where all share a bank), H heads, S slots. x is [G, n, H, d], a bank [G, H, S, d].
Each kernel writes an element in the one program that owns it, and sums go by way of shares added in order: no atomics,
the same bits in every run. Rows that a query mask leaves out are never read, and may hold anything; so may gradients of
weights that are 0. The values of slots that a bias of -inf leaves out must be finite.

Tile sizes are measured at the first call of a kind and remembered, as for sliding windows (VTSUM_KERNELS_AUTOTUNE=0:
those of `vtsum_kernels.tuned`, or else the first of triton_configs.py). Imported at the first call that needs it; only
the files triton*.py need triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import triton_configs as configs
from .triton_flash_launch import flash_backward, flash_forward
from .triton_join import memory_join_fwd_kernel, memory_scores_bwd_kernel
from .triton_join_bwd import memory_join_bwd_kernel
from .triton_launch import PRECISION, about, dense, launch, mask_arguments, on_its_device, run, strides
from .triton_weights import memory_weights_bwd_kernel, memory_weights_fwd_kernel

__all__ = [
    "flash_backward",
    "flash_forward",
    "join",
    "join_backward_scores",
    "scores_backward",
    "weights_backward",
    "weights_forward",
]


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
    x, keys = dense(x), dense(keys)
    bias = None if slot_bias is None else dense(slot_bias)
    step = configs.block_k(x.dtype)
    values: dict[str, Any] = {
        "x_ptr": x, "keys_ptr": keys, "factor_ptr": factor.contiguous(), "bias_ptr": bias, "weights_ptr": weights,
        "lse_ptr": lse, "n": n, "S": slots, "H": heads, "D": dim, "HAS_BIAS": bias is not None, "PRECISION": PRECISION,
        **strides("x", x, "gnh"), **strides("keys", keys, "ghs"), **strides("bias", bias, "gh"),
        **mask_arguments(query_mask),
    }  # fmt: skip

    def call(config: configs.Config) -> Tensor:
        blocks = triton.cdiv(n, config.block_m)
        shares = torch.empty((groups, heads, blocks, slots), **statistics)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_S": config.block_n, "BLOCK_K": min(step, configs.power_of_two(dim))}
        even = {"EVEN_D": dim % sizes["BLOCK_K"] == 0, "EVEN_S": slots % config.block_n == 0}
        tiles = 0 if config.form == "walk" else triton.cdiv(slots, config.block_n)
        others = {"blocks": blocks, "partial_ptr": shares, "TILES": tiles, **sizes, **even}
        launch(memory_weights_fwd_kernel, groups * heads * blocks, config, values, **others)
        return shares.sum(2)

    words = ("weights_fwd", x.dtype, dtype, dim, configs.power_of_two(slots), about(groups * heads * n))
    return weights, lse, run(words, x.device, configs.weights_forward_candidates(x.dtype, slots), call)


def _weights_slopes(
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
        "dweights_ptr": None if dweights is None else dweights.contiguous(),
        "dlse_ptr": None if dlse is None else dlse.contiguous(),
        "dusage_ptr": None if dusage is None else dusage.contiguous(),
        "n": n, "S": slots, "H": heads, "HAS_DWEIGHTS": dweights is not None, "HAS_DLSE": dlse is not None,
        "HAS_DUSAGE": dusage is not None, "NEED_BIAS": need_bias, **mask_arguments(query_mask),
    }  # fmt: skip

    def call(config: configs.Config) -> Tensor:
        blocks = triton.cdiv(n, config.block_m)
        shares = weights.new_empty((groups, heads, blocks, slots) if need_bias else (0, 0, 0), dtype=torch.float32)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_S": config.block_n, "EVEN_S": slots % config.block_n == 0}
        others = {"blocks": blocks, "partial_ptr": shares if need_bias else None, "SINGLE": config.form == "single"}
        launch(memory_weights_bwd_kernel, groups * heads * blocks, config, values, **others, **sizes)
        return shares.sum(2) if need_bias else shares.flatten()

    options = (dweights is not None, dlse is not None, dusage is not None, need_bias, query_mask is not None)
    words = ("weights_bwd", weights.dtype, dtype, configs.power_of_two(slots), about(groups * heads * n), *options)
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
        return dx.zero_(), torch.zeros(keys.shape, dtype=keys.dtype, device=x.device), torch.zeros_like(factor)
    x, keys = dense(x), dense(keys)
    values: dict[str, Any] = {
        "dscores_ptr": dscores.contiguous(), "x_ptr": x, "keys_ptr": keys, "factor_ptr": factor.contiguous(),
        "dx_ptr": dx, "scaled_ptr": scaled, "n": n, "S": slots, "H": heads, "D": dim, "pairs_n": groups * heads * n,
        "GROUP": 8, "PRECISION": PRECISION, **strides("x", x, "gnh"), **strides("keys", keys, "ghs"),
        **mask_arguments(query_mask),
    }  # fmt: skip

    def call(config: configs.Config) -> Tensor:
        row_blocks, column_blocks = triton.cdiv(n, config.block_m), triton.cdiv(dim, config.block_n)
        step = configs.block_k(x.dtype)
        shares = torch.empty((column_blocks, groups, heads, n), dtype=torch.float32, device=x.device)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": step}
        even = {"EVEN_D": dim % config.block_n == 0, "EVEN_S": slots % step == 0}
        others = {"row_blocks": row_blocks, "column_blocks": column_blocks, "partial_ptr": shares, **sizes, **even}
        launch(memory_scores_bwd_kernel, groups * heads * row_blocks * column_blocks, config, values, **others)
        return shares.sum(0)

    words = ("scores_bwd", x.dtype, dim, configs.power_of_two(slots), about(groups * heads * n))
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
        return dx, dkeys, torch.zeros_like(factor), factor.new_zeros(shape)
    dscores, dbias = _weights_slopes(dweights, dlse, dusage, weights, query_mask, x.dtype, need_bias)
    return *scores_backward(dscores, x, keys, factor, query_mask), dbias


@on_its_device
def join(
    x: Tensor, weights: Tensor, weight: Tensor, bank: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    """x W^T + P V + bias + residual, [N, O] of x's dtype.

    Args:
        x (Tensor): [N, C], of any C, 0 included. weights (Tensor): P [N, R], of x's dtype, or float32 beside a bank of
            half precision: it then enters as two terms of that dtype and keeps 16 bits or more.
        weight (Tensor): W [O, C]. bank (Tensor): V [R, O]. bias (Tensor | None): [O], residual (Tensor | None): [N, O].
    """
    (n, width), (bank_rows, out_dim) = x.shape, bank.shape
    y = torch.empty((n, out_dim), dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    split = weights.dtype == torch.float32 and bank.dtype != torch.float32
    x, weights, weight, bank = (dense(tensor) for tensor in (x, weights, weight, bank))
    residual = None if residual is None else dense(residual)
    values: dict[str, Any] = {
        "x_ptr": x, "weights_ptr": weights, "weight_ptr": weight, "bank_ptr": bank, "residual_ptr": residual,
        "bias_ptr": None if bias is None else bias.contiguous(), "y_ptr": y, "N": n, "C": width, "R": bank_rows,
        "out_dim": out_dim, "GROUP": 8, "SPLIT": split, "HAS_BIAS": bias is not None,
        "HAS_RESIDUAL": residual is not None, "PRECISION": PRECISION, **strides("x", x, "n"),
        **strides("weights", weights, "n"), **strides("weight", weight, "o"), **strides("bank", bank, "r"),
        **strides("residual", residual, "n"),
    }  # fmt: skip

    def call(config: configs.Config) -> None:
        row_blocks, column_blocks = triton.cdiv(n, config.block_m), triton.cdiv(out_dim, config.block_n)
        step = configs.block_k(x.dtype)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": step}
        even = {"EVEN_C": width % step == 0, "EVEN_R": bank_rows % step == 0, "EVEN_O": out_dim % config.block_n == 0}
        others = {"row_blocks": row_blocks, "column_blocks": column_blocks, **sizes, **even}
        launch(memory_join_fwd_kernel, row_blocks * column_blocks, config, values, **others)

    words = ("join", x.dtype, split, width, out_dim, configs.power_of_two(bank_rows), about(n))
    run(words, x.device, configs.join_candidates(x.dtype, out_dim, split), call)
    return y


@on_its_device
def join_backward_scores(
    dy: Tensor, bank: Tensor, weights: Tensor, dlse: Tensor | None, dusage: Tensor | None, need_bias: bool = False
) -> tuple[Tensor, Tensor]:
    """ds = w (dP - sum w dP + dlse) with dP = dy V^T + dusage, and the slot bias' gradient: what `weights_backward`
    makes of dweights = dy V^T, without storing that.

    Args:
        dy (Tensor): [N, O]. bank (Tensor): [H, S, O]; S at most 512.
        weights (Tensor): [1, H, N, S]. dlse (Tensor | None): float32 [1, H, N]. dusage (Tensor | None): [1, H, S].
    Returns:
        tuple[Tensor, Tensor]: ds [1, H, N, S] of dy's dtype, to be handed to `scores_backward`; dslot_bias [1, H, S]
            or [0].
    """
    (n, out_dim), (heads, slots, _) = dy.shape, bank.shape
    if slots > configs.MAX_SLOTS_JOIN_BACKWARD:
        limit = configs.MAX_SLOTS_JOIN_BACKWARD
        raise NotImplementedError(f"join_backward_scores: bank must be of at most {limit} slots a head, got {slots}")
    dscores = torch.empty(weights.shape, dtype=dy.dtype, device=dy.device)
    if dscores.numel() == 0:
        return dscores, torch.zeros((1, heads, slots) if need_bias else (0,), dtype=torch.float32, device=dy.device)
    dy, bank = dense(dy), dense(bank)
    values: dict[str, Any] = {
        "dy_ptr": dy, "bank_ptr": bank, "weights_ptr": weights.contiguous(), "dscores_ptr": dscores,
        "dlse_ptr": None if dlse is None else dlse.contiguous(),
        "dusage_ptr": None if dusage is None else dusage.contiguous(),
        "N": n, "S": slots, "out_dim": out_dim, "H": heads,
        "HAS_DLSE": dlse is not None, "HAS_DUSAGE": dusage is not None, "NEED_BIAS": need_bias,
        "PRECISION": PRECISION, **strides("dy", dy, "n"), **strides("bank", bank, "hs"),
    }  # fmt: skip

    def call(config: configs.Config) -> Tensor:
        blocks = triton.cdiv(n, config.block_m)
        step = min(configs.block_k(dy.dtype), configs.power_of_two(out_dim))
        shares = dy.new_empty((1, heads, blocks, slots) if need_bias else (0, 0, 0), dtype=torch.float32)
        sizes = {"BLOCK_M": config.block_m, "BLOCK_S": config.block_n, "BLOCK_K": step}
        even = {"EVEN_O": out_dim % step == 0, "EVEN_S": slots % config.block_n == 0, "TWO": config.block_n < slots}
        others = {"blocks": blocks, "partial_ptr": shares if need_bias else None, **sizes, **even}
        launch(memory_join_bwd_kernel, heads * blocks, config, values, **others)
        return shares.sum(2) if need_bias else shares.flatten()

    options = (dlse is not None, dusage is not None, need_bias)
    words = ("join_bwd", dy.dtype, weights.dtype, out_dim, configs.power_of_two(slots), about(heads * n), *options)
    return dscores, run(words, dy.device, configs.join_backward_candidates(dy.dtype, slots), call)
