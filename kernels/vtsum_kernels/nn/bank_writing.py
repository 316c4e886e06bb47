"""How frames of a stream are put into a bank: three rules, each in place.

memory [S, C]; counts int64 [S + 1]: the frames that each slot stands for, and last the slot that the next frame
replaces.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..memory_attention.reference import unit
from ..tensors import acc_dtype


def _first_in_first_out(memory: Tensor, counts: Tensor, frames: Tensor, momentum: float) -> None:
    slots = memory.shape[0]
    start = int(counts[-1])
    counts[-1] = (start + len(frames)) % slots
    kept = frames[-slots:]  # what lies before would be overwritten in turn
    where = (start + torch.arange(len(frames) - len(kept), len(frames), device=memory.device)) % slots
    memory[where] = kept
    counts[where] = 1


def _moving_average(memory: Tensor, counts: Tensor, frames: Tensor, momentum: float) -> None:
    for frame in frames:
        slot = int((unit(memory) @ unit(frame)).argmax())
        memory[slot] = memory[slot].lerp(frame, 1.0 - momentum)
        counts[slot] += 1


def _merge_neighbours(memory: Tensor, counts: Tensor, frames: Tensor, momentum: float) -> None:
    for frame in frames:
        # A slot that stands for nothing yet gives way without a merge.
        empty = (counts[:-1] == 0).nonzero()
        rows, weights = torch.cat((memory, frame[None])), torch.cat((counts[:-1], counts.new_ones(1)))
        if len(empty):
            gone = int(empty[0])
        else:
            directions = unit(rows)
            gone = int((directions[:-1] * directions[1:]).sum(-1).argmax())
            pair, share = rows[gone : gone + 2], weights[gone : gone + 2].to(acc_dtype(rows.dtype))
            rows[gone + 1] = (pair * share[:, None]).sum(0) / share.sum()
            weights[gone + 1] += weights[gone]
        keep = torch.arange(len(rows), device=rows.device) != gone
        memory.copy_(rows[keep])
        counts[:-1] = weights[keep]


RULES: dict[str, Callable[[Tensor, Tensor, Tensor, float], None]] = {
    "fifo": _first_in_first_out,
    "ema": _moving_average,
    "merge": _merge_neighbours,
}
