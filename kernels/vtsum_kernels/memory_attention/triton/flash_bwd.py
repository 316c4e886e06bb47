"""Retrieval from many slots, backward: a kernel that owns rows, then one that owns slots. Nothing is added twice.

The rows' kernel gives dx and the factor's gradient, and leaves for the slots' kernel what that wants of each row: its
factor and its lse to base 2, 0 and +inf where it reads nothing, and delta = sum P dP - dlse; of each block of rows the
sum of dout. Each slot's mean weight over a block of rows is taken off before weights
are rounded for dvalues, and comes back in float32 times that sum, as in the forward pass.
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


@triton.jit  # with counts that may be anything its float32 form spills
def memory_flash_bwd_rows_kernel(
    dout_ptr, out_ptr,  # [G, n, H, e]
    dlse_ptr,  # [G, H, n] float32
    dusage_ptr,  # [G, H, S] float32
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    values_ptr,  # [G, H, S, e]
    factor_ptr,  # [G, H, n] float32
    bias_ptr,  # [G, H, S]
    mask_ptr,  # [G, n] bytes
    lse_ptr,  # [G, H, n] float32
    dx_ptr,  # [G, n, H, d]
    dfactor_ptr,  # [G, H, n] float32
    steep_ptr, shift_ptr, delta_ptr,  # [G, H, n] float32, for the slots' kernel
    sums_ptr,  # [G, H, n over SUMMED, e] float32: sums of dout over SUMMED rows
    dout_g, dout_n, dout_h, out_g, out_n, out_h, x_g, x_n, x_h, keys_g, keys_h, keys_s, values_g, values_h, values_s,
    bias_g, bias_h, mask_g, mask_n, n, S, H, blocks,
    D: tl.constexpr, E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr, SUMMED: tl.constexpr, HAS_DLSE: tl.constexpr, HAS_DUSAGE: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr, EVEN_S: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_VALUES: tl.constexpr, ALIGN_DOUT: tl.constexpr,
    ALIGN_OUT: tl.constexpr, ALIGN_S: tl.constexpr,
):  # fmt: skip
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    values_g, values_h, values_s = multiples(values_g, values_h, values_s, ALIGN_VALUES)
    dout_g, dout_n, dout_h = multiples(dout_g, dout_n, dout_h, ALIGN_DOUT)
    out_g, out_n, out_h = multiples(out_g, out_n, out_h, ALIGN_OUT)
    S = multiple(S, ALIGN_S)
    gh, g, h, block = place(blocks, H)
    m0 = block * BLOCK_M
    row, d, e = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    step = tl.arange(0, BLOCK_N)
    rows = m0 + row
    exists = rows < n
    valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
    scale = row_scale(factor_ptr + gh * n, rows, valid)
    lse = tl.load(lse_ptr + gh * n + rows, mask=valid, other=float("-inf")) * LOG2_E
    lse = tl.where(lse == float("-inf"), float("inf"), lse)  # makes all weights 0
    reads = lse != float("inf")
    tl.store(steep_ptr + gh * n + rows, tl.where(reads, scale * LOG2_E, 0.0), mask=exists)
    tl.store(shift_ptr + gh * n + rows, lse, mask=exists)
    dout_ptr = ahead(dout_ptr + g * dout_g + h * dout_h, m0, dout_n)
    dout = load_tile(dout_ptr, dout_n, row, e, reads, E, E == BLOCK_E)
    if HALF:
        parts: tl.constexpr = BLOCK_M // SUMMED
        sums = tl.sum(tl.reshape(dout.to(tl.float32), [parts, SUMMED, BLOCK_E]), 1)
        part = tl.arange(0, parts)
        sums_ptr += (gh * tl.cdiv(n, SUMMED) + block * parts) * E
        tl.store(
            sums_ptr + part[:, None] * E + e[None, :], sums, mask=(m0 + part * SUMMED < n)[:, None] & (e < E)[None, :]
        )
    out_ptr = ahead(out_ptr + g * out_g + h * out_h, m0, out_n)
    out = load_tile(out_ptr, out_n, row, e, reads, E, E == BLOCK_E)
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    if HAS_DLSE:
        delta -= tl.load(dlse_ptr + gh * n + rows, mask=reads, other=0.0)
    x_ptr = ahead(x_ptr + g * x_g + h * x_h, m0, x_n)
    x = load_tile(x_ptr, x_n, row, d, valid, D, D == BLOCK_D)
    keys_ptr += g * keys_g + h * keys_h
    values_ptr += g * values_g + h * values_h
    if HAS_BIAS:
        bias_ptr += g * bias_g + h * bias_h
    if HAS_DUSAGE:
        dusage_ptr += gh * S
        for s0 in range(0, S, BLOCK_N):
            slots = s0 + step
            block_ptr = ahead(keys_ptr, s0, keys_s)
            keys = load_tile(block_ptr, keys_s, step, d, slots < S, D, D == BLOCK_D)
            raw = one_product(
                x, x_ptr, x_n, valid, keys, block_ptr, keys_s, slots < S, D, BLOCK_M, BLOCK_N, HALF, PRECISION
            )
            weights = power(biased(raw, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S) - lse[:, None])
            delta += tl.sum(weights * tl.load(dusage_ptr + slots, mask=slots < S, other=0.0)[None, :], 1)
    u = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for s0 in range(0, S, BLOCK_N):
        slots = s0 + step
        block_ptr, of_values_ptr = ahead(keys_ptr, s0, keys_s), ahead(values_ptr, s0, values_s)
        keys = load_tile(block_ptr, keys_s, step, d, slots < S, D, D == BLOCK_D)
        raw = one_product(
            x, x_ptr, x_n, valid, keys, block_ptr, keys_s, slots < S, D, BLOCK_M, BLOCK_N, HALF, PRECISION
        )
        weights = power(biased(raw, scale, bias_ptr, slots, S, HAS_BIAS, EVEN_S) - lse[:, None])
        values = load_tile(of_values_ptr, values_s, step, e, slots < S, E, E == BLOCK_E)
        slopes = one_product(
            dout, dout_ptr, dout_n, reads, values, of_values_ptr, values_s, slots < S,
            E, BLOCK_M, BLOCK_N, HALF, PRECISION,
        )  # fmt: skip
        slopes -= delta[:, None]
        if HAS_DUSAGE:
            slopes += tl.load(dusage_ptr + slots, mask=slots < S, other=0.0)[None, :]
        u = add_product(u, (weights * slopes).to(keys.dtype), keys, PRECISION)
    tl.store(delta_ptr + gh * n + rows, delta, mask=exists)
    tl.store(dfactor_ptr + gh * n + rows, tl.sum(x.to(tl.float32) * u, 1), mask=exists)
    dx_ptr = ahead(dx_ptr + (g * n * H + h) * D, m0, H * D)
    store_tile(dx_ptr, H * D, row, d, u * scale[:, None], exists, D, D == BLOCK_D)


@triton.jit(do_not_specialize=COUNTS)
def memory_flash_bwd_slots_kernel(
    dout_ptr,  # [G, n, H, e]
    dusage_ptr,  # [G, H, S] float32
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    values_ptr,  # [G, H, S, e]
    bias_ptr,  # [G, H, S]
    steep_ptr, shift_ptr, delta_ptr,  # [G, H, n] float32
    sums_ptr,  # [G, H, n over SUMMED, e] float32
    dkeys_ptr,  # [chunks, G, H, S, d]
    dvalues_ptr,  # [chunks, G, H, S, e]
    dbias_ptr,  # [chunks, G, H, S] float32
    dout_g, dout_n, dout_h, x_g, x_n, x_h, keys_g, keys_h, keys_s, values_g, values_h, values_s,
    bias_g, bias_h, n, S, H, slot_blocks, chunks, chunk_rows, pairs,
    D: tl.constexpr, E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr, SUMMED: tl.constexpr, HAS_DUSAGE: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr, HALF: tl.constexpr, PRECISION: tl.constexpr,
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_VALUES: tl.constexpr, ALIGN_DOUT: tl.constexpr,
    ALIGN_S: tl.constexpr,
):  # fmt: skip
    """BLOCK_N slots of a program against the rows of a chunk; scores are kept as [slots, rows]."""
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    values_g, values_h, values_s = multiples(values_g, values_h, values_s, ALIGN_VALUES)
    dout_g, dout_n, dout_h = multiples(dout_g, dout_n, dout_h, ALIGN_DOUT)
    S = multiple(S, ALIGN_S)
    gh, g, h, tile = place(slot_blocks * chunks, H)
    slot_block, chunk = tile % slot_blocks, tile // slot_blocks
    s0 = slot_block * BLOCK_N
    step, row = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_M)
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    slots = s0 + step
    usable = slots < S
    keys_ptr = ahead(keys_ptr + g * keys_g + h * keys_h, s0, keys_s)
    keys = load_tile(keys_ptr, keys_s, step, d, usable, D, D == BLOCK_D)
    values_ptr = ahead(values_ptr + g * values_g + h * values_h, s0, values_s)
    values = load_tile(values_ptr, values_s, step, e, usable, E, E == BLOCK_E)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + g * bias_g + h * bias_h + slots, mask=usable, other=float("-inf")).to(tl.float32)
        bias *= LOG2_E
    if HAS_DUSAGE:
        dusage = tl.load(dusage_ptr + gh * S + slots, mask=usable, other=0.0)
    x_ptr += g * x_g + h * x_h
    dout_ptr += g * dout_g + h * dout_h
    if HALF:
        sums_ptr += gh * tl.cdiv(n, SUMMED) * E
    dkeys = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dvalues = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    dbias = tl.zeros([BLOCK_N], tl.float32)
    for m0 in range(chunk * chunk_rows, tl.minimum((chunk + 1) * chunk_rows, n), BLOCK_M):
        rows = m0 + row
        exists = rows < n
        steep = tl.load(steep_ptr + gh * n + rows, mask=exists, other=0.0)
        shift = tl.load(shift_ptr + gh * n + rows, mask=exists, other=float("inf"))
        reads = shift != float("inf") if HAS_BIAS or HAS_MASK else exists
        block_ptr, of_dout_ptr = ahead(x_ptr, m0, x_n), ahead(dout_ptr, m0, dout_n)
        x = load_tile(block_ptr, x_n, row, d, reads, D, D == BLOCK_D)
        raw = one_product(
            keys, keys_ptr, keys_s, slots < S, x, block_ptr, x_n, reads, D, BLOCK_N, BLOCK_M, HALF, PRECISION
        )
        scores = raw * steep[None, :] - shift[None, :]
        if HAS_BIAS:
            scores += bias[:, None]
        weights = power(scores)
        dout = load_tile(of_dout_ptr, dout_n, row, e, reads, E, E == BLOCK_E)
        slopes = one_product(
            values, values_ptr, values_s, slots < S, dout, of_dout_ptr, dout_n, reads,
            E, BLOCK_N, BLOCK_M, HALF, PRECISION,
        )  # fmt: skip
        delta = tl.load(delta_ptr + gh * n + rows, mask=exists, other=0.0)
        if HAS_DUSAGE:
            slopes += dusage[:, None]
        dscores = weights * (slopes - delta[None, :])
        if HAS_BIAS:
            dbias += tl.sum(dscores, 1)
        dkeys = add_product(dkeys, (dscores * steep[None, :]).to(x.dtype), x, PRECISION)
        if HALF:
            if HAS_MASK:
                count = tl.maximum(tl.sum(reads.to(tl.float32), 0), 1.0)
            else:
                count = tl.minimum(n - m0, BLOCK_M).to(tl.float32)
            mean = (tl.sum(weights, 1) / count).to(dout.dtype).to(tl.float32)
            of_rows_ptr = ahead(sums_ptr, m0 // SUMMED, E) + e
            of_block = tl.load(of_rows_ptr, mask=e < E, other=0.0)
            for part in tl.static_range(1, BLOCK_M // SUMMED):
                there = (e < E) & (m0 + part * SUMMED < n)
                of_block += tl.load(of_rows_ptr + part * E, mask=there, other=0.0)
            dvalues += mean[:, None] * of_block[None, :]
            weights -= mean[:, None]
        dvalues = add_product(dvalues, weights.to(dout.dtype), dout, PRECISION)
    at = chunk * pairs + gh
    dkeys_ptr = ahead(dkeys_ptr + at * S * D, s0, D)
    store_tile(dkeys_ptr, D, step, d, dkeys * LN_2, slots < S, D, D == BLOCK_D)
    dvalues_ptr = ahead(dvalues_ptr + at * S * E, s0, E)
    store_tile(dvalues_ptr, E, step, e, dvalues, slots < S, E, E == BLOCK_E)
    if HAS_BIAS:
        tl.store(dbias_ptr + at * S + slots, dbias, mask=slots < S)
