"""Tiles on tensor cores, backward: one kernel gives rows their dq and share of dbias, another keys their dk and dv.

With SINGLE the rows' keys are one block, as in the forward kernel, and the rows kernel finds the softmax statistics
itself. Else it takes lse from the forward pass, and delta from its output. A product takes 0 times NaN for NaN: where a
gradient is not finite, its rows or keys are computed again as strips, which leave out what is not seen.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LOG2_E, add_product, power, product
from .common import COUNTS, cap_scores, join_sink, kept, keys_of, place, positions, rows_of, through_cap, unpadded
from .strip_bwd import keys_again, rows_again
from .tile import SLOW, load_rows, store_rows, whole_blocks


@triton.jit
def all_finite(x):
    """Whether all of x [M, N] is finite."""
    return tl.max(tl.where(tl.abs(x.to(tl.float32)) < float("inf"), 0, 1)) == 0


@triton.jit
def diagonals(ds, first, ENTRIES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Sums [ENTRIES] along diagonals of ds [BLOCK_M, BLOCK_N]: entry e is that of column - row = first + e."""
    column = first + tl.arange(0, ENTRIES)[None, :] + tl.arange(0, BLOCK_M)[:, None]
    within = (column >= 0) & (column < BLOCK_N)
    skewed = tl.gather(ds, tl.minimum(tl.maximum(column, 0), BLOCK_N - 1), 1)
    return tl.sum(tl.where(within, skewed, 0.0), 0)


@triton.jit
def _rows_step(
    q, dout, lse, delta, dq, p, low, high, j0,
    k_ptr, v_ptr, mask_ptr, bias_ptr, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale, centre,
    seed, head, drop_below, keep_scale, row_offset, softcap, sinks_ptr, h,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr,
    MASKED: tl.constexpr, SINGLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of keys. MASKED: some row may not see all of it. SINGLE: it is the only one; delta holds -dlse."""
    j = j0 + tl.arange(0, BLOCK_N)
    if MASKED:
        valid = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= 0) & (j < count), HAS_MASK)
    else:
        valid = j >= 0
    k = load_rows(k_ptr, j0, phase, dilation, k_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    capped = cap_scores(product(q, tl.trans(k), PRECISION) * (scale * LOG2_E), softcap, CAPPED)
    s = capped
    if MASKED:
        visible = (j[None, :] >= low[:, None]) & (j[None, :] <= high[:, None])
        if HAS_MASK:
            visible = visible & valid[None, :]
    if HAS_BIAS:
        s += tl.load(bias_ptr + (j[None, :] - p[:, None] + centre), mask=visible, other=0.0) * LOG2_E
    if MASKED:
        s = tl.where(visible, s, float("-inf"))
    v = load_rows(v_ptr, j0, phase, dilation, v_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    dp = product(dout, tl.trans(v), PRECISION)
    if DROPOUT:
        row, key = phase + p * dilation, phase + j * dilation
        dp *= kept(seed, row[:, None], key[None, :], head, drop_below, keep_scale, row_offset)
    if SINGLE:
        top = tl.max(s, 1)
        weight = power(s - tl.where(top == float("-inf"), 0.0, top)[:, None])
        keep, top, total = join_sink(sinks_ptr, h, top, tl.sum(weight, 1), HAS_SINKS)
        sees = total != 0.0
        safe = tl.where(sees, total, 1.0)
        lse = tl.where(sees, top + tl.log2(safe), float("inf"))
        weight *= (keep / safe)[:, None]
        delta = tl.where(sees, delta + tl.sum(weight * dp, 1), 0.0)
    else:
        weight = power(s - lse[:, None])
    ds = weight * (dp - delta[:, None])
    return add_product(dq, through_cap(ds, capped, softcap, CAPPED).to(k.dtype), k, PRECISION), ds, lse, delta


@triton.jit(do_not_specialize=COUNTS)
def sliding_window_attention_tile_bwd_rows_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr,
    dlse_ptr,  # [B, H, T] float32
    out_ptr, lse_ptr,  # of the forward pass: [B, H, T, D], [B, H, T] float32
    dq_ptr,  # [B, H, T, D]
    stats_ptr,  # [2, B, H, T] float32: lse (to base 2, inf where a row sees nothing) and delta
    partial_ptr,  # shares of dbias, [H, programs of a head, N] or, without SINGLE, [..., key blocks, 2 * BLOCK_N]
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, out_b, out_h, out_t, dq_b, dq_h, dq_t,
    mask_b, mask_t,
    B, H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, key_blocks,
    softcap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, STEP: tl.constexpr,
    SINGLE: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_DLSE: tl.constexpr, ALIGN: tl.constexpr,
    WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, h, key_head, phase, p0, tile = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    n = tl.arange(0, BLOCK_M)
    p = p0 + n
    count = positions(phase, T, dilation)
    exists = p < count
    if STEP < BLOCK_M:
        exists = exists & (n < STEP)
    low, high = keys_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED, SHIFT)
    q_here = q_ptr + (b * q_b + h * q_h) * ALIGN
    dout_here = dout_ptr + (b * dout_b + h * dout_h) * ALIGN
    k_here = k_ptr + (b * k_b + key_head * k_h) * ALIGN
    v_here = v_ptr + (b * v_b + key_head * v_h) * ALIGN
    q = load_rows(q_here, p0, phase, dilation, q_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    dout = load_rows(dout_here, p0, phase, dilation, dout_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    reach = left + right if SHIFT else left
    entries = (2 if SHIFT else 1) * (left + right) + 1
    head = b * H + h
    share = h * B * blocks * dilation + tile
    bias_here = bias_ptr + h * entries if HAS_BIAS else bias_ptr
    seed = tl.load(seed_ptr) if DROPOUT else 0
    statistic = head * T + phase + p.to(tl.int64) * dilation
    delta = tl.zeros([BLOCK_M], tl.float32)
    loud = tl.sum(tl.abs(dout.to(tl.float32)), 1) != 0.0  # NaN is
    if HAS_DLSE:
        delta -= tl.load(dlse_ptr + statistic, mask=exists, other=0.0)
        loud = loud | (delta != 0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    PLAIN: tl.constexpr = not (HAS_MASK or PACKED or SHIFT or HAS_BIAS or DROPOUT)
    if SINGLE:
        dq, ds, lse, delta = _rows_step(
            q, dout, delta, delta, dq, p, low, high, p0 - reach,
            k_here, v_here, mask_ptr, bias_here, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale, reach,
            seed, head, drop_below, keep_scale, row_offset, softcap, sinks_ptr, h,
            D, BLOCK_N, BLOCK_D, HAS_MASK, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, ALIGN, WIDE, True, True, PRECISION,
        )  # fmt: skip
        lse, delta = tl.where(loud, lse, float("inf")), tl.where(loud, delta, 0.0)
        if HAS_BIAS:
            sums = diagonals(tl.where((exists & loud)[:, None], ds, 0.0), 0, BLOCK_N, BLOCK_M, BLOCK_N)
    else:
        lse = tl.load(lse_ptr + statistic, mask=exists, other=float("-inf"))
        sees = (lse != float("-inf")) & loud
        lse = tl.where(sees, lse * LOG2_E, float("inf"))
        out_ptr += (b * out_b + h * out_h) * ALIGN
        out = load_rows(out_ptr, p0, phase, dilation, out_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
        delta = tl.where(sees, delta + tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1), 0.0)
        # Key blocks lie at the same distance from every program's rows where dbias is wanted: its diagonals do too.
        first, end = tl.min(low, 0), tl.max(high, 0) + 1
        begin = p0 - reach + tl.maximum(first - p0 + reach, 0) // BLOCK_N * BLOCK_N if HAS_BIAS else first
        full, full_end = whole_blocks(low, high, exists, begin, end, BLOCK_N)
        for part in tl.static_range(3 if PLAIN else 1):
            start = begin if part == 0 else (full if part == 1 else full_end)
            stop = (full if part == 0 else (full_end if part == 1 else end)) if PLAIN else end
            for j0 in range(start, stop, BLOCK_N):
                dq, ds, _, _ = _rows_step(
                    q, dout, lse, delta, dq, p, low, high, j0,
                    k_here, v_here, mask_ptr, bias_here, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale,
                    reach, seed, head, drop_below, keep_scale, row_offset, softcap, sinks_ptr, h,
                    D, BLOCK_N, BLOCK_D, HAS_MASK, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, ALIGN, WIDE, part != 1,
                    False, PRECISION,
                )  # fmt: skip
                if HAS_BIAS:
                    tl.static_assert(BLOCK_M == BLOCK_N)
                    mine = tl.where((exists & loud)[:, None], ds, 0.0)
                    sums = diagonals(mine, 1 - BLOCK_M, 2 * BLOCK_N, BLOCK_M, BLOCK_N)
                    slot = share * key_blocks + (j0 - p0 + reach) // BLOCK_N
                    tl.store(partial_ptr + slot * (2 * BLOCK_N) + tl.arange(0, 2 * BLOCK_N), sums)
    if all_finite(dq):
        if SINGLE and HAS_BIAS:
            e = tl.arange(0, BLOCK_N)
            tl.store(partial_ptr + share * entries + e, sums, mask=e < entries)
        tl.store(stats_ptr + statistic, lse, mask=exists)
        tl.store(stats_ptr + total_rows + statistic, delta, mask=exists)
        dq_ptr += (b * dq_b + h * dq_h) * ALIGN
        store_rows(dq_ptr, dq * scale, p0, phase, dilation, dq_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    else:
        tl.debug_barrier()  # shares of dbias may be stored
        rows_again(
            q_ptr, k_ptr, v_ptr, dout_ptr, dq_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr, dlse_ptr,
            stats_ptr, partial_ptr,
            q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
            B, H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset,
            key_blocks, softcap,
            STEP, D, SLOW, BLOCK_D, 1, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_DLSE,
            True, 0 if SINGLE else BLOCK_N, ALIGN, WIDE, HEADS_FIRST,
        )  # fmt: skip


@triton.jit
def _keys_step(
    dk, dv, k, v, p, low, high, i0,
    q_ptr, dout_ptr, bias_ptr, stats_ptr, q_t, dout_t, total_rows, head, T, phase, count, dilation, scale,
    seed, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    CAPPED: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of rows. MASKED: some key may not be seen by all of it."""
    i = i0 + tl.arange(0, BLOCK_M)
    there = (i >= 0) & (i < count)
    q = load_rows(q_ptr, i0, phase, dilation, q_t, there, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    statistic = head * T + phase + i.to(tl.int64) * dilation
    lse = tl.load(stats_ptr + statistic, mask=there, other=float("inf"))
    capped = cap_scores(product(k, tl.trans(q), PRECISION) * (scale * LOG2_E), softcap, CAPPED)
    s = capped
    if MASKED:
        visible = (i[None, :] >= low[:, None]) & (i[None, :] <= high[:, None])
        if HAS_BIAS:
            s += tl.load(bias_ptr + (p[:, None] - i[None, :]), mask=visible, other=0.0) * LOG2_E
        s = tl.where(visible, s, float("-inf"))
    weight = power(s - lse[None, :])
    dout = load_rows(dout_ptr, i0, phase, dilation, dout_t, there, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    dp = product(v, tl.trans(dout), PRECISION)
    delta = tl.load(stats_ptr + total_rows + statistic, mask=there, other=0.0)
    if DROPOUT:
        row, key = phase + i * dilation, phase + p * dilation
        keep = kept(seed, row[None, :], key[:, None], head, drop_below, keep_scale, row_offset)
        dv = add_product(dv, (weight * keep).to(dout.dtype), dout, PRECISION)
        ds = weight * (dp * keep - delta[None, :])
    else:
        dv = add_product(dv, weight.to(dout.dtype), dout, PRECISION)
        ds = weight * (dp - delta[None, :])
    dk = add_product(dk, through_cap(ds, capped, softcap, CAPPED).to(q.dtype), q, PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=COUNTS)
def sliding_window_attention_tile_bwd_keys_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, stats_ptr,
    dk_ptr, dv_ptr,  # [B, H, T, D]
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
    mask_b, mask_t,
    H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, STEP: tl.constexpr,
    SINGLE: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, CAPPED: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """STEP keys of a program, BLOCK_N at most, against blocks of BLOCK_M rows; with SINGLE one holds all that see
    them. Scores are kept as [keys, rows]."""
    b, h, key_head, phase, p0, _ = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    n = tl.arange(0, BLOCK_N)
    p = p0 + n
    count = positions(phase, T, dilation)
    exists = p < count
    if STEP < BLOCK_N:
        exists = exists & (n < STEP)
    alive = unpadded(mask_ptr, b, p, phase, dilation, mask_b, mask_t, exists, HAS_MASK)
    low, high = rows_of(bounds_ptr, p, phase, T, left, right, dilation, alive, PACKED, SHIFT)
    q_here = q_ptr + (b * q_b + h * q_h) * ALIGN
    dout_here = dout_ptr + (b * dout_b + h * dout_h) * ALIGN
    k_here = k_ptr + (b * k_b + key_head * k_h) * ALIGN
    v_here = v_ptr + (b * v_b + key_head * v_h) * ALIGN
    k = load_rows(k_here, p0, phase, dilation, k_t, alive, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    v = load_rows(v_here, p0, phase, dilation, v_t, alive, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    head = b * H + h
    bias_here = bias_ptr
    if HAS_BIAS:
        centre = left + right if SHIFT else left
        bias_here += h * ((2 if SHIFT else 1) * (left + right) + 1) + centre
    seed = tl.load(seed_ptr) if DROPOUT else 0
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if SINGLE:
        before = left + right if SHIFT else right
        dk, dv = _keys_step(
            dk, dv, k, v, p, low, high, p0 - before,
            q_here, dout_here, bias_here, stats_ptr, q_t, dout_t, total_rows, head, T, phase, count, dilation, scale,
            seed, drop_below, keep_scale, row_offset, softcap,
            D, BLOCK_M, BLOCK_D, HAS_BIAS, DROPOUT, CAPPED, ALIGN, WIDE, True, PRECISION,
        )  # fmt: skip
    else:
        begin, end = tl.min(low, 0), tl.max(high, 0) + 1
        PLAIN: tl.constexpr = not (HAS_MASK or PACKED or SHIFT or HAS_BIAS or DROPOUT)
        full, full_end = whole_blocks(low, high, exists, begin, end, BLOCK_M)
        for part in tl.static_range(3 if PLAIN else 1):
            start = begin if part == 0 else (full if part == 1 else full_end)
            stop = (full if part == 0 else (full_end if part == 1 else end)) if PLAIN else end
            for i0 in range(start, stop, BLOCK_M):
                dk, dv = _keys_step(
                    dk, dv, k, v, p, low, high, i0,
                    q_here, dout_here, bias_here, stats_ptr, q_t, dout_t, total_rows, head, T, phase, count, dilation,
                    scale, seed, drop_below, keep_scale, row_offset, softcap,
                    D, BLOCK_M, BLOCK_D, HAS_BIAS, DROPOUT, CAPPED, ALIGN, WIDE, part != 1, PRECISION,
                )  # fmt: skip
    if all_finite(dk) and all_finite(dv):
        dk_ptr += (b * dk_b + h * dk_h) * ALIGN
        dv_ptr += (b * dv_b + h * dv_h) * ALIGN
        store_rows(dk_ptr, dk * scale, p0, phase, dilation, dk_t, exists, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
        store_rows(dv_ptr, dv, p0, phase, dilation, dv_t, exists, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    else:
        keys_again(
            q_ptr, k_ptr, v_ptr, dout_ptr, dk_ptr, dv_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, None, None,
            stats_ptr,
            q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
            mask_b, mask_t,
            H, group, T, total_rows, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, softcap,
            STEP, D, SLOW, BLOCK_D, 1, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, False, CAPPED, False,
            True, ALIGN, WIDE, HEADS_FIRST,
        )  # fmt: skip
