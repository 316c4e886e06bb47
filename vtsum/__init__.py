"""VTSum: a video in, a shorter video and a short text out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vtsum import moved
from vtsum.errors import VTSumError
from vtsum.version import __version__

if TYPE_CHECKING:
    from vtsum.batches import batch
    from vtsum.summary.exports import export
    from vtsum.summary.live import LiveSummary, stream
    from vtsum.summary.making import Summary
    from vtsum.summary.pipeline import summarize
    from vtsum.summary.recut import recut

__all__ = ["LiveSummary", "Summary", "VTSumError", "__version__", "batch", "export", "recut", "stream", "summarize"]

_WHERE = {
    "batch": "vtsum.batches",
    "LiveSummary": "vtsum.summary.live",
    "Summary": "vtsum.summary.making",
    "export": "vtsum.summary.exports",
    "recut": "vtsum.summary.recut",
    "stream": "vtsum.summary.live",
    "summarize": "vtsum.summary.pipeline",
}

moved.serve_old_names()
# ONNX Runtime, which several of our libraries import, would tell Microsoft of each model that it loads, under an
# identifier that it keeps in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # `import vtsum` stays quick: NumPy and what follows are imported when they are first asked for.
    if name in _WHERE:
        import importlib

        from vtsum.extras import require

        require("video", name)
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
