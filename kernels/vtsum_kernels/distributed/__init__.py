"""The same calls over a process group: a sequence lies in stretches on its ranks."""

from __future__ import annotations

from .attention import sliding_window_attention

__all__ = ["sliding_window_attention"]
