"""What a parser may do with any file: return or refuse it in one clean line, soon, in little memory, and no more."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vtsum.errors import VTSumError
from vtsum.shown import LONGEST, clean

SECONDS = 2.0  # of computing, for one input: those of a busy machine's other processes do not count
WAIT = 60  # seconds by the clock: a pipe or a lock is not waited for
STUCK = 60  # seconds of computing after which a call into C that answers no signal ends, and the process with it
MEMORY = 64 << 20  # bytes that Python and NumPy may take beside
TIMES = 200  # the input: a list in JSON takes eight bytes for each of its two
ADDRESSES = 2 << 30  # bytes that anything may, torch too

_CHANGES = ("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")
_RUNS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "os.kill")
_REACHES = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
_FORBIDDEN = frozenset((*_CHANGES, *_RUNS, *_REACHES))
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_seen: list[str] | None = None
"""Forbidden events of the running call; None: nobody looks."""


class _TooLong(BaseException):
    """Not an Exception: a parser that catches all of these must not catch the alarm."""


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in _FORBIDDEN or (event == "open" and arguments[2] & _WRITE):
        _seen.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_listen)  # for good: Python has no way to take one off


def _ring(number: int, frame: FrameType | None) -> None:
    raise _TooLong


@contextmanager
def _bounded() -> Iterator[None]:
    """An alarm by computing time and one by the clock, and a limit of the address space."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    spent = int(time.process_time()) + STUCK
    limits = {resource.RLIMIT_AS: used + ADDRESSES, resource.RLIMIT_CPU: spent}
    before = {kind: resource.getrlimit(kind) for kind in limits}
    old = {number: signal.signal(number, _ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, before[kind][1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, both in before.items():
            resource.setrlimit(kind, both)
        for number, handler in old.items():
            signal.signal(number, handler)


def _alone(read: Callable[[Path], object], path: Path) -> None:
    """Once more, without what counts its memory, which makes Python's own parsers ten times as slow."""
    tracemalloc.stop()
    try:
        with _bounded():
            read(path)
    except VTSumError:
        pass
    except _TooLong:
        raise AssertionError(f"took more than {SECONDS} s of computing or {WAIT} s: {path}") from None


def check(read: Callable[[Path], object], path: Path, data: bytes, memory: int = MEMORY) -> None:
    """Have a file of these bytes read. It stays where it is, so that one which takes the process along is not lost.

    Raises:
        AssertionError, or whatever `read` raises but VTSumError: it does not keep the rules.
    """
    global _seen
    path.write_bytes(data)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    _seen = touched = []
    try:
        with _bounded(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            read(path)
    except VTSumError as error:
        message = str(error)
        assert message == clean(message), message
        assert 0 < len(message) <= LONGEST + 5, message
        assert "allocate" not in message, message  # a limit of memory that was caught
    except _TooLong:
        _alone(read, path)
    finally:
        _seen = None
        _, peak = tracemalloc.get_traced_memory()  # of none, where it had to be read once more
        tracemalloc.stop()
    assert not touched, touched
    assert not warned, f"on standard error: {warned[0].message}"
    assert peak - before <= memory + TIMES * len(data), f"{peak - before} bytes of memory for {len(data)}"
