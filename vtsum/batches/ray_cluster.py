"""Actors of a Ray cluster that work on videos one after the other, each with a model of its own.

Ray's actors and not its data sets: which videos are left, what became of each and what a killed run had made is the
batch's own ledger's to say, on a cluster as on one machine, and a decoder of ours reads the files.

Source: Ray's documentation, "Actors" and "Fault tolerance"; an actor is a process, and a task of an actor that died
raises ActorDiedError.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtsum.batches.local import Answers, ended, processors, too_long
from vtsum.batches.results import Job, Result, Work
from vtsum.errors import VTSumError
from vtsum.shown import clean_libraries, reason

_TICK = 0.5  # seconds between two looks at the clock
_LOOK = 5.0  # seconds between two looks at the cluster's machines
_TRIES = 2  # a machine may be lost at any job; a job at which two workers are lost is set aside


class _Actor:
    """A worker's inside, on whatever machine.

    Args:
        held: a file that is locked (shared) as long as the process lives, where this machine has it.
    """

    def __init__(self, work: Work, threads: int, held: Path | None) -> None:
        clean_libraries()
        if held is not None:
            with contextlib.suppress(OSError):  # some disks of a network know no locks
                fcntl.flock(os.open(held, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
        self._do = Answers(work, threads)

    def ready(self) -> int:
        """Its process's number."""
        return os.getpid()

    def do(self, job: Job) -> tuple[str, Any]:
        return self._do(job)


@dataclass
class _Worker:
    """An actor, what it was last told to do, and since when.

    Attributes:
        free: it has nothing to do. lost: its process is no more; late: because a job took too long.
    """

    actor: Any
    answer: Any
    job: Job | None = None
    since: float = 0.0
    free: bool = False
    lost: bool = False
    late: bool = False

    def give(self, job: Job) -> None:
        self.job, self.since, self.free = job, time.monotonic(), False
        self.answer = self.actor.do.remote(job)


class RayExecutor:
    """Runs jobs in `workers` actors, on all machines of the cluster of RAY_ADDRESS; without one, of a cluster that is
    begun on this machine for as long as it takes. All machines must have VTSum and reach the videos and the output by
    the same paths.

    Args:
        op: begins messages. workers (int): actors. limit (float | None): seconds that a video may take.
        gpus (float): of a GPU, or GPUs, for each actor. held (Path | None): a file that workers hold locked (shared) as
            long as they live.
    """

    def __init__(self, op: str, workers: int, limit: float | None, gpus: float, held: Path | None) -> None:
        self._op, self._count, self._limit, self._gpus, self._held = op, workers, limit, gpus, held

    def run(self, jobs: Sequence[Job], work: Work) -> Generator[tuple[Job, Result | None], None, None]:
        """As `LocalExecutor` has it; but a job at which a worker was lost is given to one more.

        Raises:
            VTSumError: there is no such cluster, or no place in it for the workers; or it was lost.
            Hopeless: as the work does.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # a paragraph on standard output for each lost worker
        if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:  # which reads this as it is imported
            # A cluster runs what it is sent, and listens on the net: ours takes nothing from others.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        own = not ray.is_initialized()
        if own:
            _connect(self._op, ray)
        try:
            yield from self._run(ray, jobs, work)
        finally:
            if own:
                ray.shutdown()

    def _run(self, ray: Any, jobs: Sequence[Job], work: Work) -> Generator[tuple[Job, Result | None], None, None]:
        threads = threads_each(self._op, ray.nodes(), self._count, self._gpus)
        begin = ray.remote(num_cpus=threads, num_gpus=self._gpus, max_restarts=0)(_Actor)
        waiting, losses, unborn = deque(jobs), Counter[Path](), 0
        workers: list[_Worker] = []
        looked = time.monotonic()
        try:
            while waiting or any(worker.job for worker in workers):
                while len(workers) < min(self._count, len(waiting) + sum(w.job is not None for w in workers)):
                    actor = begin.remote(work, threads, self._held)
                    workers.append(_Worker(actor, actor.ready.remote()))
                ray.wait([worker.answer for worker in workers], num_returns=1, timeout=_TICK)
                if time.monotonic() - looked > _LOOK:  # Ray itself would wait for machines that nobody may bring
                    looked = time.monotonic()
                    if not _places(ray.nodes(), threads, self._gpus):
                        raise VTSumError(f"{self._op}: the cluster must have a machine for a worker, all were lost")
                for worker in list(workers):
                    job, result = worker.job, self._ended(ray, worker)
                    if worker.lost:
                        workers.remove(worker)
                        unborn += job is None
                        if unborn == _TRIES:
                            raise VTSumError(f"{self._op}: workers must be able to begin, {_TRIES} of them were lost")
                    if job is not None and result is not None:
                        worker.job = None
                        if worker.lost:
                            work.sweep(job)
                            losses[job.output] += 1
                            if not worker.late and losses[job.output] == _TRIES:
                                result = replace(result, reason=f"{result.reason}, for the second time")
                        # Where something has come to its place, who keeps the ledger knows whether it is this job's.
                        if result.lost and not worker.late and losses[job.output] < _TRIES and not job.output.exists():
                            waiting.append(job)
                        else:
                            yield job, result
                    if worker.free and waiting:
                        job = waiting.popleft()
                        if not losses[job.output]:
                            yield job, None
                        worker.give(job)
                    elif worker.free:  # there is nothing left to do
                        workers.remove(worker)
                        _end(ray, worker.actor)
        finally:
            for worker in workers:
                _end(ray, worker.actor)
                if worker.job is not None:
                    work.sweep(worker.job)

    def _ended(self, ray: Any, worker: _Worker) -> Result | None:
        """The result of a worker's job, where there is one by now; notes whether the worker is free or lost."""
        job, seconds = worker.job, time.monotonic() - worker.since
        if ray.wait([worker.answer], timeout=0)[0]:
            try:
                answer = ray.get(worker.answer)
            except ray.exceptions.RayError as error:
                worker.lost, why = True, _reason(error)
            else:
                worker.free = True
                return None if job is None else ended(job, answer, seconds)
        elif job is not None and self._limit is not None and seconds > self._limit:
            _end(ray, worker.actor)
            worker.lost, worker.late, why = True, True, too_long(self._limit)
        else:
            return None
        return None if job is None else Result(job.source, job.output, "failed", why, seconds, lost=True)


def _connect(op: str, ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    alone = {"address": "local", "num_cpus": processors(), "include_dashboard": False}
    try:
        with contextlib.redirect_stdout(None):
            ray.init(**(alone if not address else {"address": address}), log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"RAY_ADDRESS={address}" if address else "a cluster on this machine"
        raise VTSumError(f"{op}: {where} must be a Ray cluster that answers: {reason(error)}") from None


def threads_each(op: str, nodes: Sequence[Mapping[str, Any]], workers: int, gpus: float) -> int:
    """The most processors that each worker can have with all of them at work at once.

    Args:
        nodes: of the cluster, as ray.nodes() gives them: "Alive", and "Resources" with "CPU" and "GPU".
    Raises:
        VTSumError: there is no place for so many workers.
    """
    sizes = [(r.get("CPU", 0.0), r.get("GPU", 0.0)) for node in nodes if node["Alive"] for r in [node["Resources"]]]
    of_gpus = [math.floor(1 / gpus) * have if 0 < gpus < 1 else have // gpus if gpus else math.inf for _, have in sizes]
    if sum(of_gpus) < workers:
        raise VTSumError(
            f"{op}: gpus_per_worker must be such that the cluster's GPUs are enough for {workers} workers, got {gpus:g}"
            f" with {sum(have for _, have in sizes):g} GPUs"
        )
    for threads in range(int(max((cpus for cpus, _ in sizes), default=0)), 0, -1):
        if sum(min(cpus // threads, most) for (cpus, _), most in zip(sizes, of_gpus, strict=True)) >= workers:
            return threads
    have = sum(cpus for cpus, _ in sizes)
    raise VTSumError(f"{op}: workers must be at most the processors of the cluster, {have:g}, got {workers}")


def _places(nodes: Sequence[Mapping[str, Any]], threads: int, gpus: float) -> bool:
    """Whether a machine of the cluster that is left could ever hold a worker."""
    left = [node["Resources"] for node in nodes if node["Alive"]]
    return any(has.get("CPU", 0.0) >= threads and has.get("GPU", 0.0) >= gpus for has in left)


def _end(ray: Any, actor: Any) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(actor, no_restart=True)


def _reason(error: Exception) -> str:
    """Ray's account of a lost worker, in a few words."""
    return "its machine was lost" if "node has died" in str(error) else "its worker was lost"
