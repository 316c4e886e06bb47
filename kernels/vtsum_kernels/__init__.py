"""Fused attention ops for long sequences of frames. Depends on torch alone."""

from __future__ import annotations

from . import flops
from .dispatch import explain
from .library import build_info
from .memory_attention import memory_attention, memory_attention_reference
from .memory_fuse import fold_bank, memory_fuse, memory_fuse_reference
from .sliding_window_attention import sliding_window_attention, sliding_window_attention_reference

__all__ = [
    "build_info",
    "explain",
    "fold_bank",
    "memory_attention",
    "memory_attention_reference",
    "memory_fuse",
    "memory_fuse_reference",
    "sliding_window_attention",
    "sliding_window_attention_reference",
]

flops.register()
