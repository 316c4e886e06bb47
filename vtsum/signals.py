"""Signals that stop a command: where they may break in, what is removed then, and how the process ends.

Python raises the exception of a signal between any two instructions of the main thread. Amid an import of PyTorch that
leaves half a library, at which the process crashes as soon as anybody imports it again; between a new folder's making
and the block that removes it, it leaves the folder; in a destructor it is lost, amid a traceback. An interpreter that
ends while another thread is at work in such a library crashes too.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

_PATIENCE = 5.0  # seconds after a signal in which another one does not break off the tidying up
_LONGEST = 60.0  # seconds of an import, at most, that a signal waits for
_IMPORT = "<frozen importlib._bootstrap>"

_unfinished: set[Path] = set()
_heeded: tuple[int, float] | None = None  # the last signal that was raised as an exception, and when
_lost = False  # its exception went down in a destructor
_waits: tuple[int, float] | None = None  # one that waits, and since when
_busy = False  # in what is not to be broken off


@contextmanager
def stopping(*, last: bool = False) -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP, as far as they are not ignored (nohup), are raised in the main thread:
    KeyboardInterrupt, or SystemExit(128 + number). After one, whatever was begun and is not over is removed, and an
    error is taken for what became of it on its way through a library.

    Args:
        last: the process ends after this, or does so again: a signal that comes too late to be raised ends it as one
            that was. What an interpreter does at its end, a second with PyTorch, is no time for exceptions.
    """
    if last:
        atexit.register(_deaf)
    global _heeded, _lost, _waits
    _heeded = _waits = None
    _lost = False
    unraised = sys.unraisablehook
    sys.unraisablehook = lambda told: _sink(told, unraised)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {n: signal.signal(n, heed) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
        if _waits is not None:  # it came amid an import that is over: nobody else may see it
            _heeded, _waits = (_waits[0], time.monotonic()), None
            _raise(_heeded[0])
    except Exception:
        check()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, _late if last else handler)
        sys.unraisablehook = unraised
        if _heeded:
            _sweep()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, in the main thread, a signal waits: for what is short and must not be broken off."""
    global _busy
    before, _busy = _busy, True
    try:
        yield
    finally:
        _busy = before


def heed(number: int, frame: FrameType | None) -> None:
    """The handler: raises, later where the main thread imports something or is at what must not be broken off, and not
    again while it tidies up."""
    global _heeded, _lost, _waits
    now = time.monotonic()
    if _heeded and not _lost and now - _heeded[1] < _PATIENCE:
        return
    _waits = (number, now) if _waits is None else _waits
    if (_busy or _imports(frame)) and now - _waits[1] < _LONGEST:
        _thread.start_new_thread(_again, (number,))  # not threading's, whose lock the main thread may hold
        return
    _heeded, _lost, _waits = (number, now), False, None
    _raise(number)


def _late(number: int, frame: FrameType | None) -> None:
    from vtsum.shown import say

    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGINT and not _heeded:  # which has said it
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            say("stopped")
    end(128 + number)


def _deaf() -> None:
    """At the very end Python gives signals back to the system, which would end the process without a word."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is _late:
            signal.signal(number, signal.SIG_IGN)


def _again(number: int) -> None:
    time.sleep(0.02)
    if signal.getsignal(number) is not heed:  # the work has ended meanwhile
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _sink(told: sys.UnraisableHookArgs, unraised: Callable[[sys.UnraisableHookArgs], object]) -> None:
    """A destructor cannot raise: where a signal came in one, it comes again."""
    global _lost
    if _heeded and isinstance(told.exc_value, KeyboardInterrupt | SystemExit):
        _lost = True
        _thread.start_new_thread(_again, (_heeded[0],))
    else:
        unraised(told)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def check() -> None:
    """Raise a signal again that was heeded and whose exception was lost; for the main thread's work, now and then."""
    if _heeded and threading.current_thread() is threading.main_thread():
        _raise(_heeded[0])


def heeded() -> bool:
    """Whether a signal was raised in this `stopping`."""
    return _heeded is not None


def begun(path: Path) -> None:
    """Have a file or folder under a name of our own, not made yet, removed when a signal ends this process."""
    _unfinished.add(path)


def is_begun(path: Path) -> bool:
    """Whether `begun` was told of it, and it is not over."""
    return os.path.abspath(path) in {os.path.abspath(own) for own in list(_unfinished)}


def over(path: Path) -> None:
    """Remove what `begun` was told of, if it is still there."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not os.path.lexists(path):
        _unfinished.discard(path)


def _sweep() -> None:
    for _ in range(5):  # a thread may still write into a folder
        for path in list(_unfinished):
            over(path)
        if not _unfinished:
            return
        time.sleep(0.1)


def end(code: int) -> NoReturn:
    """End this process after a signal without what an interpreter does at its end, which threads do not survive."""
    _sweep()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):  # the signal came amid a print
            stream.flush()
    os._exit(code)
