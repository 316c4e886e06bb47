"""Narrow windows on CUDA cores: a program keeps BLOCK_T rows in registers and walks over the window's offsets.

Keys and values are loaded shifted by each offset; all but the first load of a row come from the L1 cache. Products are
taken in float32 whatever the inputs are. Backward, one kernel gives each row its lse, delta, dq and share of dbias, and
another lets each key gather dk and dv from the rows that see it.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LN_2, LOG2_E, power
from .common import (
    cap_scores,
    inside,
    join_sink,
    kept,
    keys_of,
    offsets,
    place,
    positions,
    rows_of,
    through_cap,
    unpadded,
)


@triton.jit
def _load(base_ptr, p0, phase, dilation, stride_t, valid, D: tl.constexpr, BLOCK_T: tl.constexpr,
          BLOCK_D: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    at = offsets(p0, phase, dilation, stride_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    return tl.load(base_ptr + at, mask=inside(valid, D, BLOCK_D), other=0.0).to(tl.float32)


@triton.jit
def attend(
    q_ptr, k_ptr, v_ptr, out_ptr, bias_ptr,  # of this head, the bias at its middle
    sinks_ptr, mask_ptr, bounds_ptr, lse_ptr, q_t, k_t, v_t, out_t, mask_b, mask_t,
    b, h, head, phase, p0, end, T, left, right, dilation, scale, seed, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr,
    CAPPED: tl.constexpr, HAS_LSE: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out and lse of BLOCK_T rows from p0, of those before `end`."""
    p = p0 + tl.arange(0, BLOCK_T)
    exists = p < end
    low, high = keys_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED, SHIFT)
    q = _load(q_ptr, p0, phase, dilation, q_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
    if SHIFT:
        first, last = tl.min(low - p, 0), tl.max(high - p, 0)
    else:
        first, last = -left, right
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    out = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
        j = p + o
        visible = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= low) & (j <= high), HAS_MASK)
        k = _load(k_ptr, p0 + o, phase, dilation, k_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        v = _load(v_ptr, p0 + o, phase, dilation, v_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
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
        out = out * shrink[:, None] + weight[:, None] * v
        top = higher
    keep, top, total = join_sink(sinks_ptr, h, top, total, HAS_SINKS)
    sees = total != 0.0
    safe = tl.where(sees, total, 1.0)
    out *= (keep / safe)[:, None]
    at = offsets(p0, phase, dilation, out_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))
    if HAS_LSE:
        lse = tl.where(sees, (top + tl.log2(safe)) * LN_2, float("-inf"))
        tl.store(lse_ptr + head * T + phase + p.to(tl.int64) * dilation, lse, mask=exists)


@triton.jit
def sliding_window_attention_strip_fwd_kernel(
    q_ptr,  # [B, H, T, D], as out
    k_ptr, v_ptr,  # [B, K, T, D]
    mask_ptr,  # [B, T] bytes
    bounds_ptr,  # [2, T]
    bias_ptr,  # [H, N] float32
    seed_ptr,  # [1] int64
    sinks_ptr,  # [H] float32
    out_ptr,
    lse_ptr,  # [B, H, T] float32
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, out_b, out_h, out_t, mask_b, mask_t,
    H, group, T, blocks, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_LSE: tl.constexpr, ALIGN: tl.constexpr,
    WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    b, h, key_head, phase, p0, _ = place(H, group, blocks, dilation, BLOCK_T, HEADS_FIRST)
    q_ptr += (b * q_b + h * q_h) * ALIGN
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    out_ptr += (b * out_b + h * out_h) * ALIGN
    if HAS_BIAS:
        bias_ptr += h * ((2 if SHIFT else 1) * (LEFT + RIGHT) + 1) + (LEFT + RIGHT if SHIFT else LEFT)
    seed = tl.load(seed_ptr) if DROPOUT else 0
    attend(
        q_ptr, k_ptr, v_ptr, out_ptr, bias_ptr, sinks_ptr, mask_ptr, bounds_ptr, lse_ptr,
        q_t, k_t, v_t, out_t, mask_b, mask_t,
        b, h, b * H + h, phase, p0, positions(phase, T, dilation), T, LEFT, RIGHT, dilation, scale,
        seed, drop_below, keep_scale, row_offset, softcap,
        D, BLOCK_T, BLOCK_D, UNROLL, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, HAS_LSE, ALIGN,
        WIDE,
    )  # fmt: skip


@triton.jit
def sliding_window_attention_strip_bwd_rows_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, mask_ptr, bounds_ptr, bias_ptr, seed_ptr, sinks_ptr,
    dlse_ptr,  # [B, H, T] float32
    dq_ptr,  # [B, H, T, D]
    stats_ptr,  # [2, B, H, T] float32: lse (to base 2, inf where a row sees nothing) and delta
    partial_ptr,  # [H, programs of a head, N] float32: shares of dbias
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, dout_b, dout_h, dout_t, dq_b, dq_h, dq_t, mask_b, mask_t,
    B, H, group, T, total_rows, blocks, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    UNROLL: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_DLSE: tl.constexpr, ALIGN: tl.constexpr,
    WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    b, h, key_head, phase, p0, tile = place(H, group, blocks, dilation, BLOCK_T, HEADS_FIRST)
    p = p0 + tl.arange(0, BLOCK_T)
    count = positions(phase, T, dilation)
    exists = p < count
    low, high = keys_of(bounds_ptr, p, phase, T, LEFT, RIGHT, dilation, exists, PACKED, SHIFT)
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    q_ptr += (b * q_b + h * q_h) * ALIGN
    dout_ptr += (b * dout_b + h * dout_h) * ALIGN
    q = _load(q_ptr, p0, phase, dilation, q_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
    dout = _load(dout_ptr, p0, phase, dilation, dout_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    entries = (2 if SHIFT else 1) * (LEFT + RIGHT) + 1
    centre = LEFT + RIGHT if SHIFT else LEFT
    if SHIFT:
        first, last = tl.min(low - p, 0), tl.max(high - p, 0)
    else:
        first, last = -LEFT, RIGHT
    if HAS_BIAS:
        partial_ptr += (h * B * blocks * dilation + tile) * entries + centre
        bias_ptr += h * entries + centre
    if DROPOUT:
        seed, head = tl.load(seed_ptr), b * H + h
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    delta = tl.zeros([BLOCK_T], tl.float32)
    for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
        j = p + o
        visible = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= low) & (j <= high), HAS_MASK)
        k = _load(k_ptr, p0 + o, phase, dilation, k_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        v = _load(v_ptr, p0 + o, phase, dilation, v_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
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
    sees = total != 0.0
    safe = tl.where(sees, total, 1.0)
    lse = tl.where(sees, top + tl.log2(safe), float("inf"))
    delta = tl.where(sees, delta * keep / safe, 0.0)
    statistic = (b * H + h) * T + phase + p.to(tl.int64) * dilation
    if HAS_DLSE:
        delta -= tl.where(sees, tl.load(dlse_ptr + statistic, mask=exists, other=0.0), 0.0)
    tl.store(stats_ptr + statistic, lse, mask=exists)
    tl.store(stats_ptr + total_rows + statistic, delta, mask=exists)
    dq = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
        j = p + o
        visible = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= low) & (j <= high), HAS_MASK)
        k = _load(k_ptr, p0 + o, phase, dilation, k_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        v = _load(v_ptr, p0 + o, phase, dilation, v_t, visible, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
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
            tl.store(partial_ptr + o, tl.sum(tl.where(visible, ds, 0.0), 0))
    at = offsets(p0, phase, dilation, dq_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    dq_ptr += (b * dq_b + h * dq_h) * ALIGN
    tl.store(dq_ptr + at, (dq * scale).to(dq_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))


@triton.jit
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
    b, h, key_head, phase, p0, _ = place(H, group, blocks, dilation, BLOCK_T, HEADS_FIRST)
    p = p0 + tl.arange(0, BLOCK_T)
    count = positions(phase, T, dilation)
    exists = p < count
    alive = unpadded(mask_ptr, b, p, phase, dilation, mask_b, mask_t, exists, HAS_MASK)
    low, high = rows_of(bounds_ptr, p, phase, T, LEFT, RIGHT, dilation, alive, PACKED, SHIFT)
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    q_ptr += (b * q_b + h * q_h) * ALIGN
    dout_ptr += (b * dout_b + h * dout_h) * ALIGN
    k = _load(k_ptr, p0, phase, dilation, k_t, alive, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
    v = _load(v_ptr, p0, phase, dilation, v_t, alive, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    if SHIFT:
        first, last = tl.min(low - p, 0), tl.max(high - p, 0)
    else:
        first, last = -RIGHT, LEFT  # the window mirrored
    if HAS_BIAS:
        centre = LEFT + RIGHT if SHIFT else LEFT
        bias_ptr += h * ((2 if SHIFT else 1) * (LEFT + RIGHT) + 1) + centre
    if DROPOUT:
        seed, head = tl.load(seed_ptr), b * H + h
    dk = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for o in tl.range(first, last + 1, loop_unroll_factor=UNROLL):
        i = p + o
        sees = (i >= low) & (i <= high)
        q = _load(q_ptr, p0 + o, phase, dilation, q_t, sees, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        dout = _load(dout_ptr, p0 + o, phase, dilation, dout_t, sees, D, BLOCK_T, BLOCK_D, ALIGN, WIDE)
        statistic = (b * H + h) * T + phase + i.to(tl.int64) * dilation
        lse = tl.load(stats_ptr + statistic, mask=sees, other=float("inf"))
        delta = tl.load(stats_ptr + total_rows + statistic, mask=sees, other=0.0)
        capped = cap_scores(tl.sum(q * k, 1), softcap, CAPPED)
        s = capped
        if HAS_BIAS:
            s += tl.load(bias_ptr - o) * LOG2_E
        weight = power(s - lse)
        dp = tl.sum(dout * v, 1)
        if DROPOUT:
            keep = kept(seed, phase + i * dilation, phase + p * dilation, head, drop_below, keep_scale, row_offset)
            dv += (weight * keep)[:, None] * dout
            ds = weight * (dp * keep - delta)
        else:
            dv += weight[:, None] * dout
            ds = weight * (dp - delta)
        dk += through_cap(ds, capped, softcap, CAPPED)[:, None] * q
    at = offsets(p0, phase, dilation, dk_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    dk_ptr += (b * dk_b + h * dk_h) * ALIGN
    tl.store(dk_ptr + at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))
    at = offsets(p0, phase, dilation, dv_t, BLOCK_T, BLOCK_D, ALIGN, WIDE)
    dv_ptr += (b * dv_b + h * dv_h) * ALIGN
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside(exists, D, BLOCK_D))
