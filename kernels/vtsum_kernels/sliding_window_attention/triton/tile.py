"""Tiles on tensor cores, forward: BLOCK_M rows of a program against blocks of BLOCK_N keys, softmax in one pass.

With SINGLE the program's keys are one block: a program owns STEP = BLOCK_N - halo rows, a number that need be no power
of two, so that a window of 5 costs 64 rows for 60. Else it walks over key blocks with a running maximum; blocks that
every row sees whole take no mask. float32 is multiplied in three TF32 products, which lose next to nothing of it.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LN_2, LOG2_E, add_product, power, product
from .common import COUNTS, cap_scores, inside, join_sink, kept, keys_of, offsets, place, positions, unpadded
from .strip import attend

#: Rows at a time where a tile holds NaN or infinities: few, for few registers.
SLOW = tl.constexpr(16)


@triton.jit
def load_rows(base_ptr, p0, phase, dilation, stride_t, valid, D: tl.constexpr, BLOCK: tl.constexpr,
              BLOCK_D: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    at = offsets(p0, phase, dilation, stride_t, BLOCK, BLOCK_D, ALIGN, WIDE)
    return tl.load(base_ptr + at, mask=inside(valid, D, BLOCK_D), other=0.0)


@triton.jit
def store_rows(base_ptr, x, p0, phase, dilation, stride_t, valid, D: tl.constexpr, BLOCK: tl.constexpr,
               BLOCK_D: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    at = offsets(p0, phase, dilation, stride_t, BLOCK, BLOCK_D, ALIGN, WIDE)
    tl.store(base_ptr + at, x.to(base_ptr.dtype.element_ty), mask=inside(valid, D, BLOCK_D))


@triton.jit
def whole_blocks(low, high, exists, begin, end, BLOCK: tl.constexpr):
    """The blocks, counted from `begin`, that lie whole in every low..high: where they begin and end."""
    full = tl.max(tl.where(exists, low, 0), 0)
    full = tl.minimum(begin + (full - begin + BLOCK - 1) // BLOCK * BLOCK, end)
    full_end = tl.minimum(tl.min(tl.where(exists, high, 1 << 30), 0) + 1, end)
    return full, full + tl.maximum(full_end - full, 0) // BLOCK * BLOCK


@triton.jit
def _step(
    q, out, total, top, p, low, high, j0,
    k_ptr, v_ptr, mask_ptr, bias_ptr, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale, centre,
    seed, head, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, CAPPED: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr, MASKED: tl.constexpr,
    FIRST: tl.constexpr, BESIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of keys. MASKED: some row may not see all of it. FIRST: nothing was summed yet. BESIDE: values are
    loaded with the keys, so that one latency is waited for, and not after the softmax."""
    j = j0 + tl.arange(0, BLOCK_N)
    if MASKED:
        valid = unpadded(mask_ptr, b, j, phase, dilation, mask_b, mask_t, (j >= 0) & (j < count), HAS_MASK)
    else:
        valid = j >= 0
    k = load_rows(k_ptr, j0, phase, dilation, k_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    if BESIDE:
        v = load_rows(v_ptr, j0, phase, dilation, v_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    s = cap_scores(product(q, tl.trans(k), PRECISION) * (scale * LOG2_E), softcap, CAPPED)
    if MASKED:
        visible = (j[None, :] >= low[:, None]) & (j[None, :] <= high[:, None])
        if HAS_MASK:
            visible = visible & valid[None, :]
    if HAS_BIAS:
        entry = j[None, :] - p[:, None] + centre
        s += tl.load(bias_ptr + entry, mask=visible, other=0.0) * LOG2_E
    if MASKED:
        s = tl.where(visible, s, float("-inf"))
    higher = tl.max(s, 1) if FIRST else tl.maximum(top, tl.max(s, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher)
    weight = power(s - base[:, None])
    if not BESIDE:
        v = load_rows(v_ptr, j0, phase, dilation, v_t, valid, D, BLOCK_N, BLOCK_D, ALIGN, WIDE)
    sums = tl.sum(weight, 1)
    if DROPOUT:
        row, key = phase + p * dilation, phase + j * dilation
        weight *= kept(seed, row[:, None], key[None, :], head, drop_below, keep_scale, row_offset)
    if FIRST:
        return product(weight.to(v.dtype), v, PRECISION), sums, higher
    shrink = power(top - base)
    out = add_product(out * shrink[:, None], weight.to(v.dtype), v, PRECISION)
    return out, total * shrink + sums, higher


@triton.jit(do_not_specialize=COUNTS)
def sliding_window_attention_tile_fwd_kernel(
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
    H, group, T, blocks, left, right, dilation, scale, drop_below, keep_scale, row_offset, softcap,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, STEP: tl.constexpr,
    SINGLE: tl.constexpr, HAS_MASK: tl.constexpr, PACKED: tl.constexpr, SHIFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DROPOUT: tl.constexpr, HAS_SINKS: tl.constexpr, CAPPED: tl.constexpr, HAS_LSE: tl.constexpr, ALIGN: tl.constexpr,
    WIDE: tl.constexpr, HEADS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, h, key_head, phase, p0, _ = place(H, group, blocks, dilation, STEP, HEADS_FIRST)
    n = tl.arange(0, BLOCK_M)
    p = p0 + n
    count = positions(phase, T, dilation)
    exists = p < count
    if STEP < BLOCK_M:
        exists = exists & (n < STEP)
    low, high = keys_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED, SHIFT)
    q_ptr += (b * q_b + h * q_h) * ALIGN
    k_ptr += (b * k_b + key_head * k_h) * ALIGN
    v_ptr += (b * v_b + key_head * v_h) * ALIGN
    q = load_rows(q_ptr, p0, phase, dilation, q_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    reach = left + right if SHIFT else left
    if HAS_BIAS:
        bias_ptr += h * (((2 if SHIFT else 1) * (left + right)) + 1)
    head = b * H + h
    seed = tl.load(seed_ptr) if DROPOUT else 0
    PLAIN: tl.constexpr = not (HAS_MASK or PACKED or SHIFT or HAS_BIAS or DROPOUT)
    # Values are then held in shared memory. Tiles of few rows, or with options, gain no registers, and may lose some.
    BESIDE: tl.constexpr = BLOCK_M >= 32 and PLAIN
    out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    if SINGLE:
        out, total, top = _step(
            q, out, total, top, p, low, high, p0 - reach,
            k_ptr, v_ptr, mask_ptr, bias_ptr, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale, reach,
            seed, head, drop_below, keep_scale, row_offset, softcap,
            D, BLOCK_N, BLOCK_D, HAS_MASK, HAS_BIAS, DROPOUT, CAPPED, ALIGN, WIDE, True, True, BESIDE,
            PRECISION,
        )  # fmt: skip
    else:
        begin, end = tl.min(low, 0), tl.max(high, 0) + 1
        full, full_end = whole_blocks(low, high, exists, begin, end, BLOCK_N)
        for part in tl.static_range(3 if PLAIN else 1):  # before the blocks that all rows see whole; those; after
            start = begin if part == 0 else (full if part == 1 else full_end)
            stop = (full if part == 0 else (full_end if part == 1 else end)) if PLAIN else end
            for j0 in range(start, stop, BLOCK_N):
                out, total, top = _step(
                    q, out, total, top, p, low, high, j0,
                    k_ptr, v_ptr, mask_ptr, bias_ptr, k_t, v_t, mask_b, mask_t, b, phase, count, dilation, scale, reach,
                    seed, head, drop_below, keep_scale, row_offset, softcap,
                    D, BLOCK_N, BLOCK_D, HAS_MASK, HAS_BIAS, DROPOUT, CAPPED, ALIGN, WIDE, part != 1, False, False,
                    PRECISION,
                )  # fmt: skip
    keep, top, total = join_sink(sinks_ptr, h, top, total, HAS_SINKS)
    sees = total != 0.0
    safe = tl.where(sees, total, 1.0)
    out *= (keep / safe)[:, None]
    out_ptr += (b * out_b + h * out_h) * ALIGN
    if tl.max(tl.where(tl.abs(out) < float("inf"), 0, 1)) == 0:
        store_rows(out_ptr, out, p0, phase, dilation, out_t, exists, D, BLOCK_M, BLOCK_D, ALIGN, WIDE)
    else:  # a product takes 0 times NaN for NaN: here what a row does not see must be left out by hand
        for r in range(0, STEP, SLOW):
            attend(
                q_ptr, k_ptr, v_ptr, out_ptr, bias_ptr + reach if HAS_BIAS else bias_ptr,
                sinks_ptr, mask_ptr, bounds_ptr, lse_ptr, q_t, k_t, v_t, out_t, mask_b, mask_t,
                b, h, head, phase, p0 + r, tl.minimum(count, p0 + STEP), T, left, right, dilation, scale,
                seed, drop_below, keep_scale, row_offset, softcap,
                D, SLOW, BLOCK_D, 1, HAS_MASK, PACKED, SHIFT, HAS_BIAS, DROPOUT, HAS_SINKS, CAPPED, False, ALIGN, WIDE,
            )  # fmt: skip
    if HAS_LSE:
        lse = tl.where(sees, (top + tl.log2(safe)) * LN_2, float("-inf"))
        tl.store(lse_ptr + head * T + phase + p.to(tl.int64) * dilation, lse, mask=exists)
