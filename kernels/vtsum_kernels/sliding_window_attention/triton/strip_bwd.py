"""Narrow windows on CUDA cores, backward: one kernel gives rows their lse, delta, dq and share of dbias, another lets
keys gather dk and dv from the rows that see them.

The tiles call the same, a few rows at a time, for what NaN or infinities keep them from multiplying.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LOG2_E, power
from .common import (
    COUNTS,
    cap_scores,
    inside,
    join_sink,
    kept,
    keys_of,
    offsets,
    place,
    positions,
    reach_of,
    rows_of,
    through_cap,
    unpadded,
)
from .strip import load


@triton.jit
def statistics(
    q, dout, k_ptr, v_ptr, bias_ptr, sinks_ptr, mask_ptr, dlse_ptr, k_t, v_t, mask_b, mask_t,
    b, h, head, phase, p0, low, high, first, last, exists, T, dilation,
    seed, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, HAS_MASK: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr,
    HAS_DLSE: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """lse, to base 2, and delta of the rows from p0; inf and 0 of those that see nothing or are without a gradient."""
    p = p0 + tl.arange(0, BLOCK_T)
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    delta = tl.zeros([BLOCK_T], tl.float32)
    for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
        j = p + o
        visible = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= low) & (j <= high), HAS_MASK)
        k = load(k_ptr, p0 + o, phase, dilation, k_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        v = load(v_ptr, p0 + o, phase, dilation, v_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        s = cap_scores(tl.sum(q * k, 1), softcap, CAPPED)
        if HAS_BIAS:
            s += tl.load(bias_ptr + o) * LOG2_E
        s = tl.where(visible, s, float("-inf"))
        higher = tl.where(s > top, s, top)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        shrink, weight = power(top - base), power(s - base)
        total = total * shrink + weight
        if DROPOUT:
            weight *= kept(seed, phase + p * dilation, phase + j * dilation, head, drop_below, keep_scale, row_offset)
        delta = delta * shrink + weight * tl.sum(dout * v, 1)
        top = higher
    keep, top, total = join_sink(sinks_ptr, h, top, total, HAS_SINKS)
    delta = delta * keep / tl.where(total != 0.0, total, 1.0)
    loud = tl.sum(tl.abs(dout), 1) != 0.0
    if HAS_DLSE:
        dlse = tl.load(dlse_ptr + head * T + phase + p.to(tl.int64) * dilation, mask=exists, other=0.0)
        loud = loud | (dlse != 0.0)
        delta -= dlse
    counts = loud & (total != 0.0)
    return tl.where(counts, top + tl.log2(total), float("inf")), tl.where(counts, delta, 0.0)


@triton.jit
def differentiate_rows(
    q_ptr, k_ptr, v_ptr, dout_ptr, dq_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr, dlse_ptr, stats_ptr,
    partial_ptr,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
    B, H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, key_blocks,
    softcap,
    STEP: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
    HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_DLSE: tl.constexpr, HAS_STATS: tl.constexpr,
    DIAGONALS: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    """dq, and with HAS_STATS lse and delta, of this program's STEP rows, BLOCK_T at a time, and their share of dbias.

    DIAGONALS: the share is laid out for key blocks of so many keys, of which there are `key_blocks`; 0: by entries.
    """
    b, h, key_head, phase, begin, tile = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    q_ptr += (b * q_b + h * q_h) * ALIGN
    dout_ptr += (b * dout_b + h * dout_h) * ALIGN
    dq_ptr += (b * dq_b + h * dq_h) * ALIGN
    head = b * H + h
    seed = tl.load(seed_ptr) if DROPOUT else 0
    end = tl.minimum(positions(phase, T, dilation), begin + STEP)
    if HAS_BIAS:
        entries = (2 if SHIFT else 1) * (left + right) + 1
        centre = left + right if SHIFT else left
        bias_ptr += h * entries + centre
        partial_ptr += (h * B * blocks * dilation + tile) * (key_blocks * 2 * DIAGONALS if DIAGONALS > 0 else entries)
        if DIAGONALS > 0:
            for n in range(key_blocks):
                zeros = tl.zeros([2 * DIAGONALS], tl.float32)
                tl.store(partial_ptr + n * (2 * DIAGONALS) + tl.arange(0, 2 * DIAGONALS), zeros)
            tl.debug_barrier()
    for r in range(0, STEP, BLOCK_T):
        p0 = begin + r
        p = p0 + tl.arange(0, BLOCK_T)
        exists = p < end
        low, high = keys_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED, SHIFT)
        q = load(q_ptr, p0, phase, dilation, q_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
        dout = load(dout_ptr, p0, phase, dilation, dout_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        first, last = reach_of(p, low, high, left, right, SHIFT)
        lse, delta = statistics(
            q, dout, k_ptr, v_ptr, bias_ptr, sinks_ptr, mask_ptr, dlse_ptr, k_t, v_t, mask_b, mask_t,
            b, h, head, phase, p0, low, high, first, last, exists, T, dilation,
            seed, drop_below, keep_scale, row_offset, softcap,
            D, BLOCK_T, BLOCK_D, UNROLL, HAS_MASK, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE, ALIGN, WIDE,
        )  # fmt: skip
        if HAS_STATS:
            statistic = head * T + phase + p.to(tl.int64) * dilation
            tl.store(stats_ptr + statistic, lse, mask=exists)
            tl.store(stats_ptr + total_rows + statistic, delta, mask=exists)
        dq = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
            j = p + o
            visible = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= low) & (j <= high), HAS_MASK)
            k = load(k_ptr, p0 + o, phase, dilation, k_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
            v = load(v_ptr, p0 + o, phase, dilation, v_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
            dp = tl.sum(dout * v, 1)
            if DROPOUT:
                dp *= kept(seed, phase + p * dilation, phase + j * dilation, head, drop_below, keep_scale, row_offset)
            capped = cap_scores(tl.sum(q * k, 1), softcap, CAPPED)
            s = capped
            if HAS_BIAS:
                s += tl.load(bias_ptr + o) * LOG2_E
            weight = power(tl.where(visible, s, float("-inf")) - lse)
            ds = weight * (dp - delta)
            dq += through_cap(ds, capped, softcap, CAPPED)[:, None] * k
            if HAS_BIAS:
                entry = o + centre
                if DIAGONALS > 0:
                    entry = entry // DIAGONALS * (2 * DIAGONALS) + entry % DIAGONALS + DIAGONALS - 1
                of_bias = tl.sum(tl.where(visible & (lse != float("inf")), ds, 0.0), 0)
                if STEP > BLOCK_T:  # by this program alone, in the order of its rows
                    tl.atomic_add(partial_ptr + entry, of_bias)
                else:
                    tl.store(partial_ptr + entry, of_bias)
        at = offsets(p0, phase, dilation, dq_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        tl.store(dq_ptr + at, (dq * scale).to(dq_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))


@triton.jit
def differentiate_keys(
    q_ptr, k_ptr, v_ptr, dout_ptr, dk_ptr, dv_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr, dlse_ptr,
    stats_ptr,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
    mask_b, mask_t,
    H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    STEP: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
    HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_DLSE: tl.constexpr, HAS_STATS: tl.constexpr,
    ALIGN: tl.constexpr, WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    """dk and dv of this program's STEP keys, BLOCK_T at a time. Without HAS_STATS they find their rows' anew."""
    b, h, key_head, phase, begin, _ = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    q_ptr += (b * q_b + h * q_h) * ALIGN
    dout_ptr += (b * dout_b + h * dout_h) * ALIGN
    dk_ptr += (b * dk_b + h * dk_h) * ALIGN
    dv_ptr += (b * dv_b + h * dv_h) * ALIGN
    head = b * H + h
    seed = tl.load(seed_ptr) if DROPOUT else 0
    end = tl.minimum(positions(phase, T, dilation), begin + STEP)
    if HAS_BIAS:
        bias_ptr += h * ((2 if SHIFT else 1) * (left + right) + 1) + (left + right if SHIFT else left)
    for r in range(0, STEP, BLOCK_T):
        p0 = begin + r
        p = p0 + tl.arange(0, BLOCK_T)
        exists = p < end
        alive = unpadded(mask_ptr, b, p, phase, dilation, mask_b, mask_t, exists, HAS_MASK)
        low, high = rows_of(bounds_ptr, p, phase, T, left, right, dilation, alive, PACKED, SHIFT)
        k = load(k_ptr, p0, phase, dilation, k_t, alive, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
        v = load(v_ptr, p0, phase, dilation, v_t, alive, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        first, last = reach_of(p, low, high, right, left, SHIFT)  # the window mirrored
        dk = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
            i = p + o
            sees = (i >= low) & (i <= high)
            if HAS_STATS:
                statistic = head * T + phase + i.to(tl.int64) * dilation
                lse = tl.load(stats_ptr + statistic, mask=sees, other=float("inf"))
                delta = tl.load(stats_ptr + total_rows + statistic, mask=sees, other=0.0)
            else:
                q = load(q_ptr, p0 + o, phase, dilation, q_t, sees, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
                dout = load(dout_ptr, p0 + o, phase, dilation, dout_t, sees, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
                near, far = keys_of(bounds_ptr, i, phase, T, left, right, dilation, sees, PACKED, SHIFT)
                nearest, farthest = reach_of(i, near, far, left, right, SHIFT)
                lse, delta = statistics(
                    q, dout, k_ptr, v_ptr, bias_ptr, sinks_ptr, mask_ptr, dlse_ptr, k_t, v_t, mask_b, mask_t,
                    b, h, head, phase, p0 + o, near, far, nearest, farthest, sees, T, dilation,
                    seed, drop_below, keep_scale, row_offset, softcap,
                    D, BLOCK_T, BLOCK_D, UNROLL, HAS_MASK, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE, ALIGN, WIDE,
                )  # fmt: skip
            counts = sees & (lse != float("inf"))  # NaN does
            q = load(q_ptr, p0 + o, phase, dilation, q_t, counts, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
            dout = load(dout_ptr, p0 + o, phase, dilation, dout_t, counts, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
            capped = cap_scores(tl.sum(q * k, 1), softcap, CAPPED)
            s = capped
            if HAS_BIAS:
                s += tl.load(bias_ptr - o) * LOG2_E
            weight = tl.where(counts, power(s - lse), 0.0)
            dp = tl.sum(dout * v, 1)
            spread = weight
            if DROPOUT:
                keep = kept(seed, phase + i * dilation, phase + p * dilation, head, drop_below, keep_scale, row_offset)
                dp *= keep
                spread = weight * keep
            dv += spread[:, None] * dout
            ds = through_cap(weight * (dp - delta), capped, softcap, CAPPED)
            dk += tl.where(counts, ds, 0.0)[:, None] * q
        at = offsets(p0, phase, dilation, dk_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        tl.store(dk_ptr + at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))
        at = offsets(p0, phase, dilation, dv_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))


#: As the tiles call them: not inlined, so that they take next to none of the registers that those need.
rows_again = triton.jit(differentiate_rows.fn, noinline=True)
keys_again = triton.jit(differentiate_keys.fn, noinline=True)


@triton.jit  # with counts that may be anything its form with a softcap spills
def sliding_window_attention_strip_bwd_rows_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr,
    dlse_ptr,  # [B, H, T] float32
    dq_ptr,  # [B, H, T, D]
    stats_ptr,  # [2, B, H, T] float32: what `statistics` gives
    partial_ptr,  # [H, programs of a head, N] float32: shares of dbias
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
    B, H, group, T, total_rows, blocks, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_DLSE: tl.constexpr, ALIGN: tl.constexpr,
    WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    differentiate_rows(
        q_ptr, k_ptr, v_ptr, dout_ptr, dq_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr, dlse_ptr, stats_ptr,
        partial_ptr,
        q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
        B, H, group, T, total_rows, blocks, LEFT, RIGHT, dilation, scale, drop_below, keep_scale, row_offset, 0,
        softcap,
        BLOCK_T, D, BLOCK_T, BLOCK_D, UNROLL, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE,
        True, 0, ALIGN, WIDE, HEADS_FIRST,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTS)
def sliding_window_attention_strip_bwd_keys_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, stats_ptr,
    dk_ptr, dv_ptr,  # [B, H, T, D]
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
    mask_b, mask_t,
    H, group, T, total_rows, blocks, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, CAPPED: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    differentiate_keys(
        q_ptr, k_ptr, v_ptr, dout_ptr, dk_ptr, dv_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, None, None, stats_ptr,
        q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
        mask_b, mask_t,
        H, group, T, total_rows, blocks, LEFT, RIGHT, dilation, scale, drop_below, keep_scale, row_offset, softcap,
        BLOCK_T, D, BLOCK_T, BLOCK_D, UNROLL, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, False, CAPPED, False,
        True, ALIGN, WIDE, HEADS_FIRST,
    )  # fmt: skip
