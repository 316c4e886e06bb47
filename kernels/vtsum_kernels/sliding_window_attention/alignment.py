"""More keys than queries: the last query of a sequence stands at its last key.

What no query sees is left out first, so that work and memory grow with the queries and the window. Most backends want
as many rows as keys: queries that nobody asked for are put before the others (packed: beside them), and their results
are thrown away.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import Call, values_are_free


def reach(call: Call) -> int:
    """How many frames before its query a key can lie; -1 = any number. Of a shifted window, at a sequence's end."""
    if call.left < 0 or call.normalize == "global":
        return -1
    return (call.left + call.right if call.shift else call.left) * call.dilation


def without_unseen(call: Call) -> Call:
    """The call without the keys before every window. Not packed."""
    before = reach(call)
    if before < 0:
        return call
    kept = torch.sym_min(call.k.shape[2], call.q.shape[2] + before)
    first = call.k.shape[2] - kept
    k, v = (x.narrow(2, first, kept) for x in (call.k, call.v))
    mask = None if call.mask is None else call.mask.narrow(1, first, kept)
    return call._replace(k=k, v=v, mask=mask, row_offset=call.row_offset + first, longest=kept)


class Aligned(NamedTuple):
    """A call of as many rows as keys, and which of its rows were asked for."""

    call: Call
    rows: Tensor | None  # [Tq]; None: the last ones
    queries: int

    def chosen(self, x: Tensor) -> Tensor:
        """Those of x [B, H, T, ...]."""
        return x[:, :, x.shape[2] - self.queries :] if self.rows is None else x.index_select(2, self.rows)


def aligned(call: Call) -> Aligned:
    """The call as the backends want it that take as many rows as keys."""
    queries = call.q.shape[2]
    if call.cu_seqlens_k is not None:
        return _packed(call)
    q = torch.cat([call.q.new_zeros(*call.q.shape[:2], call.k.shape[2] - queries, call.q.shape[3]), call.q], 2)
    return Aligned(call._replace(q=q), None, queries)


def _packed(call: Call) -> Aligned:
    """Each sequence on a line of its own, the lines one after another; on the last line nobody sees anything."""
    assert call.cu_seqlens is not None
    assert call.cu_seqlens_k is not None
    device, queries, keys = call.q.device, call.q.shape[2], call.k.shape[2]
    of_queries, of_keys = call.cu_seqlens.long(), call.cu_seqlens_k.long()
    sequences = of_keys.shape[0] - 1
    before = reach(call)
    if before < 0 or call.dropout_p > 0:  # whose choice goes by the number of the key among all keys
        lengths, most = of_keys.diff(), keys
    else:
        lengths = torch.minimum(of_keys.diff(), of_queries.diff() + before)
        most = torch.sym_min(keys, queries + sequences * before)
    ends = lengths.cumsum(0)
    last = max(sequences - 1, 0)
    # On a GPU, reading how long the lines are would wait for it: there is room for whatever they may be, and for the
    # queries of sequences that (wrongly) have fewer keys.
    frames = (int(ends[-1]) if sequences else 0) if values_are_free(ends) else most + queries

    row = torch.arange(queries, device=device)
    n = torch.searchsorted(of_queries[1:].contiguous(), row, right=True).clamp_max(last)
    place = ends[n] - (of_queries[n + 1] - row)
    place = torch.where((place >= ends[n] - lengths[n]) & (place < ends[n]), place, most + row)
    q = call.q.new_zeros(*call.q.shape[:2], frames, call.q.shape[3]).index_copy(2, place, call.q)

    frame = torch.arange(frames, device=device)
    n = torch.searchsorted(ends, frame, right=True).clamp_max(last)
    exists = frame < ends[n]
    source = torch.where(exists, of_keys[n + 1] - (ends[n] - frame), 0)
    mask = exists[None] if call.mask is None else exists & call.mask[:, source]
    bounds = F.pad(ends, (1, 1))
    bounds[-1] = frames
    line = call._replace(
        q=q,
        k=call.k.index_select(2, source),
        v=call.v.index_select(2, source),
        mask=mask,
        cu_seqlens=bounds.to(torch.int32),
        cu_seqlens_k=None,
    )
    return Aligned(line, place, queries)
