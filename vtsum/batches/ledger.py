"""What a batch has done: a file in its folder, one JSON object a line, to which lines are only added.

A line is written before a video is begun and after it has ended. A summary's folder appears whole or not at all: one
that is there although its line says "begun", and not the one that lay there then (by its inode, "older"), was made by a
process that was killed before it could say so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from vtsum.batches.results import Job, Result
from vtsum.errors import VTSumError
from vtsum.files import check_no_links, make_folder, plain
from vtsum.reading import parse_json, read_file
from vtsum.shown import clean, reason, without_secrets

FILE, FORMAT = "batch.jsonl", "vtsum-batch/1"
_LIMIT = 1 << 30  # bytes
_PATIENCE = 15.0  # seconds
_STATES = ("begun", "done", "failed")
_NAME = re.compile(r"[^/\x00]{1,255}")


class Ledger:
    """The file, locked while it is used.

    Raises:
        VTSumError: the folder cannot be written to, another batch is at work in it, or the file is not ours.

    Args:
        dry (bool): only read the file, where there is one; nothing is locked, made or written.
    """

    def __init__(self, folder: Path, *, dry: bool = False) -> None:
        self.folder = folder
        self._path = folder / FILE
        self._entries: dict[str, dict[str, Any]] = {}
        self._file: int | None = None
        check_no_links("batch", folder, self._path)
        if dry:
            if self._path.exists():
                self._read()
            return
        try:
            make_folder(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise VTSumError(f"batch: output {plain(folder)} must be a folder to write to: {reason(error)}") from None
        self._lock()
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        """Wait a little: the workers of a batch that was killed end by themselves, and hold the lock until then."""
        assert self._file is not None
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._file, fcntl.LOCK_SH)  # as the workers will
                return
            except OSError:
                if time.monotonic() > until:
                    os.close(self._file)
                    where = plain(self.folder)
                    raise VTSumError(f"batch: output {where} must be free, another batch is at work there") from None
                time.sleep(0.2)

    @property
    def path(self) -> Path:
        return self._path

    def _read(self) -> None:
        content = read_file(self._path, "batch", _LIMIT)
        *whole, rest = content.split(b"\n")
        if not whole and _line({"format": FORMAT}).startswith(rest):  # new, or killed while it wrote its first line
            if self._file is not None:
                os.ftruncate(self._file, 0)
                self._add({"format": FORMAT})
            return
        if not whole:
            raise VTSumError(f"batch: {plain(self._path)} must be a batch's own, of {FORMAT}")
        for number, line in enumerate(whole):
            entry = parse_json(line, dict, f"batch: {self._path}: line {number + 1}") if line else {}
            if number == 0:
                if entry != {"format": FORMAT}:
                    raise VTSumError(f"batch: {plain(self._path)} must be a batch's own, of {FORMAT}")
            elif line:
                self._take(entry, number + 1)
        if rest and self._file is not None:  # a process was killed while it wrote this, or the disk was full
            os.ftruncate(self._file, len(content) - len(rest))

    def _take(self, entry: dict[str, Any], number: int) -> None:
        key, name, status = entry.get("key"), entry.get("output"), entry.get("status")
        if not (isinstance(key, str) and isinstance(name, str) and _NAME.fullmatch(name) and status in _STATES):
            raise VTSumError(f"batch: {plain(self._path)}: line {number} must be of a video, got {str(entry)!r:.80}")
        if name in (".", "..", FILE):
            raise VTSumError(f"batch: {plain(self._path)}: line {number} must name a folder here, got {name!r}")
        self._entries[key] = entry

    def name_of(self, key: str) -> str | None:
        """The folder that a run before gave to a video."""
        entry = self._entries.get(key)
        return None if entry is None else str(entry["output"])

    def is_done(self, job: Job) -> bool:
        """Whether the summary of this very file is there."""
        entry = self._entries.get(job.key)
        return entry is not None and ((entry["status"] == "done" and job.output.is_dir()) or self.is_made(job))

    def is_made(self, job: Job) -> bool:
        """Whether a summary has come to the place of one that was begun and has not been said to have ended."""
        entry = self._entries.get(job.key)
        if entry is None or entry["status"] != "begun" or not job.output.is_dir():
            return False
        return bool(entry.get("older") != _inode(job.output))

    def begin(self, job: Job) -> None:
        self._add(
            {
                "key": job.key,
                "source": without_secrets(clean(str(job.source))),
                "output": job.output.name,
                "status": "begun",
                "older": _inode(job.output),
            }
        )

    def end(self, job: Job, result: Result) -> None:
        self._add(
            {
                "key": job.key,
                "source": without_secrets(clean(str(job.source))),
                "output": job.output.name,
                "status": result.status,
                "reason": result.reason and clean(result.reason),
                "seconds": round(result.seconds, 1),
            }
        )

    def _add(self, entry: dict[str, Any]) -> None:
        if "key" in entry:
            self._entries[entry["key"]] = entry
        assert self._file is not None
        try:
            line = _line(entry)
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise VTSumError(f"batch: {plain(self._path)} must have room: {reason(error)}") from None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)


def _inode(folder: Path) -> int | None:
    """The number of what a path leads to, which no other thing on its disk has; None where that is nothing."""
    try:
        return os.stat(folder).st_ino
    except OSError:
        return None


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
