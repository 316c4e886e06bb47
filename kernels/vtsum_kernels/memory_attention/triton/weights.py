"""Weights of all slots for blocks of rows, and their backward pass from the weights' own gradients.

A program holds all of its rows' scores at once, in one of TILES or in two, which are stored one after the other. Where
they are too many, TILES is 0 and it walks over blocks of slots twice: for the rows' softmax statistics, then for the
weights; the second products are cheaper than scores written, read and written again.
Usage is summed from the weights before they are rounded to the dtype they are stored in, a share for each program.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LN_2, power
from .tiles import (
    COUNTS,
    ahead,
    biased,
    counts,
    load_tile,
    multiple,
    multiples,
    place,
    products,
    row_scale,
    store_tile,
    two_products,
)


@triton.jit
def _store(weights_ptr, partial_ptr, weights, local, slots, exists, S, EVEN_S: tl.constexpr):
    """A tile of weights, and its share of usage."""
    store_tile(weights_ptr, S, local, slots, weights, exists, S, EVEN_S)
    tl.store(partial_ptr + slots, tl.sum(weights, 0), mask=slots < S)


@triton.jit(do_not_specialize=COUNTS)
def memory_weights_fwd_kernel(
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    factor_ptr,  # [G, H, n] float32
    bias_ptr,  # [G, H, S]
    mask_ptr,  # [G, n] bytes
    weights_ptr,  # [G, H, n, S]
    lse_ptr,  # [G, H, n] float32
    partial_ptr,  # [G, H, blocks, S] float32: each block's share of usage
    x_g, x_n, x_h, keys_g, keys_h, keys_s, bias_g, bias_h, mask_g, mask_n,
    n, S, H, blocks,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, TILES: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, EVEN_D: tl.constexpr, EVEN_S: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_S: tl.constexpr,
):  # fmt: skip
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    S = multiple(S, ALIGN_S)
    gh, g, h, block = place(blocks, H)
    rows, local = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_M)
    exists = rows < n
    valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
    scale = row_scale(factor_ptr + gh * n, rows, valid)
    x_ptr += g * x_g + h * x_h + (block * BLOCK_M).to(tl.int64) * x_n
    keys_ptr += g * keys_g + h * keys_h
    if HAS_BIAS:
        bias_ptr += g * bias_g + h * bias_h
    weights_ptr += (gh * n + block * BLOCK_M) * S
    partial_ptr += (gh * blocks + block) * S
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    if TILES > 0:
        slots = tl.arange(0, BLOCK_S)
        first, second = two_products(
            x_ptr, x_n, valid, keys_ptr, keys_s, S, D, BLOCK_M, BLOCK_S, BLOCK_K, TILES == 2, EVEN_D, PRECISION
        )
        first = biased(first, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S)
        top = tl.max(first, 1)
        if TILES == 2:
            second = biased(second, scale, bias_ptr, BLOCK_S + slots, S, HAS_BIAS, EVEN_S)
            top = tl.maximum(top, tl.max(second, 1))
        base = tl.where(top == float("-inf"), 0.0, top)
        first = power(first - base[:, None])
        total = tl.sum(first, 1)
        if TILES == 2:
            second = power(second - base[:, None])
            total += tl.sum(second, 1)
        sees = valid & (total != 0.0)
        share = tl.where(sees, 1.0 / tl.where(sees, total, 1.0), 0.0)
        _store(weights_ptr, partial_ptr, first * share[:, None], local, slots, exists, S, EVEN_S)
        if TILES == 2:
            _store(weights_ptr, partial_ptr, second * share[:, None], local, BLOCK_S + slots, exists, S, EVEN_S)
    else:
        for s0 in range(0, S, BLOCK_S):
            slots = s0 + tl.arange(0, BLOCK_S)
            raw = products(
                x_ptr, x_n, valid, ahead(keys_ptr, s0, keys_s), keys_s, slots < S,
                D, BLOCK_M, BLOCK_S, BLOCK_K, EVEN_D, PRECISION,
            )  # fmt: skip
            scores = biased(raw, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S)
            higher = tl.maximum(top, tl.max(scores, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            total = total * power(top - base) + tl.sum(power(scores - base[:, None]), 1)
            top = higher
        sees = valid & (total != 0.0)
        # To the power of two of a score less this is the weight itself: of +inf, 0.
        full = tl.where(sees, top + tl.log2(tl.where(sees, total, 1.0)), float("inf"))
        for s0 in range(0, S, BLOCK_S):
            slots = s0 + tl.arange(0, BLOCK_S)
            raw = products(
                x_ptr, x_n, valid, ahead(keys_ptr, s0, keys_s), keys_s, slots < S,
                D, BLOCK_M, BLOCK_S, BLOCK_K, EVEN_D, PRECISION,
            )  # fmt: skip
            weights = power(biased(raw, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S) - full[:, None])
            _store(weights_ptr, partial_ptr, weights, local, slots, exists, S, EVEN_S)
    lse = tl.where(sees, (top + tl.log2(tl.where(sees, total, 1.0))) * LN_2, float("-inf"))
    tl.store(lse_ptr + gh * n + rows, lse, mask=exists)


@triton.jit
def _load_dweights(
    weights_ptr, dweights_ptr, dusage_ptr, local, slots, valid, S,
    HAS_DWEIGHTS: tl.constexpr, HAS_DUSAGE: tl.constexpr, EVEN_S: tl.constexpr,
):  # fmt: skip
    """A block of weights and what is asked of each, dP: nothing of a weight of 0, whatever its gradient holds."""
    weights = load_tile(weights_ptr, S, local, slots, valid, S, EVEN_S).to(tl.float32)
    dweights = tl.zeros_like(weights)
    if HAS_DWEIGHTS:
        dweights += load_tile(dweights_ptr, S, local, slots, valid, S, EVEN_S).to(tl.float32)
    if HAS_DUSAGE:
        dweights += tl.load(dusage_ptr + slots, mask=slots < S, other=0.0)[None, :]
    return weights, tl.where(weights != 0.0, dweights, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def memory_weights_bwd_kernel(
    weights_ptr, dweights_ptr,  # [G, H, n, S]
    dlse_ptr,  # [G, H, n] float32
    dusage_ptr,  # [G, H, S] float32
    mask_ptr,  # [G, n] bytes
    dscores_ptr,  # [G, H, n, S]
    partial_ptr,  # [G, H, blocks, S] float32: each block's share of the bias' gradient
    mask_g, mask_n, n, S, H, blocks,
    BLOCK_M: tl.constexpr, BLOCK_S: tl.constexpr, SINGLE: tl.constexpr, HAS_DWEIGHTS: tl.constexpr,
    HAS_DLSE: tl.constexpr, HAS_DUSAGE: tl.constexpr, HAS_MASK: tl.constexpr, NEED_BIAS: tl.constexpr,
    EVEN_S: tl.constexpr,
    ALIGN_S: tl.constexpr,
):  # fmt: skip
    """ds = w (dP - sum w dP + dlse), with dP = dw + dusage. Reads each weight once where SINGLE, else twice."""
    S = multiple(S, ALIGN_S)
    gh, g, _, block = place(blocks, H)
    rows, local = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_M)
    exists = rows < n
    valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
    first = (gh * n + block * BLOCK_M) * S
    weights_ptr += first
    dscores_ptr += first
    if HAS_DWEIGHTS:
        dweights_ptr += first
    if HAS_DUSAGE:
        dusage_ptr += gh * S
    if NEED_BIAS:
        partial_ptr += (gh * blocks + block) * S
    shift = tl.zeros([BLOCK_M], tl.float32)
    if HAS_DLSE:
        shift += tl.load(dlse_ptr + gh * n + rows, mask=valid, other=0.0)
    if SINGLE:
        slots = tl.arange(0, BLOCK_S)
        weights, dweights = _load_dweights(
            weights_ptr, dweights_ptr, dusage_ptr, local, slots, valid, S, HAS_DWEIGHTS, HAS_DUSAGE, EVEN_S
        )
        shift -= tl.sum(weights * dweights, 1)
        dscores = tl.where(weights != 0.0, weights * (dweights + shift[:, None]), 0.0)
        store_tile(dscores_ptr, S, local, slots, dscores, exists, S, EVEN_S)
        if NEED_BIAS:
            tl.store(partial_ptr + slots, tl.sum(dscores, 0), mask=slots < S)
    else:
        for s0 in range(0, S, BLOCK_S):
            weights, dweights = _load_dweights(
                weights_ptr, dweights_ptr, dusage_ptr, local, s0 + tl.arange(0, BLOCK_S), valid, S,
                HAS_DWEIGHTS, HAS_DUSAGE, EVEN_S,
            )  # fmt: skip
            shift -= tl.sum(weights * dweights, 1)
        for s0 in range(0, S, BLOCK_S):
            slots = s0 + tl.arange(0, BLOCK_S)
            weights, dweights = _load_dweights(
                weights_ptr, dweights_ptr, dusage_ptr, local, slots, valid, S, HAS_DWEIGHTS, HAS_DUSAGE, EVEN_S
            )
            dscores = tl.where(weights != 0.0, weights * (dweights + shift[:, None]), 0.0)
            store_tile(dscores_ptr, S, local, slots, dscores, exists, S, EVEN_S)
            if NEED_BIAS:
                tl.store(partial_ptr + slots, tl.sum(dscores, 0), mask=slots < S)
