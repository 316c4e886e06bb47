"""Many videos: summaries of files, folders and globs, by several processes, each video once."""

from __future__ import annotations

from vtsum.batches.driver import BatchReport, batch
from vtsum.batches.results import Result

__all__ = ["BatchReport", "Result", "batch"]
