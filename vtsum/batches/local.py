"""Processes of this machine that summarise videos one after the other, each with a model of its own."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from vtsum.batches.results import Job, Result
from vtsum.errors import VTSumError
from vtsum.files import strangers
from vtsum.shown import clean_libraries
from vtsum.summary.staging import OURS

_PATIENCE = 10.0  # seconds that a process is given to tidy up
_UNFINISHED = re.compile(rf"{OURS.pattern}|(keyframes/)?\.[^/]{{1,64}}\.[0-9a-f]{{16}}\.part")
_RANDOM = re.compile("[a-z0-9_]{8}")  # what tempfile puts behind a name
_TICK = 0.5  # seconds between two looks at the clock


def serve(calls: Connection, options: Mapping[str, Any], threads: int, held: Path) -> None:
    """A worker's life: take (source, output), give ("done", notes) or ("failed", reason), until nothing more comes.

    Args:
        threads: that PyTorch may use. held: a file that is locked (shared) as long as the worker lives.
    """
    clean_libraries()
    # Ctrl-C is the driver's, which stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end_with_parent, name="vtsum-parent", daemon=True).start()
    fcntl.flock(os.open(held, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
    model: Any = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            source, output = calls.recv()
            try:
                from vtsum.summary.pipeline import load_model, summarize

                if model is None:
                    import torch

                    torch.set_num_threads(threads)
                    named = options.get("model", "embedded")
                    guesses = options.get("captioner") == "embedded"
                    model = load_model(named, text=guesses, device=options.get("device", "auto"))
                made = summarize(source, output, **{**options, "model": model})
                calls.send(("done", tuple(made.warnings)))
            except VTSumError as error:
                calls.send(("failed", str(error)))
            except Exception as error:  # one video must not end the others' run
                calls.send(("failed", f"this should not have happened, {type(error).__name__}: {error}"))


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would break off the tidying up, with a traceback at exit
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Stop where the driver was killed: nobody would write down what is still made."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)


class _Worker:
    """A process, and what it is at."""

    def __init__(self, options: Mapping[str, Any], threads: int, held: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.calls, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, options, threads, held), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a process that begins cannot refuse
        try:
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
            self.calls.send((job.source, job.output))

    def stop(self) -> None:
        """End the process, and remove what it had not finished."""
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.calls.close()
        if self.job is not None:
            sweep(self.job.output)


def sweep(output: Path) -> None:
    """Remove the temporary folders of a summary whose process was killed: what is called as they are and holds nothing
    but a summary's files, some half-written."""
    begins = f".{output.name[:60]}.part-"
    for left in list(output.parent.iterdir()):
        is_ours = left.name.startswith(begins) and _RANDOM.fullmatch(left.name.removeprefix(begins))
        if is_ours and left.is_dir() and not left.is_symlink():
            with contextlib.suppress(OSError):
                if not strangers(left, _UNFINISHED.fullmatch):
                    shutil.rmtree(left, ignore_errors=True)


class LocalExecutor:
    """Runs jobs in `workers` processes of this machine.

    Another executor takes its place by having the same `run`.

    Args:
        workers (int): processes. limit (float | None): seconds that a video may take. held (Path): a file that workers
            hold locked (shared) as long as they live.
    """

    def __init__(self, workers: int, limit: float | None, held: Path) -> None:
        self._count, self._limit, self._held = workers, limit, held
        self._threads = max(1, processors() // workers)

    def run(self, jobs: Sequence[Job], options: Mapping[str, Any]) -> Generator[tuple[Job, Result | None], None, None]:
        """(job, None) before it begins, and (job, its result) when it ended; a job that ends its process has failed.

        Args:
            options: of `vtsum.summarize`, values that can be pickled.
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
                    workers.append(_Worker(options, self._threads, self._held))
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
                worker.process.terminate()
            for worker in workers:
                worker.stop()

    def _ended(self, worker: _Worker) -> Result | None:
        """The result of a worker's job, where there is one by now."""
        job = worker.job
        assert job is not None
        seconds = time.monotonic() - worker.since
        if worker.calls.poll():
            with contextlib.suppress(EOFError, OSError):
                status, told = worker.calls.recv()
                if status == "done":
                    return Result(job.source, job.output, "done", None, seconds, told)
                return Result(job.source, job.output, "failed", told, seconds)
            worker.process.join(_PATIENCE)  # its end of the pipe is closed
        if not worker.process.is_alive():
            worker.lost = True
            return Result(job.source, job.output, "failed", _death(worker.process.exitcode), seconds)
        if self._limit is not None and seconds > self._limit:
            worker.lost = True
            why = f"took longer than the limit of {self._limit:g} s"
            return Result(job.source, job.output, "failed", why, seconds)
        return None


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended by itself with status {code}"


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
