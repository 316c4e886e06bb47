"""Memory retrieval: each frame reads from a bank of learnable slots by soft attention."""

from __future__ import annotations

from .attention import memory_attention
from .fuse import memory_fuse
from .reference import memory_attention_reference, memory_fuse_reference

__all__ = ["memory_attention", "memory_attention_reference", "memory_fuse", "memory_fuse_reference"]
