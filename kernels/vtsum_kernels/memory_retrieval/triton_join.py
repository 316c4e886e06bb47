"""Products of memory retrieval with something after them in the same kernel.

join        y = x W^T + P V + bias + residual: two sources, one accumulator, and the frames are read but once.
scores' bwd u = ds K, and from it dx, the factor's gradient, and factor x for the keys' gradient.

Weights of float32 beside a bank of half precision are multiplied as two terms of the bank's dtype: their leading bits,
and what these leave. Near a uniform softmax all that depends on the frame is in what a single term would round away.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ..sliding_window_attention.triton_common import add_product
from .triton_scores import ahead, counts, load_tile, place, row_scale, store_tile


@triton.jit
def _tile_of(program, row_blocks, column_blocks, GROUP: tl.constexpr):
    """Row and column block of a program: GROUP rows of blocks are walked column by column, to share what L2 holds."""
    span = GROUP * column_blocks
    first = program // span * GROUP
    height = tl.minimum(row_blocks - first, GROUP)
    return first + program % span % height, program % span // height


@triton.jit
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
    EVEN_O: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row_block, column_block = _tile_of(tl.program_id(0), row_blocks, column_blocks, GROUP)
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


@triton.jit
def memory_scores_bwd_kernel(
    dscores_ptr,  # [G, H, n, S]
    x_ptr,  # [G, n, H, d]
    keys_ptr,  # [G, H, S, d]
    factor_ptr,  # [G, H, n] float32
    mask_ptr,  # [G, n] bytes
    dx_ptr,  # [G, n, H, d]
    scaled_ptr,  # [G, H, n, d]: factor x
    partial_ptr,  # [column blocks, G, H, n] float32: the shares of the factor's gradient
    x_g, x_n, x_h, keys_g, keys_h, keys_s, mask_g, mask_n,
    n, S, H, D, pairs_n, row_blocks, column_blocks,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    HAS_MASK: tl.constexpr, EVEN_D: tl.constexpr, EVEN_S: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    gh, g, h, tile = place(row_blocks * column_blocks, H)
    row_block, column_block = _tile_of(tile, row_blocks, column_blocks, GROUP)
    m0, d0 = row_block * BLOCK_M, column_block * BLOCK_N
    row, column = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    rows = m0 + row
    exists = rows < n
    valid = counts(mask_ptr, g * mask_g, mask_n, rows, n, HAS_MASK)
    dscores_ptr += (gh * n + m0) * S
    keys_ptr += g * keys_g + h * keys_h + d0
    u = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for s0 in range(0, S, BLOCK_K):
        step = tl.arange(0, BLOCK_K)
        dscores = load_tile(dscores_ptr, S, row, s0 + step, valid, S, EVEN_S)
        keys = load_tile(ahead(keys_ptr, s0, keys_s), keys_s, step, column, step < S - s0, D - d0, EVEN_D)
        u = add_product(u, dscores, keys, PRECISION)
    factor = row_scale(factor_ptr + gh * n, rows, valid)
    x_ptr = ahead(x_ptr + g * x_g + h * x_h + d0, m0, x_n)
    x = load_tile(x_ptr, x_n, row, column, valid, D - d0, EVEN_D).to(tl.float32)
    dx_ptr = ahead(dx_ptr + (g * n * H + h) * D + d0, m0, H * D)
    store_tile(dx_ptr, H * D, row, column, u * factor[:, None], exists, D - d0, EVEN_D)
    scaled_ptr += (gh * n + m0) * D + d0
    store_tile(scaled_ptr, D, row, column, x * factor[:, None], exists, D - d0, EVEN_D)
    tl.store(partial_ptr + tl.cast(column_block, tl.int64) * pairs_n + gh * n + rows, tl.sum(x * u, 1), mask=exists)
