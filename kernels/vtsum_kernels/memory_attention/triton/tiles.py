"""What the Triton kernels of both memory ops share: where their programs stand, tiles of matrices, blocks of scores.

Scores are kept times log2(e): the softmax is then a power of two. A group g and a head h have a bank of their own, and
programs of a pair (g, h) own blocks of rows or of slots; `gh` counts the pairs.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LOG2_E, add_product, product

#: Arguments that grow with the number of rows, whose values are none of a compiled kernel's business: else one is
#: compiled for each way in which 16 divides them or not. Strides and sizes of a model stay as they are.
COUNTS = ("mask_g", "n", "blocks", "row_blocks", "slot_blocks", "chunks", "chunk_rows", "pairs", "pairs_n")


@triton.jit
def multiple(count, ALIGN: tl.constexpr):
    """`count`, of which the compiler then knows that ALIGN divides it: rows that start so are read 16 bytes a time. It
    knows of 16 by itself, and what is said takes a register."""
    if ALIGN == 16 or ALIGN == 1:
        return count
    return count // ALIGN * ALIGN


@triton.jit
def multiples(a, b, c, ALIGN: tl.constexpr):
    """The same of three strides."""
    return multiple(a, ALIGN), multiple(b, ALIGN), multiple(c, ALIGN)


@triton.jit
def load_tile(ptr, stride, rows, columns, valid, width, EVEN: tl.constexpr):
    """[rows, columns] of a matrix, 0 in rows that are not valid and, unless EVEN, in columns beyond its width."""
    mask = valid[:, None]
    if not EVEN:
        mask = mask & (columns < width)[None, :]
    return tl.load(ptr + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_tile(ptr, stride, rows, columns, x, valid, width, EVEN: tl.constexpr):
    mask = valid[:, None]
    if not EVEN:
        mask = mask & (columns < width)[None, :]
    tl.store(ptr + rows[:, None] * stride + columns[None, :], x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def ahead(ptr, count, stride):
    """ptr + count * stride, in 64 bits."""
    return ptr + tl.cast(count, tl.int64) * stride


@triton.jit
def place(blocks, H):
    """This program's pair of group and head, both apart, and its block among the pair's."""
    program = tl.program_id(0)
    gh = program // blocks
    return gh.to(tl.int64), (gh // H).to(tl.int64), (gh % H).to(tl.int64), program % blocks


@triton.jit
def tile_of(program, row_blocks, column_blocks, GROUP: tl.constexpr):
    """Row and column block of a program: GROUP rows of blocks are walked column by column, to share what L2 holds."""
    span = GROUP * column_blocks
    first = program // span * GROUP
    height = tl.minimum(row_blocks - first, GROUP)
    return first + program % span % height, program % span // height


@triton.jit
def counts(mask_ptr, mask_at, mask_n, rows, n, HAS_MASK: tl.constexpr):
    """bool: the rows that exist and that the query mask leaves in."""
    exists = rows < n
    if HAS_MASK:
        return exists & (tl.load(mask_ptr + mask_at + rows.to(tl.int64) * mask_n, mask=exists, other=0) != 0)
    return exists


@triton.jit
def row_scale(factor_ptr, rows, valid):
    """The rows' factors: 0 where a row counts for nothing, whatever it holds."""
    return tl.load(factor_ptr + rows, mask=valid, other=0.0)


@triton.jit
def products(
    a_ptr, a_stride, a_valid, b_ptr, b_stride, b_valid, K,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """a b^T, [BLOCK_A, BLOCK_B] in float32, of two matrices with K columns; the pointers stand at their first rows."""
    row_a, row_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    total = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        a = load_tile(a_ptr, a_stride, row_a, k, a_valid, K, EVEN)
        b = load_tile(b_ptr, b_stride, row_b, k, b_valid, K, EVEN)
        total = add_product(total, a, tl.trans(b), PRECISION)
    return total


@triton.jit
def two_products(
    a_ptr, a_stride, a_valid, b_ptr, b_stride, B, K, BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr, TWO: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """a b^T as two tiles of BLOCK_B columns, for the first and, with TWO, the next rows of b, of which there are B."""
    row_a, row_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    first = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
    second = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        a = load_tile(a_ptr, a_stride, row_a, k, a_valid, K, EVEN)
        b = load_tile(b_ptr, b_stride, row_b, k, row_b < B, K, EVEN)
        first = add_product(first, a, tl.trans(b), PRECISION)
        if TWO:
            b = load_tile(b_ptr, b_stride, BLOCK_B + row_b, k, BLOCK_B + row_b < B, K, EVEN)
            second = add_product(second, a, tl.trans(b), PRECISION)
    return first, second


@triton.jit
def one_product(
    a, a_ptr, a_stride, a_valid, b, b_ptr, b_stride, b_valid, K: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """a b^T of tiles held whole or, without WHOLE, read again in steps: float32 leaves no registers for them."""
    if WHOLE:
        return product(a, tl.trans(b), PRECISION)
    return products(a_ptr, a_stride, a_valid, b_ptr, b_stride, b_valid, K, BLOCK_A, BLOCK_B, 32, K % 32 == 0, PRECISION)


@triton.jit
def biased(raw, scale, bias_ptr, slots, S, HAS_BIAS: tl.constexpr, EVEN_S: tl.constexpr):
    """Scores times log2(e) from products [rows, slots] and the rows' factors; -inf for slots that are left out."""
    scores = raw * (scale * LOG2_E)[:, None]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + slots, mask=slots < S, other=float("-inf")).to(tl.float32)
        return tl.where((bias == float("-inf"))[None, :], float("-inf"), scores + (bias * LOG2_E)[None, :])
    if EVEN_S:
        return scores
    return tl.where((slots < S)[None, :], scores, float("-inf"))
