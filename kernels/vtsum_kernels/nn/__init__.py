"""Thin modules over the ops."""

from __future__ import annotations

from .attention import SlidingWindowAttention
from .memory_bank import MemoryBank, MemoryUsage

__all__ = ["MemoryBank", "MemoryUsage", "SlidingWindowAttention"]
