"""The products after the softmax, backward: u = ds K, and from it dx, the factor's gradient, and factor x for dkeys."""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import add_product
from .tiles import COUNTS, ahead, counts, load_tile, multiple, multiples, place, row_scale, store_tile, tile_of


@triton.jit(do_not_specialize=COUNTS)
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
    ALIGN_X: tl.constexpr, ALIGN_KEYS: tl.constexpr, ALIGN_D: tl.constexpr, ALIGN_S: tl.constexpr,
):  # fmt: skip
    x_g, x_n, x_h = multiples(x_g, x_n, x_h, ALIGN_X)
    keys_g, keys_h, keys_s = multiples(keys_g, keys_h, keys_s, ALIGN_KEYS)
    S, D = multiple(S, ALIGN_S), multiple(D, ALIGN_D)
    gh, g, h, tile = place(row_blocks * column_blocks, H)
    row_block, column_block = tile_of(tile, row_blocks, column_blocks, GROUP)
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
