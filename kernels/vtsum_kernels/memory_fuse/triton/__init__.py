"""`memory_fuse` in Triton: the joined product. Its other kernels are those of `memory_attention`."""

from __future__ import annotations

from .launch import join

__all__ = ["join"]
