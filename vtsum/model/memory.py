"""The memory of the memory-augmented transformer: which bank a configuration asks for, and how frames read it."""

from __future__ import annotations

from torch import Tensor
from vtsum_kernels.nn import MemoryBank

from vtsum.config import VTSumConfig


def make_bank(config: VTSumConfig) -> MemoryBank:
    """A bank of `config.memory_slots` slots in the form that the configuration names."""
    slots, dim, best = config.memory_slots, config.width, config.memory_top_k
    if config.memory_form == "student":
        return MemoryBank(slots, dim, temperature=dim**-0.5, top_k=best, residual=False, norm=False)
    return MemoryBank(slots, dim, top_k=best)


def read_bank(bank: MemoryBank, x: Tensor, mask: Tensor | None) -> Tensor:
    """Frames with what they read: x [B, T, C] with mask bool [B, T] or None, or packed x [total, C] -> x's shape."""
    return bank(x, mask=mask) if x.ndim == 3 else bank(x[None])[0]
