"""The joined product, x W^T + P V + bias + residual: two sources, one accumulator, and the frames are read but once.

Weights of float32 beside a bank of half precision are multiplied as two terms of the bank's dtype: their leading bits,
and what these leave. Near a uniform softmax all that depends on the frame is in what a single term would round away.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...memory_attention.triton.tiles import ahead, load_tile, multiple, store_tile, tile_of
from ...triton_kit.arithmetic import add_product


@triton.jit(do_not_specialize=("N", "row_blocks"))
def memory_join_fwd_kernel(
    x_ptr,  # [N, C]
    weights_ptr,  # [N, R]
    weight_ptr,  # [O, C]
    bank_ptr,  # [R, O]
    bias_ptr,  # [O]
    residual_ptr,  # [N, O]
    y_ptr,  # [N, O]
    x_n, weights_n, weight_o, bank_r, residual_n,
    N, C, R, out_dim, row_blocks, column_blocks,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, SPLIT: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, EVEN_C: tl.constexpr, EVEN_R: tl.constexpr,
    EVEN_O: tl.constexpr, ALIGN_C: tl.constexpr, ALIGN_R: tl.constexpr, ALIGN_OUT_DIM: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    C, x_n, weight_o = multiple(C, ALIGN_C), multiple(x_n, ALIGN_C), multiple(weight_o, ALIGN_C)
    R, weights_n = multiple(R, ALIGN_R), multiple(weights_n, ALIGN_R)
    out_dim, bank_r = multiple(out_dim, ALIGN_OUT_DIM), multiple(bank_r, ALIGN_OUT_DIM)
    residual_n = multiple(residual_n, ALIGN_OUT_DIM)
    row_block, column_block = tile_of(tl.program_id(0), row_blocks, column_blocks, GROUP)
    m0, o0 = row_block * BLOCK_M, column_block * BLOCK_N
    row, column = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    rows, columns = row < N - m0, column < out_dim - o0
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    x_ptr = ahead(x_ptr, m0, x_n)
    weight_ptr = ahead(weight_ptr, o0, weight_o)
    for c0 in range(0, C, BLOCK_K):
        c = c0 + tl.arange(0, BLOCK_K)
        x = load_tile(x_ptr, x_n, row, c, rows, C, EVEN_C)
        weight = load_tile(weight_ptr, weight_o, column, c, columns, C, EVEN_C)
        total = add_product(total, x, tl.trans(weight), PRECISION)
    weights_ptr = ahead(weights_ptr, m0, weights_n)
    bank_ptr += o0
    for r0 in range(0, R, BLOCK_K):
        step = tl.arange(0, BLOCK_K)
        weights = load_tile(weights_ptr, weights_n, row, r0 + step, rows, R, EVEN_R)
        bank = load_tile(ahead(bank_ptr, r0, bank_r), bank_r, step, column, step < R - r0, out_dim - o0, EVEN_O)
        leading = weights.to(bank.dtype)
        total = add_product(total, leading, bank, PRECISION)
        if SPLIT:
            total = add_product(total, (weights - leading.to(tl.float32)).to(bank.dtype), bank, PRECISION)
    if HAS_BIAS:
        total += tl.load(bias_ptr + o0 + column, mask=columns, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        at = ahead(residual_ptr, m0, residual_n) + o0
        total += load_tile(at, residual_n, row, column, rows, out_dim - o0, EVEN_O).to(tl.float32)
    store_tile(ahead(y_ptr, m0, out_dim) + o0, out_dim, row, column, total, rows, out_dim - o0, EVEN_O)
