"""Narrow windows on CUDA cores: a program keeps BLOCK_T rows in registers and walks over the window's offsets.

Keys and values are loaded shifted by each offset; all but the first load of a row come from the L1 cache. Products are
taken in float32 whatever the inputs are.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LN_2, LOG2_E, power
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
    unpadded,
)


@triton.jit
def load(base_ptr, p0, phase, dilation, stride_t, valid, D: tl.constexpr, BLOCK_T: tl.constexpr,
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
    q = load(q_ptr, p0, phase, dilation, q_t, exists, D, BLOCK_T, BLOCK_D, ALIGN, WIDE) * (scale * LOG2_E)
    first, last = reach_of(p, low, high, left, right, SHIFT)
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    out = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
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


@triton.jit(do_not_specialize=COUNTS)
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
