"""The same calls over a process group: a sequence lies in stretches on its ranks."""

from __future__ import annotations

from .attention import sliding_window_attention
from .heads import full_attention
from .merge import merge_attention

__all__ = ["full_attention", "merge_attention", "sliding_window_attention"]
