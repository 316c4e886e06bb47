"""A video of a batch, and what became of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from vtsum.video.incoming import Address


@dataclass(frozen=True)
class Job:
    """A video and the folder of its summary."""

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
        notes: warnings of its summary.
    """

    source: Path | Address
    output: Path
    status: str
    reason: str | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
