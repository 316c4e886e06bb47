"""A video of many, what is done with it, and what became of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vtsum.errors import VTSumError


@dataclass(frozen=True)
class Job:
    """A video, and the file or folder that is made of it."""

    source: Path
    output: Path

    @property
    def key(self) -> str:
        """A digest of the file's place, length and time: another file in its place is another video."""
        status = self.source.stat()
        facts = (os.fsencode(os.path.abspath(self.source)), status.st_size, status.st_mtime_ns)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Result:
    """What became of a video.

    Attributes:
        source, output (Path): the file, and the folder of its summary. status: "done", "failed" or "skipped" (a run
        before did it) or "planned" (by a dry run). reason (str | None): of a failure. seconds (float): it took.
        notes: warnings of its summary.
    """

    source: Path
    output: Path
    status: str
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class Work(Protocol):
    """What is done with each video. It travels, pickled, to the processes that do it."""

    def begin(self, threads: int | None) -> Callable[[Job], tuple[str, ...]]:
        """Load what all videos need, once in each process, for PyTorch with so many threads (None: as many as it has).

        Returns:
            What makes a job's output, and returns notes; a VTSumError of it is that video's failure, `Hopeless` all
            videos'.
        """

    def sweep(self, job: Job) -> None:
        """Remove what a process that was killed at a job has left half-made."""


class Hopeless(VTSumError):
    """No other video can be done either."""
