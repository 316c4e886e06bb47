"""A video of many, what is done with it, and what became of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vtsum.errors import VTSumError
from vtsum.video.incoming import Address


@dataclass(frozen=True)
class Job:
    """A video, and the file or folder that is made of it."""

    source: Path | Address
    output: Path

    @property
    def key(self) -> str:
        """A digest of the file's place, length and time: another file in its place is another video. Of an address
        on the web, of that alone."""
        if isinstance(self.source, Address):
            return hashlib.sha256(self.source.encode(errors="surrogateescape")).hexdigest()[:32]
        status = self.source.stat()
        facts = (os.fsencode(os.path.abspath(self.source)), status.st_size, status.st_mtime_ns)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Result:
    """What became of a video.

    Attributes:
        source, output (Path): the file, and the folder of its summary. status: "done", "failed" or "skipped" (a run
        before did it) or "planned" (by a dry run). reason (str | None): of a failure. seconds (float): it took.
        notes: warnings of its summary. lost: its process ended, or was ended, before it said what became of it.
    """

    source: Path | Address
    output: Path
    status: str
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    lost: bool = False

    def made(self) -> Result:
        """As it is where the output of a lost process stands there all the same."""
        if not (self.lost and self.reason):
            return self
        note = f"{self.reason}, after all was made: what it would have told is not known here"
        return replace(self, status="done", reason=None, notes=(note,))


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
