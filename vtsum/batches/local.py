"""Processes of this machine that work on videos one after the other, each with a model of its own."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vtsum.batches.results import Hopeless, Job, Result, Work
from vtsum.errors import VTSumError
from vtsum.shown import clean_libraries
from vtsum.signals import end, heed, undisturbed

_PATIENCE = 10.0  # seconds that a process is given to tidy up
_TICK = 0.5  # seconds between two looks at the clock


def serve(calls: Connection, work: Work, threads: int, held: Path | None) -> None:
    """A worker's life: take a job, answer what became of it, until nothing more comes.

    Args:
        threads: that PyTorch may use. held: a file that is locked (shared) as long as the worker lives.
    """
    clean_libraries()
    # Ctrl-C is the driver's, which stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, heed)
    threading.Thread(target=_end_with_parent, name="vtsum-parent", daemon=True).start()
    if held is not None:
        fcntl.flock(os.open(held, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
    try:
        _work(calls, work, threads)
    except SystemExit as stop:  # SIGTERM
        end(int(stop.code or 0))


def _work(calls: Connection, work: Work, threads: int) -> None:
    do = Answers(work, threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            calls.send(do(calls.recv()))


class Answers:
    """What is inside a process that works: loads all that is needed at its first job."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._do: Callable[[Job], tuple[str, ...]] | None = None

    def __call__(self, job: Job) -> tuple[str, Any]:
        """What became of a job: ("done", notes), ("failed", reason) or ("hopeless", reason)."""
        try:
            if self._do is None:
                self._do = self._work.begin(self._threads)
            return "done", self._do(job)
        except Hopeless as error:
            return "hopeless", str(error)
        except VTSumError as error:
            return "failed", str(error)
        except Exception as error:  # one video must not end the others' run
            return "failed", f"this should not have happened, {type(error).__name__}: {error}"


def ended(job: Job, answer: tuple[str, Any], seconds: float) -> Result:
    """The result that a worker's answer tells.

    Raises:
        Hopeless: where it says so.
    """
    status, told = answer
    if status == "hopeless":
        raise Hopeless(told)
    if status == "done":
        return Result(job.source, job.output, "done", None, seconds, told)
    return Result(job.source, job.output, "failed", told, seconds)


def _end_with_parent() -> None:
    """Stop where the driver was killed: nobody would write down what is still made."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)


def _start_tracker() -> None:
    """Have multiprocessing's own process, which removes what killed workers leave of semaphores (libraries make them
    for their progress bars), do so without a warning: why a worker was killed is told."""
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


class _Worker:
    """A process, and what it is at."""

    def __init__(self, work: Work, threads: int, held: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.calls, theirs = context.Pipe()
        self._work = work
        self.process = context.Process(target=serve, args=(theirs, work, threads, held), daemon=True)
        _start_tracker()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a process that begins cannot refuse
        try:
            with undisturbed():  # or it would end in a traceback, not having been told what to do
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.job: Job | None = None
        self.since = 0.0
        self.lost = False  # it is dead, or too late

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic()
        with contextlib.suppress(OSError):  # a process that has died meanwhile is noticed as one that dies at it
            self.calls.send(job)

    def leave(self) -> None:
        """Tell the process to end: one that is at nothing by itself, which gives back what its libraries hold."""
        if self.job is None:
            self.calls.close()
        else:
            self.process.terminate()

    def stop(self) -> None:
        """End the process, and remove what it had not finished."""
        self.leave()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.calls.close()
        if self.job is not None:
            self._work.sweep(self.job)


class InThisProcess:
    """Runs jobs one after the other where it is called; what ends the process ends the run."""

    def run(self, jobs: Sequence[Job], work: Work) -> Generator[tuple[Job, Result | None], None, None]:
        """As `LocalExecutor` has it."""
        do: Callable[[Job], tuple[str, ...]] | None = None
        for job in jobs:
            yield job, None
            since = time.monotonic()
            try:
                if do is None:
                    do = work.begin(None)
                result = Result(job.source, job.output, "done", notes=do(job))
            except Hopeless:
                raise
            except VTSumError as error:
                result = Result(job.source, job.output, "failed", str(error))
            yield job, replace(result, seconds=time.monotonic() - since)


class LocalExecutor:
    """Runs jobs in `workers` processes of this machine.

    Another executor takes its place by having the same `run`, as `InThisProcess` does.

    Args:
        workers (int): processes. limit (float | None): seconds that a video may take. held (Path | None): a file that
            workers hold locked (shared) as long as they live.
    """

    def __init__(self, workers: int, limit: float | None, held: Path | None) -> None:
        self._count, self._limit, self._held = workers, limit, held
        self._threads = max(1, processors() // workers)

    def run(self, jobs: Sequence[Job], work: Work) -> Generator[tuple[Job, Result | None], None, None]:
        """(job, None) before it begins, and (job, its result) when it ended; a job that ends its process has failed.

        Raises:
            Hopeless: as the work does.
        """
        waiting = deque(jobs)
        workers: list[_Worker] = []
        try:
            while waiting or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and waiting:
                        job = waiting.popleft()
                        yield job, None
                        worker.give(job)
                busy = sum(worker.job is not None for worker in workers)
                if waiting and busy == len(workers) < self._count:
                    workers.append(_Worker(work, self._threads, self._held))
                    continue
                wait([worker.calls for worker in workers if worker.job is not None], timeout=_TICK)
                for worker in list(workers):
                    if worker.job is None or (result := self._ended(worker)) is None:
                        continue
                    job = worker.job
                    if worker.lost:
                        worker.stop()
                        workers.remove(worker)
                    worker.job = None
                    yield job, result
        finally:
            for worker in workers:
                worker.leave()
            for worker in workers:
                worker.stop()

    def _ended(self, worker: _Worker) -> Result | None:
        """The result of a worker's job, where there is one by now."""
        job = worker.job
        assert job is not None
        seconds = time.monotonic() - worker.since
        if worker.calls.poll():
            with contextlib.suppress(EOFError, OSError):
                return ended(job, worker.calls.recv(), seconds)
            worker.process.join(_PATIENCE)  # its end of the pipe is closed
        if not worker.process.is_alive():
            worker.lost = True
            return Result(job.source, job.output, "failed", _death(worker.process.exitcode), seconds, lost=True)
        if self._limit is not None and seconds > self._limit:
            worker.lost = True
            return Result(job.source, job.output, "failed", too_long(self._limit), seconds, lost=True)
        return None


def too_long(limit: float) -> str:
    """Why a job was given up."""
    return f"took longer than the limit of {limit:g} s"


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended by itself with status {code}"


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(op: str, workers: int, limit: float | None) -> None:
    """Raises:
    VTSumError: a number of processes, or seconds for a video, that cannot be.
    """
    if not 1 <= workers <= 1024:
        raise VTSumError(f"{op}: workers must be 1 to 1024, got {workers}")
    if limit is not None and not limit > 0:
        raise VTSumError(f"{op}: limit must be above 0 seconds, or None, got {limit:g}")
