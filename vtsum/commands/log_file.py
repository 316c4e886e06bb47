"""A file to which a command writes what it does and says."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from pathlib import Path

from vtsum.errors import VTSumError
from vtsum.files import plain
from vtsum.shown import LOG, reason

_OURS = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d vtsum \d")


def log_to(path: Path, command: str) -> None:
    """Add lines to a log from now on, each with its time; `close_logs` ends it.

    Raises:
        VTSumError: the file cannot be written, or is there already and no log of ours.
    """
    try:
        handle = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
        )
        file = open(handle, "a+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - the handler's own
        ours = stat.S_ISREG(os.fstat(handle).st_mode)
        begin = os.pread(handle, 64, 0) if ours else b"no"
    except OSError as error:
        why = "a symbolic link is in its place" if os.path.islink(path) else reason(error)
        raise VTSumError(f"{command}: log {plain(path)} must be a file to write to: {why}") from None
    if begin and not _OURS.match(begin):
        file.close()
        raise VTSumError(f"{command}: log {plain(path)} must be a new file or an older log, got another file")
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handler.handleError = _ignore  # type: ignore[method-assign]  # a full disk ends no summary
    LOG.addHandler(handler)


def close_logs() -> None:
    """End all logs."""
    for handler in [each for each in LOG.handlers if isinstance(each, logging.StreamHandler)]:
        LOG.removeHandler(handler)
        with contextlib.suppress(OSError):  # a full disk, of which its buffer knows still
            handler.stream.close()


def _ignore(record: logging.LogRecord) -> None:
    """Take no note of a line that could not be written."""
