"""When a training stops: the signals that ask it to, and the launcher that it must not outlive."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

GRACE_SECONDS = 300.0
"""After its launcher's death a process may take this long to write a checkpoint; then it ends at once."""
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a training to stop: `kill`, Ctrl-C, and a terminal that is closed."""
_SECOND_SIGINT_AFTER = 2.0


class StopSignals:
    """Within it, each of STOPPING is a wish that the loop looks up: `number` is the signal's, 0 if there was none.

    A second Ctrl-C, seconds later, interrupts at once. Launchers pass a signal on that the terminal has sent already,
    so that one right after the first says nothing new.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since > _SECOND_SIGINT_AFTER:
            raise KeyboardInterrupt

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has SIGHUP
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stat(pid: int) -> tuple[int, str] | None:
    """(parent, start time) of a living process by /proc; None where it is gone (or only waits to be reaped)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def _launchers() -> list[tuple[int, str]]:
    """The processes above this one that launch ranks, nearest first, as (pid, start time)."""
    found: list[tuple[int, str]] = []
    pid = os.getppid()
    while pid > 1 and len(found) < 8:
        stat = _stat(pid)
        if stat is None:
            break
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            break
        # The parent started this rank; above it, DeepSpeed's `deepspeed` stands over its per-machine launcher.
        if found and not any("deepspeed" in w or "torchrun" in w or "torch.distributed" in w for w in words[:4]):
            break
        found.append((pid, stat[1]))
        pid = stat[0]
    return found


def follow_launcher() -> None:
    """Have this rank stop when the process that launched it is gone.

    DeepSpeed's launcher leaves its ranks behind when it is killed, and they go on training and keep their port. A
    thread looks every half second; the first launcher to be missing counts as SIGTERM for this rank (the run is saved),
    and GRACE_SECONDS later the process ends in any case. Does nothing where no launcher started this process.
    """
    if "RANK" not in os.environ:
        return
    above, parent = _launchers(), os.getppid()

    def watch() -> None:
        while os.getppid() == parent and all((s := _stat(pid)) is not None and s[1] == start for pid, start in above):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="follow-launcher", daemon=True).start()


def heed_only_the_rank(worker: int) -> None:
    """For a process that reads features: of the signals of STOPPING only the rank's own SIGTERM ends it.

    A signal to the whole group must not kill the readers under a rank that still finishes its step. But the rank's own
    must: an interpreter that exits, for whatever reason, terminates its readers and then waits for them, without end.
    Does nothing where a process cannot learn who sent a signal (macOS).
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a reader is a process of multiprocessing"
    rank = parent.pid  # os.getppid() is that of a server of forks where one made this process: Python 3.14's default

    def wait() -> None:
        while True:
            signalled = signal.sigwaitinfo(STOPPING)
            if signalled.si_signo == signal.SIGTERM and signalled.si_pid == rank:
                os._exit(0)

    threading.Thread(target=wait, name="heed-only-the-rank", daemon=True).start()
