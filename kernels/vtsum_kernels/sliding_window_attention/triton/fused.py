"""Narrow windows on tensor cores, backward in one kernel: each tensor is read once and each gradient written once.

A program owns STEP positions, of which it writes dq, dk and dv. Their rows, and the rows that see their keys, see keys
up to left + right away on either side: a block of BLOCK_N = STEP + 2 (left + right) keys, for which scores of all those
rows are taken, BLOCK_M rows at a time. So neighbours repeat a halo's worth of each other's products, and in return
nothing but the gradients is written, no statistics and no float32 scratch. Where something is not finite, they are
computed again as strips, as by the other tiles.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LOG2_E, add_product, power, product
from .common import COUNTS, cap_scores, join_sink, kept, keys_of, place, positions, through_cap, unpadded
from .strip_bwd import keys_again, rows_again
from .tile import SLOW, load_rows, store_rows
from .tile_bwd import all_finite, diagonals


@triton.jit(do_not_specialize=COUNTS)
def sliding_window_attention_fused_bwd_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr,
    dlse_ptr,  # [B, H, T] float32
    dq_ptr, dk_ptr, dv_ptr,  # [B, H, T, D]
    partial_ptr,  # [H, programs of a head, N] float32: shares of dbias
    stats_ptr,  # [2, B, H, T] float32, whose second half is delta, written for sinks alone
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, dk_b, dk_h, dk_t,
    dv_b, dv_h, dv_t, mask_b, mask_t,
    B, H, group, T, total_rows, blocks, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, STEP: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr,
    HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr,
    HAS_DLSE: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    HALO: tl.constexpr = LEFT + RIGHT
    BEFORE: tl.constexpr = HALO if SHIFT else RIGHT  # rows before an own key that may see it
    AFTER: tl.constexpr = HALO if SHIFT else LEFT
    CENTRE: tl.constexpr = HALO if SHIFT else LEFT
    ENTRIES: tl.constexpr = (2 if SHIFT else 1) * HALO + 1
    b, h, key_head, phase, p0, tile = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    count = positions(phase, T, dilation)
    j0 = p0 - HALO
    n = tl.arange(0, BLOCK_N)
    j = j0 + n
    valid = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= 0) & (j < count), HAS_MASK)
    q_here = q_ptr + (b * q_b + h * q_h) * ALIGN
    dout_here = dout_ptr + (b * dout_b + h * dout_h) * ALIGN
    dq_here = dq_ptr + (b * dq_b + h * dq_h) * ALIGN
    k_here = k_ptr + (b * k_b + key_head * k_h) * ALIGN
    v_here = v_ptr + (b * v_b + key_head * v_h) * ALIGN
    k = load_rows(k_here, j0, phase, dilation, k_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    v = load_rows(v_here, j0, phase, dilation, v_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    fine = all_finite(k) and all_finite(v)
    head = b * H + h
    if HAS_BIAS:
        bias_here = bias_ptr + h * ENTRIES + CENTRE
        sums = tl.zeros([BLOCK_N], tl.float32)
    seed = tl.load(seed_ptr) if DROPOUT else 0
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for r in range(0, STEP + BEFORE + AFTER, BLOCK_M):
        i0 = p0 - BEFORE + r
        i = i0 + tl.arange(0, BLOCK_M)
        there = (i >= 0) & (i < count)
        low, high = keys_of(bounds_ptr, i, phase, T, LEFT, RIGHT, dilation, there, PACKED, SHIFT)
        q = load_rows(q_here, i0, phase, dilation, q_t, there, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
        dout = load_rows(dout_here, i0, phase, dilation, dout_t, there, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
        capped = cap_scores(product(q, tl.trans(k), PRECISION) * (scale * LOG2_E), softcap, CAPPED)
        s = capped
        visible = (j[None, :] >= low[:, None]) & (j[None, :] <= high[:, None])
        if HAS_MASK:
            visible = visible & valid[None, :]
        if HAS_BIAS:
            s += tl.load(bias_here + (j[None, :] - i[:, None]), mask=visible, other=0.0) * LOG2_E
        s = tl.where(visible, s, float("-inf"))
        top = tl.max(s, 1)
        weight = power(s - tl.where(top == float("-inf"), 0.0, top)[:, None])
        keep, _, total = join_sink(sinks_ptr, h, top, tl.sum(weight, 1), HAS_SINKS)
        sees = total != 0.0
        weight = weight * tl.where(sees, keep / tl.where(sees, total, 1.0), 0.0)[:, None]
        dp = product(dout, tl.trans(v), PRECISION)
        spread = weight
        if DROPOUT:
            row, key = phase + i * dilation, phase + j * dilation
            dropped = kept(seed, row[:, None], key[None, :], head, drop_below, keep_scale, row_offset)
            dp *= dropped
            spread = weight * dropped
        dv = add_product(dv, tl.trans(spread.to(dout.dtype)), dout, PRECISION)
        delta = tl.sum(weight * dp, 1)
        if HAS_DLSE:
            delta -= tl.load(dlse_ptr + head * T + phase + i.to(tl.int64) * dilation, mask=there, other=0.0)
        ds = weight * (dp - delta[:, None])
        small = through_cap(ds, capped, softcap, CAPPED).to(k.dtype)
        dk = add_product(dk, tl.trans(small), q, PRECISION)
        own = there & (i >= p0) & (i < p0 + STEP)
        if HAS_SINKS:
            tl.store(stats_ptr + total_rows + head * T + phase + i.to(tl.int64) * dilation, delta, mask=own)
        dq = product(small, k, PRECISION) * scale
        store_rows(dq_here, dq, i0, phase, dilation, dq_t, own, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
        if HAS_BIAS:  # column n of row i is entry n + j0 - i + CENTRE
            sums += diagonals(tl.where(own[:, None], ds, 0.0), i0 - j0 - CENTRE, BLOCK_N, BLOCK_M, BLOCK_N)
    if fine and all_finite(dk) and all_finite(dv):
        if HAS_BIAS:
            share = h * B * blocks * dilation + tile
            tl.store(partial_ptr + share * ENTRIES + n, sums, mask=n < ENTRIES)
        mine = (j >= p0) & (j < p0 + STEP) & (j < count)
        dk_ptr += (b * dk_b + h * dk_h) * ALIGN
        dv_ptr += (b * dv_b + h * dv_h) * ALIGN
        store_rows(dk_ptr, dk * scale, j0, phase, dilation, dk_t, mine, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
        store_rows(dv_ptr, dv, j0, phase, dilation, dv_t, mine, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    else:
        tl.debug_barrier()  # dq is stored
        rows_again(
            q_ptr, k_ptr, v_ptr, dout_ptr, dq_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr, dlse_ptr,
            stats_ptr, partial_ptr,
            q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
            B, H, group, T, total_rows, blocks, LEFT, RIGHT, dilation, scale, drop_below, keep_scale, row_offset, 0,
            softcap, STEP, D, SLOW, BLOCK_D, 1, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE,
            HAS_SINKS, 0, ALIGN, WIDE, HEADS_FIRST,
        )  # fmt: skip
        keys_again(
            q_ptr, k_ptr, v_ptr, dout_ptr, dk_ptr, dv_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr,
            dlse_ptr, None,
            q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
            mask_b, mask_t,
            H, group, T, 0, blocks, LEFT, RIGHT, dilation, scale, drop_below, keep_scale, row_offset, softcap,
            STEP, D, SLOW, BLOCK_D, 1, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE,
            False, ALIGN, WIDE, HEADS_FIRST,
        )  # fmt: skip
