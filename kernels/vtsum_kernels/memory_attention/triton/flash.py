"""Retrieval from many slots without storing weights: flash attention, forward, and the slots' usage.

Rows of a program walk over blocks of slots with a running maximum. Weights of half precision would lose what little
tells them apart where the softmax is nearly uniform. So each row's mean weight over the block, m, is taken off before
they are rounded, and m times the sum of the block's values is added in float32, for no more than the rescaling costs.

Without a bias the maximum is that of the products themselves: scaling a product and taking the maximum off is then one
instruction. A factor below 0 turns the row's signs for it, and one of 0 becomes the least normal number.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LN_2, LOG2_E, add_product, power
from .tiles import (
    COUNTS,
    ahead,
    biased,
    counts,
    load_tile,
    multiple,
    multiples,
    one_product,
    place,
    row_scale,
    store_tile,
)

#: The least factor of products: one of 0 would make NaN of the -inf of a slot that does not exist.
LEAST = tl.constexpr(2.0**-126)


@triton.jit
def usable(bias_ptr, s0, S, BLOCK_N: tl.constexpr, HAS_BIAS: tl.constexpr):
    """How many of a block's slots there are and are not left out, 1 at least."""
    if HAS_BIAS:
        slots = s0 + tl.arange(0, BLOCK_N)
        used = tl.load(bias_ptr + slots, mask=slots < S, other=float("-inf")) != float("-inf")
        return tl.maximum(tl.sum(used.to(tl.float32), 0), 1.0)
    return tl.minimum(S - s0, BLOCK_N).to(tl.float32)


@triton.jit(do_not_specialize=COUNTS)
def memory_flash_fwd_kernel(
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    values_ptr,  # [G, H, S, e]
    sums_ptr,  # [G, H, blocks of slots, e] float32: the sums of the blocks' values
    factor_ptr,  # [G, H, n] float32
    bias_ptr,  # [G, H, S]
    mask_ptr,  # [G, n] bytes
    out_ptr,  # [G, n, H, e]
    lse_ptr,  # [G, H, n] float32
    x_g, x_n, x_h, keys_g, keys_h, keys_s, values_g, values_h, values_s, bias_g, bias_h, mask_g, mask_n,
    n, S, H, blocks, slot_blocks,
    D: tl.constexpr, E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, EVEN_S: tl.constexpr,
    HALF: tl.constexpr, PRECISION: tl.constexpr,
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_VALUES: tl.constexpr, ALIGN_S: tl.constexpr,
):  # fmt: skip
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    values_g, values_h, values_s = multiples(values_g, values_h, values_s, ALIGN_VALUES)
    S = multiple(S, ALIGN_S)
    gh, g, h, block = place(blocks, H)
    m0 = block * BLOCK_M
    row, d, e = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    rows = m0 + row
    exists = rows < n
    valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
    scale = row_scale(factor_ptr + gh * n, rows, valid)
    x_ptr = ahead(x_ptr + g * x_g + h * x_h, m0, x_n)
    x = load_tile(x_ptr, x_n, row, d, valid, D, D == BLOCK_D)
    keys_ptr += g * keys_g + h * keys_h
    values_ptr += g * values_g + h * values_h
    if HAS_BIAS:
        bias_ptr += g * bias_g + h * bias_h
    if HALF:
        sums_ptr += gh * slot_blocks * E
    PRODUCTS: tl.constexpr = HALF and not HAS_BIAS  # the running maximum is of products, not of scores
    if PRODUCTS:
        x = (x.to(tl.float32) * tl.where(scale < 0.0, -1.0, 1.0)[:, None]).to(x.dtype)
        steep = tl.maximum(tl.abs(scale) * LOG2_E, LEAST)
    out = tl.zeros([BLOCK_M, BLOCK_E], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    step = tl.arange(0, BLOCK_N)
    for s0 in range(0, S, BLOCK_N):
        there = step < S - s0
        block_ptr = ahead(keys_ptr, s0, keys_s)
        keys = load_tile(block_ptr, keys_s, step, d, there, D, D == BLOCK_D)
        raw = one_product(x, x_ptr, x_n, valid, keys, block_ptr, keys_s, there, D, BLOCK_M, BLOCK_N, HALF, PRECISION)
        if PRODUCTS:
            if not EVEN_S:
                raw = tl.where(there[None, :], raw, float("-inf"))
            higher = tl.maximum(top, tl.max(raw, 1))
            weights = power(raw * steep[:, None] - (higher * steep)[:, None])
            shrink = power((top - higher) * steep)
        else:
            scores = biased(raw, scale, bias_ptr, s0 + step, S, HAS_BIAS, EVEN_S)
            higher = tl.maximum(top, tl.max(scores, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            weights = power(scores - base[:, None])
            shrink = power(top - base)
        sums = tl.sum(weights, 1)
        values = load_tile(ahead(values_ptr, s0, values_s), values_s, step, e, there, E, E == BLOCK_E)
        if HALF:
            mean = (sums / usable(bias_ptr, s0, S, BLOCK_N, HAS_BIAS)).to(values.dtype).to(tl.float32)
            of_block = tl.load(ahead(sums_ptr, s0 // BLOCK_N, E) + e, mask=e < E, other=0.0)
            out = out * shrink[:, None] + mean[:, None] * of_block[None, :]
            weights -= mean[:, None]
        else:
            out *= shrink[:, None]
        out = add_product(out, weights.to(values.dtype), values, PRECISION)
        total = total * shrink + sums
        top = higher
    if PRODUCTS:
        top *= steep
    sees = valid & (total != 0.0)
    safe = tl.where(sees, total, 1.0)
    out *= tl.where(sees, 1.0 / safe, 0.0)[:, None]
    out_ptr = ahead(out_ptr + (g * n * H + h) * E, m0, H * E)
    store_tile(out_ptr, H * E, row, e, out, exists, E, E == BLOCK_E)
    lse = tl.where(sees, (top + tl.log2(safe)) * LN_2, float("-inf"))
    tl.store(lse_ptr + gh * n + rows, lse, mask=exists)


@triton.jit(do_not_specialize=COUNTS)
def memory_usage_kernel(
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    factor_ptr,  # [G, H, n] float32
    bias_ptr,  # [G, H, S]
    mask_ptr,  # [G, n] bytes
    lse_ptr,  # [G, H, n] float32
    partial_ptr,  # [chunks, G, H, S] float32
    x_g, x_n, x_h, keys_g, keys_h, keys_s, bias_g, bias_h, mask_g, mask_n,
    n, S, H, slot_blocks, chunks, chunk_rows, pairs,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr, EVEN_S: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_S: tl.constexpr,
):  # fmt: skip
    """The weights' sums over the rows of a chunk, from their lse: BLOCK_N slots a program."""
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    S = multiple(S, ALIGN_S)
    gh, g, h, tile = place(slot_blocks * chunks, H)
    slot_block, chunk = tile % slot_blocks, tile // slot_blocks
    s0 = slot_block * BLOCK_N
    step, row, d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    slots = s0 + step
    x_ptr += g * x_g + h * x_h
    keys_ptr = ahead(keys_ptr + g * keys_g + h * keys_h, s0, keys_s)
    keys = load_tile(keys_ptr, keys_s, step, d, slots < S, D, D == BLOCK_D)
    if HAS_BIAS:
        bias_ptr += g * bias_g + h * bias_h
    usage = tl.zeros([BLOCK_N], tl.float32)
    for m0 in range(chunk * chunk_rows, tl.minimum((chunk + 1) * chunk_rows, n), BLOCK_M):
        rows = m0 + row
        valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
        scale = row_scale(factor_ptr + gh * n, rows, valid)
        block_ptr = ahead(x_ptr, m0, x_n)
        x = load_tile(block_ptr, x_n, row, d, valid, D, D == BLOCK_D)
        lse = tl.load(lse_ptr + gh * n + rows, mask=valid, other=float("-inf")) * LOG2_E
        lse = tl.where(lse == float("-inf"), float("inf"), lse)
        raw = one_product(
            x, block_ptr, x_n, valid, keys, keys_ptr, keys_s, slots < S, D, BLOCK_M, BLOCK_N, HALF, PRECISION
        )
        usage += tl.sum(power(biased(raw, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S) - lse[:, None]), 0)
    tl.store(partial_ptr + (chunk * pairs + gh) * S + slots, usage, mask=slots < S)
