"""The k best slots of each row on the CPU: by rounded products and a shortlist, or by every score in float32.

Both find the same slots with the same scores: the head of csrc/cpu/memory_attention/search_impl.h proves the bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import library
from ..tensors import acc_dtype, dense_rows
from .cpu import in_full_precision
from .plan import SHORTLIST_BLOCK, shortlists

_SEARCH = "Tensor x, Tensor keys, Tensor factor, Tensor? slot_bias"
library.LIB.define(f"memory_search_({_SEARCH}, Tensor(a!) best, Tensor(b!) index) -> ()")
library.LIB.define(
    f"memory_rescore_({_SEARCH}, Tensor floors, Tensor counts, Tensor kept, Tensor ceilings, "
    "Tensor(a!) best, Tensor(b!) index) -> ()"
)
library.LIB.define("memory_round(Tensor rows) -> (Tensor, Tensor, Tensor)")
library.LIB.define(
    "memory_shortlist_(Tensor scores, Tensor row_norm, Tensor row_residual, Tensor slot_norm, Tensor slot_residual, "
    "Tensor factor, Tensor? slot_bias, int first, int d, Tensor(a!) floors, Tensor(b!) counts, Tensor(c!) kept, "
    "Tensor(d!) ceilings) -> ()"
)
_OPS = library.OPS


def _fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, torch's product is slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported()) and torch.backends.mkldnn.is_available()


FAST_BFLOAT16 = _fast_bfloat16()


def topk(x: Tensor, keys: Tensor, factor: Tensor, slot_bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """memory_topk on the CPU: scores and index [G, H, n, k]."""
    groups, rows, heads, _ = x.shape
    slots, dtype = keys.shape[2], acc_dtype(x.dtype)
    best = torch.full((groups, heads, rows, k), -torch.inf, dtype=dtype)
    index = torch.zeros((groups, heads, rows, k), dtype=torch.int32)
    if rows == 0 or slots == 0:
        return best, index
    x, keys, factor = dense_rows(x.to(dtype)), dense_rows(keys.to(dtype)), factor.contiguous()
    if slot_bias is not None:
        slot_bias = slot_bias.to(dtype).expand(groups, heads, slots)
    short = FAST_BFLOAT16 and dtype == torch.float32 and shortlists(rows, slots, k)
    for g in range(groups):
        for h in range(heads):
            bias = None if slot_bias is None else slot_bias[g, h].contiguous()
            found = _by_shortlist if short else _OPS.memory_search_
            found(x[g, :, h], keys[g, h], factor[g, h], bias, best[g, h], index[g, h])
    return best, index


def _by_shortlist(
    x: Tensor, keys: Tensor, factor: Tensor, slot_bias: Tensor | None, best: Tensor, index: Tensor
) -> None:
    (rows, dim), slots, k = x.shape, keys.shape[0], best.shape[1]
    rows_of_block, slots_of_block = SHORTLIST_BLOCK
    near_keys, slot_norm, slot_residual = _OPS.memory_round(keys)
    capacity = 8 * k + 512
    for first in range(0, rows, rows_of_block):
        part = slice(first, min(first + rows_of_block, rows))
        mine = x[part]
        near, norm, residual = _OPS.memory_round(mine)
        count = mine.shape[0]
        floors = torch.full((count, k), -torch.inf)
        counts = torch.zeros(count, dtype=torch.int32)
        kept = torch.empty((count, capacity), dtype=torch.int32)
        ceilings = torch.empty((count, capacity))
        for begin in range(0, slots, slots_of_block):
            block = slice(begin, min(begin + slots_of_block, slots))
            _OPS.memory_shortlist_(
                torch.mm(near, near_keys[block].t()),
                norm,
                residual,
                slot_norm[block],
                slot_residual[block],
                factor[part],
                None if slot_bias is None else slot_bias[block],
                begin,
                dim,
                floors,
                counts,
                kept,
                ceilings,
            )
        _OPS.memory_rescore_(
            mine, keys, factor[part], slot_bias, floors, counts, kept, ceilings, best[part], index[part]
        )
        full = (counts < 0).nonzero().view(-1)
        if full.numel() > 0:  # more near-equal scores than there is room for: these rows are searched in full
            scores, slots_found = best.new_empty((full.numel(), k)), index.new_empty((full.numel(), k))
            _OPS.memory_search_(mine[full], keys, factor[part][full], slot_bias, scores, slots_found)
            best[part][full] = scores
            index[part][full] = slots_found


library.LIB.impl("memory_topk", in_full_precision(topk), "CPU")
