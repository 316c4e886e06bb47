"""The scores' gradient straight from that of the joined product: dP = dy V^T is never stored.

A program holds the dP of its rows for all slots of a head, in one tile or, with TWO, in two, whose weights then need
registers one after the other. It goes through the softmax backwards as memory_weights_bwd_kernel does:
ds = w (dP - sum w dP + dlse), with dP = dy V^T + dusage.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from .triton_scores import load_tile, place, store_tile, two_products


@triton.jit
def _slopes(
    raw, weights_ptr, dusage_ptr, row, slots, exists, S,
    HAS_DUSAGE: tl.constexpr, EVEN_S: tl.constexpr, EVICT: tl.constexpr,
):  # fmt: skip
    """The weights of a tile and their dP. Of a weight of 0 nothing is asked: a frame left out may be asked for NaN.

    EVICT differs between the two reads of the weights, or the compiler makes them one and holds on to it.
    """
    weights = load_tile(weights_ptr, S, row, slots, exists, S, EVEN_S, EVICT).to(tl.float32)
    if HAS_DUSAGE:
        raw += tl.load(dusage_ptr + slots, mask=slots < S, other=0.0, eviction_policy=EVICT)[None, :]
    return weights, tl.where(weights != 0.0, raw, 0.0)


@triton.jit
def _dscores(
    raw, shift, weights_ptr, dusage_ptr, dscores_ptr, partial_ptr, row, slots, exists, S,
    HAS_DUSAGE: tl.constexpr, NEED_BIAS: tl.constexpr, EVEN_S: tl.constexpr,
):  # fmt: skip
    weights, slopes = _slopes(raw, weights_ptr, dusage_ptr, row, slots, exists, S, HAS_DUSAGE, EVEN_S, "evict_first")
    dscores = tl.where(weights != 0.0, weights * (slopes + shift[:, None]), 0.0)
    store_tile(dscores_ptr, S, row, slots, dscores, exists, S, EVEN_S)
    if NEED_BIAS:
        tl.store(partial_ptr + slots, tl.sum(dscores, 0), mask=slots < S)


@triton.jit
def memory_join_bwd_kernel(
    dy_ptr,  # [N, O]
    bank_ptr,  # [H, S, O]
    weights_ptr,  # [H, N, S]
    dlse_ptr,  # [H, N] float32
    dusage_ptr,  # [H, S] float32
    dscores_ptr,  # [H, N, S]
    partial_ptr,  # [H, blocks, S] float32: each block's share of the slot bias' gradient
    dy_n, bank_h, bank_s, N, S, out_dim, H, blocks,
    BLOCK_M: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, TWO: tl.constexpr, HAS_DLSE: tl.constexpr,
    HAS_DUSAGE: tl.constexpr, NEED_BIAS: tl.constexpr, EVEN_O: tl.constexpr, EVEN_S: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    h, _, _, block = place(blocks, H)
    row, slots = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_S)
    rows = block * BLOCK_M + row
    exists = rows < N
    dy_ptr += (block * BLOCK_M).to(tl.int64) * dy_n
    first, second = two_products(
        dy_ptr,
        dy_n,
        exists,
        bank_ptr + h * bank_h,
        bank_s,
        S,
        out_dim,
        BLOCK_M,
        BLOCK_S,
        BLOCK_K,
        TWO,
        EVEN_O,
        PRECISION,
    )
    at = (h * N + block * BLOCK_M) * S
    weights_ptr += at
    dscores_ptr += at
    if HAS_DUSAGE:
        dusage_ptr += h * S
    if NEED_BIAS:
        partial_ptr += (h * blocks + block) * S
    weights, slopes = _slopes(first, weights_ptr, dusage_ptr, row, slots, exists, S, HAS_DUSAGE, EVEN_S, "evict_last")
    shift = -tl.sum(weights * slopes, 1)
    if TWO:
        weights, slopes = _slopes(
            second, weights_ptr, dusage_ptr, row, BLOCK_S + slots, exists, S, HAS_DUSAGE, EVEN_S, "evict_last"
        )
        shift -= tl.sum(weights * slopes, 1)
    if HAS_DLSE:
        shift += tl.load(dlse_ptr + h * N + rows, mask=exists, other=0.0)
    _dscores(
        first, shift, weights_ptr, dusage_ptr, dscores_ptr, partial_ptr, row, slots, exists, S,
        HAS_DUSAGE, NEED_BIAS, EVEN_S,
    )  # fmt: skip
    if TWO:
        _dscores(
            second, shift, weights_ptr, dusage_ptr, dscores_ptr, partial_ptr, row, BLOCK_S + slots, exists, S,
            HAS_DUSAGE, NEED_BIAS, EVEN_S,
        )  # fmt: skip
