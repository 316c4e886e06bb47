"""Wide windows on the CPU: blocks of rows, each the products of a few matrices.

A block's scores are computed whole and dropped; backward computes them again. Memory is that of a block, 128 rows times
the keys that they see, whatever the options: the frames of one phase of one packed sequence are a sequence of their
own, so that dilation and packing are slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import library
from ..memory_attention.cpu import in_full_precision
from ..memory_attention.products import add_product, multiply
from ..tensors import acc_dtype, dense_rows
from .call import NAME
from .dropout import drop_below, frame_number, philox

#: Rows of a block, and the scores of all its heads: 4 MB in float32.
_ROWS = 128
_SCORES = 1 << 20


class _Options(NamedTuple):
    left: int
    right: int
    dilation: int
    shift: bool
    scale: float
    dropout_p: float
    row_offset: int
    softcap: float

    @property
    def before(self) -> int:
        """How far before its row a key may lie: at a sequence's end a shifted window reaches further."""
        return self.left + self.right if self.shift else self.left


class _Block(NamedTuple):
    """Rows and the keys that any of them sees, as slices of frames: row i sees the keys begin[i] to end[i] - 1."""

    rows: slice
    keys: slice
    begin: Tensor
    end: Tensor
    apart: int  # the first key's number less the first row's


class _Heads(NamedTuple):
    """Some key heads of a batch entry and the query heads that read them, in the accumulating dtype."""

    q: Tensor  # [K, G, T, D], times the scale
    k: Tensor  # [K, T, D], 0 in padded frames, as v
    v: Tensor
    dout: Tensor | None  # [K, G, T, D]
    mask: Tensor | None  # [T]
    bias: Tensor | None  # [K, G, N]
    sinks: Tensor | None  # [K, G]
    seed: Tensor | None
    number: Tensor  # [K, G], of the query heads in all batch entries
    finite: bool  # all of q, k, v and dout


def _frames(first: int, count: int, step: int) -> slice:
    return slice(first, first + (count - 1) * step + 1, step)


def _blocks(frames: int, cu_seqlens: Tensor | None, o: _Options) -> Iterator[_Block]:
    ends = [0, frames] if cu_seqlens is None else cu_seqlens.tolist()
    for first, last in itertools.pairwise(ends):
        for start in range(first, min(first + o.dilation, last)):
            length = len(range(start, last, o.dilation))
            # What of the window such a sequence can use.
            left, right = (length if side < 0 else min(side, length) for side in (o.left, o.right))
            width = min(o.left + o.right + 1, length)
            for row in range(0, length, _ROWS):
                rows = torch.arange(row, min(row + _ROWS, length))
                begin, end = (rows - left).clamp_min(0), (rows + right + 1).clamp_max(length)
                if o.shift:
                    begin = begin.clamp_max(length - width)
                    end = begin + width
                low, high = int(begin[0]), int(end[-1])
                own = _frames(start + row * o.dilation, len(rows), o.dilation)
                keys = _frames(start + low * o.dilation, high - low, o.dilation)
                yield _Block(own, keys, begin - low, end - low, low - row)


def _heads_at_once(group: int, keys: int) -> int:
    return max(_SCORES // (group * _ROWS * (keys + _ROWS)), 1)


def scores_of(q: Tensor, k: Tensor, keys: int) -> int:
    """Scores of a block whose rows see so many keys each."""
    group = q.shape[1] // max(k.shape[1], 1)
    return min(_heads_at_once(max(group, 1), keys), k.shape[1]) * group * _ROWS * (keys + _ROWS)


def _parts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    sinks: Tensor | None,
    o: _Options,
) -> Iterator[tuple[int, slice, slice, _Heads]]:
    """Batch entry, key heads and query heads of each part of the work, small enough for a block's scores."""
    (batch, heads, frames, _), shared, wide = q.shape, k.shape[1], acc_dtype(q.dtype)
    group = heads // shared
    longest = frames if cu_seqlens is None else int(cu_seqlens.diff().max())
    some = _heads_at_once(group, longest if o.left < 0 or o.right < 0 else min(o.left + o.right + 1, longest))
    for b, start in itertools.product(range(batch), range(0, shared, some)):
        keys = slice(start, min(start + some, shared))
        rows = slice(keys.start * group, keys.stop * group)

        def grouped(x: Tensor, rows: slice = rows) -> Tensor:
            return x[rows].unflatten(0, (-1, group))

        queries, kept_k, kept_v = grouped(q[b]).to(wide) * o.scale, k[b, keys].to(wide), v[b, keys].to(wide)
        if mask is not None:
            padded = ~mask[b, :, None]
            kept_k, kept_v = kept_k.masked_fill(padded, 0.0), kept_v.masked_fill(padded, 0.0)
        part = _Heads(
            queries,
            kept_k,
            kept_v,
            None if dout is None else grouped(dout[b]).to(wide),
            None if mask is None else mask[b],
            None if bias is None else grouped(bias),
            None if sinks is None else grouped(sinks),
            seed,
            grouped(torch.arange(b * heads, (b + 1) * heads)),
            # A sum that overflows says no more than that this must be looked at closely.
            all(bool(x.sum(dtype=wide).isfinite()) for x in (queries, kept_k, kept_v, dout) if x is not None),
        )
        yield b, keys, rows, part


def _visible(part: _Heads, at: _Block) -> Tensor | None:
    """bool [R, n] or [n], True where a row sees a key; None where every row sees all."""
    count = len(range(at.keys.start, at.keys.stop, at.keys.step))
    seen = None
    if int(at.begin[-1]) > 0 or int(at.end[0]) < count:
        columns = torch.arange(count)
        seen = (columns >= at.begin[:, None]) & (columns < at.end[:, None])
    if part.mask is not None and not part.mask[at.keys].all():
        seen = part.mask[at.keys] if seen is None else seen & part.mask[at.keys]
    return seen


def _edges(part: _Heads, at: _Block) -> tuple[slice, ...]:
    """The keys of a block that some row may not see."""
    if part.mask is not None:
        return (slice(None),)
    first, last = int(at.begin[-1]), int(at.end[0])
    return (slice(first), slice(last, None)) if first < last else (slice(None),)


def _flat(x: Tensor) -> Tensor:
    """[K, G, R, ...] as [K, G R, ...]."""
    return x.flatten(1, 2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty((*a.shape[:2], b.shape[2]))
    multiply(out[None], a[None], b[None])
    return out


def _spread(part: _Heads, at: _Block, before: int, shape: torch.Size) -> Tensor:
    """The bias of a block's pairs [K, G, R, n]: entry j - i + before, whatever where that does not exist."""
    rows, count = shape[2:]
    assert part.bias is not None
    first, last = at.apart + before - (rows - 1), at.apart + before + count  # of the entries that some pair has
    entries = part.bias.shape[2]
    line = part.bias[:, :, max(first, 0) : min(last, entries)]
    line = F.pad(line, (max(-first, 0), max(last - entries, 0)))
    return line.unfold(2, count, 1).flip(2)


def _diagonals(ds: Tensor) -> Tensor:
    """Sums of [K, G, R, n] over the pairs of the same j - i, from -(R - 1) on: [K, G, R + n - 1]."""
    rows, count = ds.shape[2:]
    skewed = F.pad(ds.flip(2), (0, rows)).flatten(2)[:, :, : rows * (rows + count - 1)]
    return skewed.unflatten(2, (rows, -1)).sum(2)


def _weights(
    part: _Heads, at: _Block, seen: Tensor | None, o: _Options, need_lse: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The softmax of a block [K, G, R, n], lse [K, G, R], and tanh of the scores over the cap, if there is one."""
    queries = part.q[:, :, at.rows]
    scores = _product(_flat(queries), part.k[:, at.keys].transpose(1, 2)).unflatten(1, queries.shape[1:3])
    capped = None
    if o.softcap > 0:
        capped = scores.div_(o.softcap).tanh_()
        scores = capped * o.softcap
    if part.bias is not None:
        scores += _spread(part, at, o.before, scores.shape)
    if seen is not None:
        for edge in _edges(part, at):
            scores[..., edge].masked_fill_(~seen[..., edge], -torch.inf)
    weights = torch.softmax(scores, -1)
    # The largest score is that of the largest weight, which is at least 1 / n.
    lse = scores.amax(-1) - weights.amax(-1).log() if need_lse or part.sinks is not None else None
    if seen is not None:
        if part.mask is not None:
            nothing = ~seen.any(-1)
            weights.masked_fill_(nothing[..., None], 0.0)
            lse = None if lse is None else lse.masked_fill_(nothing, -torch.inf)
        if not part.finite:
            weights.masked_fill_(~seen, 0.0)
    if part.sinks is not None:
        assert lse is not None
        of_keys, lse = lse, torch.logaddexp(lse, part.sinks[..., None])
        weights *= torch.exp(of_keys - lse).masked_fill_(of_keys == -torch.inf, 0.0)[..., None]
    return weights, lse, capped


def _kept(part: _Heads, at: _Block, o: _Options) -> Tensor | None:
    """What dropout multiplies a block's weights by."""
    if part.seed is None:
        return None
    rows, keys = (frame_number(torch.arange(x.start, x.stop, x.step), o.row_offset) for x in (at.rows, at.keys))
    words = philox(part.seed, (rows[:, None], keys, part.number[:, :, None, None]))
    return (words >= drop_below(o.dropout_p)).to(part.q.dtype) / (1.0 - o.dropout_p)


def _sums(weights: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
    """weights [K, m, n] times x [K, n, D]. With `seen`, bool [K, m, n], what a row does not see is not looked at."""
    if seen is None:
        return _product(weights, x)
    out = _product(weights, torch.where(x.isfinite(), x, 0.0))
    for value, is_there in ((torch.inf, x == torch.inf), (-torch.inf, x == -torch.inf), (torch.nan, x.isnan())):
        reached = _product(seen.to(x.dtype), is_there.to(x.dtype)) > 0
        out += torch.where(reached, value, 0.0)
    return out


def _add_sums(out: Tensor, weights: Tensor, x: Tensor, seen: Tensor | None) -> None:
    """out += what `_sums` gives."""
    if seen is not None:
        out += _sums(weights, x, seen)
    else:
        for n in range(out.shape[0]):
            add_product(out[n], weights[n], x[n])


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    need_lse: bool,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    o = _Options(left, right, dilation, shift, scale, dropout_p, row_offset, softcap)
    out = torch.empty_like(dense_rows(q))
    lse = q.new_empty(q.shape[:3] if need_lse else (0,), dtype=acc_dtype(q.dtype))
    if q.numel() == 0:
        return out, lse
    blocks = list(_blocks(q.shape[2], cu_seqlens, o))
    for b, _, rows, part in _parts(q, k, v, None, mask, cu_seqlens, bias, seed, sinks, o):
        for at in blocks:
            seen = _visible(part, at)
            weights, statistic, _ = _weights(part, at, seen, o, need_lse)
            kept = _kept(part, at, o)
            if kept is not None:
                weights *= kept
            looks = None if part.finite else _all_of(seen, weights)
            found = _sums(_flat(weights), part.v[:, at.keys], looks)
            out[b, rows, at.rows] = found.view(-1, weights.shape[2], v.shape[3]).to(q.dtype)
            if need_lse and statistic is not None:
                lse[b, rows, at.rows] = statistic.flatten(0, 1)
    return out, lse


def _all_of(seen: Tensor | None, like: Tensor) -> Tensor:
    """`seen` of every head and row [K, G R, n]."""
    seen = torch.ones((), dtype=torch.bool) if seen is None else seen
    return _flat(seen.expand(like.shape))


def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    bias: Tensor | None,
    seed: Tensor | None,
    dlse: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    left: int,
    right: int,
    dilation: int,
    shift: bool,
    scale: float,
    dropout_p: float,
    row_offset: int,
    sinks: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    o, wide = _Options(left, right, dilation, shift, scale, dropout_p, row_offset, softcap), acc_dtype(q.dtype)
    dq, dk, dv = (torch.empty_like(dense_rows(x)) for x in (q, k, v))
    dbias = q.new_zeros(0 if bias is None else bias.shape, dtype=wide)
    deltas = q.new_empty(0 if sinks is None else q.shape[:3], dtype=wide)
    if q.numel() == 0:
        return dq, dk, dv, dbias, deltas
    blocks = list(_blocks(q.shape[2], cu_seqlens, o))
    for b, heads, rows, part in _parts(q, k, v, dout, mask, cu_seqlens, bias, seed, sinks, o):
        assert part.dout is not None
        dkeys, dvalues = torch.zeros(part.k.shape, dtype=wide), torch.zeros(part.k.shape, dtype=wide)
        for at in blocks:
            seen = _visible(part, at)
            x, g = part.q[:, :, at.rows], part.dout[:, :, at.rows]
            down = None if dlse is None else dlse[b, rows, at.rows].unflatten(0, x.shape[:2])
            weights, _, capped = _weights(part, at, seen, o, False)
            shape, kept = weights.shape, _kept(part, at, o)
            ds = _product(_flat(g), part.v[:, at.keys].transpose(1, 2)).view(shape)
            if kept is not None:
                ds *= kept
            delta = torch.linalg.vecdot(weights, ds)
            looks = back = None
            if not (part.finite and delta.isfinite().all()):
                # A row without a gradient adds nothing to any other, and no row to what it does not see, whatever both
                # hold.
                quiet = (g == 0).all(-1) if down is None else (g == 0).all(-1) & (down == 0)
                x = x.masked_fill(quiet[..., None], 0.0)
                looks = _all_of(seen, weights) & ~_flat(quiet)[..., None]
                back, hidden = looks.transpose(1, 2), ~looks.view(shape)
                weights.masked_fill_(hidden, 0.0)
                delta = torch.linalg.vecdot(weights, ds.masked_fill_(hidden, 0.0))
            delta = delta if down is None else delta - down
            if sinks is not None:
                deltas[b, rows, at.rows] = delta.flatten(0, 1)
            ds -= delta[..., None]
            ds *= weights
            if looks is not None:
                ds.masked_fill_(hidden, 0.0)
            if bias is not None:
                sums, first = _diagonals(ds).flatten(0, 1), at.apart + o.before - (shape[2] - 1)
                low, high = max(first, 0), min(first + sums.shape[1], bias.shape[1])
                dbias[rows, low:high] += sums[:, low - first : high - first]
            if capped is not None:
                ds *= capped.square_().neg_().add_(1.0)
                if looks is not None:
                    ds.masked_fill_(hidden, 0.0)
            if kept is not None:
                weights *= kept
            found = _sums(_flat(ds), part.k[:, at.keys], looks) * o.scale
            dq[b, rows, at.rows] = found.view(-1, shape[2], q.shape[3]).to(q.dtype)
            _add_sums(dkeys[:, at.keys], _flat(ds).transpose(1, 2), _flat(x), back)
            _add_sums(dvalues[:, at.keys], _flat(weights).transpose(1, 2), _flat(g), back)
        dk[b, heads], dv[b, heads] = dkeys.to(k.dtype), dvalues.to(v.dtype)
    return dq, dk, dv, dbias, deltas


library.LIB.impl(f"{NAME}_blockwise_fwd", in_full_precision(_forward), "CPU")
library.LIB.impl(f"{NAME}_blockwise_bwd", in_full_precision(_backward), "CPU")
