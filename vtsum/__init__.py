"""VTSum: a video in, a shorter video and a short text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vtsum import moved
from vtsum.errors import VTSumError
from vtsum.version import __version__

if TYPE_CHECKING:
    from vtsum.summary.pipeline import Summary, summarize

__all__ = ["Summary", "VTSumError", "__version__", "summarize"]

moved.serve_old_names()


def __getattr__(name: str) -> Any:
    # `import vtsum` stays quick: NumPy and what follows are imported when they are first asked for.
    if name in ("Summary", "summarize"):
        import importlib

        from vtsum.extras import require

        require("video", name)
        return getattr(importlib.import_module("vtsum.summary.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
