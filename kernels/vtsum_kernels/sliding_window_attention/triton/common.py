"""What the Triton kernels of sliding-window attention share: where rows lie, which keys they see, what dropout keeps.

Frames r, r + g, r + 2 g, ... (dilation g, phase r) form a sequence of their own with a plain window. The kernels work
in positions p within a phase: frame r + p g. A row at position p sees the positions low..high, one unbroken interval
for truncated and shifted windows and packed sequences alike; an empty interval is low > high.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from ...triton_kit.arithmetic import LOG2_E, power, tanh

#: Arguments whose values are none of a compiled kernel's business: else one is compiled for each way in which 16
#: divides them or not, a dozen for a dozen lengths. What loads rely on is ALIGN. H and group are a model's; dilation
#: and mask_t are nearly always 1, which saves divisions and widens the loads of a mask.
COUNTS = (
    *(f"{name}_{axis}" for name in ("q", "k", "v", "dout", "out", "dq", "dk", "dv") for axis in "bht"),
    *("mask_b", "B", "T", "total_rows", "blocks", "left", "right", "drop_below", "row_offset", "key_blocks"),
)


@triton.jit
def place(H, group, blocks, dilation, STEP: tl.constexpr, HEADS_FIRST: tl.constexpr):
    """The batch entry, head, key head, phase and first position of this program, and its number among its head's."""
    program, tiles = tl.program_id(0), blocks * dilation
    if HEADS_FIRST:  # [B, T, H, D] in memory: neighbours in the grid read neighbouring memory
        h, rest = program % H, program // H
        tile, b = rest % tiles, rest // tiles
    else:
        tile, rest = program % tiles, program // tiles
        h, b = rest % H, rest // H
    key_head = (h // group).to(tl.int64)  # divided in 32 bits: 64 take a subroutine
    b, h, number = b.to(tl.int64), h.to(tl.int64), b.to(tl.int64) * tiles + tile
    return b, h, key_head, tile % dilation, (tile // dilation) * STEP, number


@triton.jit
def positions(phase, T, dilation):
    """How many frames the phase has."""
    return (T - phase + dilation - 1) // dilation


@triton.jit
def offsets(
    p0, phase, dilation, stride_t, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, ALIGN: tl.constexpr, WIDE: tl.constexpr
):
    """Offsets [BLOCK, BLOCK_D] in elements of the rows from position p0; 32 bits within the tile where they do."""
    n = tl.arange(0, BLOCK)
    # One step from row to row may need 64 bits, too.
    rows = n.to(tl.int64) * dilation * stride_t * ALIGN if WIDE else n * (dilation * stride_t * ALIGN)
    base = (phase + p0 * dilation).to(tl.int64) * stride_t * ALIGN
    return base + rows[:, None] + tl.arange(0, BLOCK_D)[None, :]


@triton.jit
def inside(valid, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """bool [BLOCK, BLOCK_D]: the elements of the rows that are valid [BLOCK]."""
    if D == BLOCK_D:
        return tl.broadcast_to(valid[:, None], (valid.shape[0], BLOCK_D))
    return valid[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]


@triton.jit
def unpadded(mask_ptr, b, p, phase, dilation, mask_b, mask_t, exists, HAS_MASK: tl.constexpr):
    """Which of the positions exist and are not padding."""
    if HAS_MASK:
        frame = phase + p.to(tl.int64) * dilation
        return exists & (tl.load(mask_ptr + b * mask_b + frame * mask_t, mask=exists, other=0) != 0)
    return exists


@triton.jit
def sequence(bounds_ptr, p, phase, T, dilation, exists, PACKED: tl.constexpr):
    """First and last position of each position's sequence; without any, for positions that do not exist, 0 and -1."""
    if PACKED:
        frame = phase + p * dilation
        begin = tl.load(bounds_ptr + frame, mask=exists, other=0)
        end = tl.load(bounds_ptr + T + frame, mask=exists, other=0)
        empty = end <= begin
        first = tl.where(empty, 0, (begin - phase + dilation - 1) // dilation)
        last = tl.where(empty, -1, (tl.maximum(end - 1 - phase, 0)) // dilation)
        return first, last
    first = tl.zeros_like(p)
    return first, tl.where(exists, positions(phase, T, dilation) - 1, -1)


@triton.jit
def keys_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED: tl.constexpr, SHIFT: tl.constexpr):
    """First and last position that each row sees, padding aside."""
    first, last = sequence(bounds_ptr, p, phase, T, dilation, exists, PACKED)
    if SHIFT:
        low = tl.minimum(tl.maximum(p - left, first), tl.maximum(last - left - right, first))
        high = tl.minimum(low + left + right, last)
    else:
        low, high = tl.maximum(p - left, first), tl.minimum(p + right, last)
    sees = exists & (last >= first)
    # Nothing is beyond any position, and far from overflowing when a halo is added.
    return tl.where(sees, low, 1 << 30), tl.where(sees, high, -1)


@triton.jit
def rows_of(bounds_ptr, p, phase, T, left, right, dilation, exists, PACKED: tl.constexpr, SHIFT: tl.constexpr):
    """First and last position that sees each key: keys_of the other way round. `exists` leaves out padded keys."""
    first, last = sequence(bounds_ptr, p, phase, T, dilation, exists, PACKED)
    if SHIFT:
        reach = left + right
        low = tl.where(p - reach <= first, first, p - right)
        high = tl.where(p >= tl.maximum(last - reach, first), last, p + left)
    else:
        low, high = tl.maximum(p - right, first), tl.minimum(p + left, last)
    seen = exists & (last >= first)
    return tl.where(seen, low, 1 << 30), tl.where(seen, high, -1)


@triton.jit
def kept(seed, row, key, head, drop_below, keep_scale, row_offset):
    """What dropout multiplies the weight of a key (frames) in a row by: 0 or keep_scale. Word 0 of Philox4x32-10."""
    first = tl.cast(row_offset, tl.uint32, bitcast=True)  # the number of frame 0
    c0, c1 = row.to(tl.uint32) + first, key.to(tl.uint32) + first
    zero = c0 * 0
    word, _, _, _ = tl.philox(seed, c0, c1, zero + head.to(tl.uint32), zero)
    return tl.where(word >= tl.cast(drop_below, tl.uint32, bitcast=True), keep_scale, 0.0)


@triton.jit
def cap_scores(s, softcap, CAPPED: tl.constexpr):
    """Scores as they are before a bias is added; s and softcap count in powers of 2."""
    if CAPPED:
        s = softcap * tanh(s / softcap)
    return s


@triton.jit
def through_cap(ds, s, softcap, CAPPED: tl.constexpr):
    """The gradient of scores from that of capped ones, s."""
    if CAPPED:
        t = s / softcap
        ds = ds * (1.0 - t * t)
    return ds


@triton.jit
def join_sink(sinks_ptr, h, top, total, HAS_SINKS: tl.constexpr):
    """Lets a head's sink join rows' softmax, whose weights 2^(s - top) sum to total: what brings them to the new top,
    that, and the new total."""
    keep = tl.zeros_like(total) + 1.0
    if HAS_SINKS:
        sink = tl.load(sinks_ptr + h) * LOG2_E
        sees = total != 0.0
        highest = tl.where(sees, tl.maximum(top, sink), sink)
        base = tl.where(highest == float("-inf"), 0.0, highest)
        keep = tl.where(sees, power(top - base), 0.0)
        top, total = base, total * keep + power(sink - base)
    return keep, top, total


@triton.jit(do_not_specialize=("sequences", "steps"))
def sequence_bounds_kernel(
    cu_seqlens_ptr,  # [sequences + 1]
    bounds_ptr,  # [2, T]: first frame of each frame's sequence and one past its last
    T, sequences, steps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Bisects for the sequence of each frame. Frames outside of every sequence get the empty one, 0 to 0."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low, high = tl.zeros_like(t), tl.zeros_like(t) + (sequences - 1)
    for _ in range(steps):
        middle = (low + high + 1) // 2
        starts = tl.load(cu_seqlens_ptr + middle) <= t
        low, high = tl.where(starts, middle, low), tl.where(starts, high, tl.maximum(middle - 1, low))
    begin = tl.maximum(tl.load(cu_seqlens_ptr + low), 0)
    end = tl.minimum(tl.load(cu_seqlens_ptr + low + 1), T)
    belongs = (begin <= t) & (t < end)
    tl.store(bounds_ptr + t, tl.where(belongs, begin, 0), mask=t < T)
    tl.store(bounds_ptr + T + t, tl.where(belongs, end, 0), mask=t < T)


@triton.jit
def reach_of(p, low, high, before, after, SHIFT: tl.constexpr):
    """The first and the last offset from p [BLOCK_T] that any of low..high [BLOCK_T] has."""
    if SHIFT:
        return tl.min(low - p, 0), tl.max(high - p, 0)
    return -before, after
