"""A page on this machine: drop a video on it, watch the summary being made, tick moments, cut again, download."""

from __future__ import annotations

from vtsum.serving.run import serve

__all__ = ["serve"]
