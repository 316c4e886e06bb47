"""Commands that are run one after the other, each in a process of its own, and how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from vtsum.errors import VTSumError
from vtsum.shown import clean, one_line
from vtsum.summary.progress import STAGES

KEPT = 100  # jobs that have ended, and stay listed
WAITING = 1000  # jobs that may wait
_LINE = 1 << 20  # bytes of a line that a process says
_PATIENCE = 15.0  # seconds that a process is given to tidy up


@dataclass
class Job:
    """A command.

    Attributes:
        words: gives those of `vtsum`, when it begins. name: of what is made.
        state: "waiting", "running", "done", "failed" or "stopped".
        stage, share: what it is at, in words, and how much of that is done. left: seconds, if that is known.
        error: why it failed.
    """

    number: int
    words: Callable[[], list[str]]
    name: str
    state: str = "waiting"
    stage: str = ""
    share: float = 0.0
    left: float | None = None
    error: str | None = None

    def told(self) -> dict[str, Any]:
        keys = ("number", "name", "state", "stage", "share", "left", "error")
        return {key: getattr(self, key) for key in keys}


class Jobs:
    """A queue of commands and who runs them. All of it belongs to one event loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._wanted = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    def add(self, words: Callable[[], list[str]], name: str) -> Job | None:
        """Have a command run when those before it have ended; None where too many wait."""
        if sum(job.state == "waiting" for job in self._jobs.values()) >= WAITING:
            return None
        job = Job(next(self._numbers), words, clean(name))
        self._jobs[job.number] = job
        ended = [n for n, old in self._jobs.items() if old.state in ("done", "failed", "stopped")]
        for number in ended[:-KEPT]:
            del self._jobs[number]
        self._wanted.set()
        return job

    def stop(self, number: int) -> bool:
        """Stop a job, or take it from the queue; False where it does neither run nor wait."""
        job = self._jobs.get(number)
        if job is None or job.state not in ("waiting", "running"):
            return False
        if job.state == "running" and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        job.state = "stopped"
        return True

    def told(self) -> list[dict[str, Any]]:
        """All jobs, the newest first."""
        return [job.told() for job in reversed(self._jobs.values())]

    async def run(self) -> None:
        """Run what is wanted until this is cancelled, which stops what runs."""
        while True:
            job = next((job for job in self._jobs.values() if job.state == "waiting"), None)
            if job is None:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                await self._one(job)
            except (OSError, VTSumError) as error:
                job.state, job.error = "failed", one_line(str(error))

    async def _one(self, job: Job) -> None:
        job.state = "running"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vtsum", *job.words()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE,
            env=environment,
        )
        assert process.stderr is not None
        said: list[str] = []
        try:
            if job.state == "stopped":  # while its process began
                process.terminate()
            with contextlib.suppress(ValueError):  # a line beyond all measure
                async for line in process.stderr:
                    _heed(job, line.decode("utf-8", "replace"), said)
            code = await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(process)
            self._process = None
        if job.state == "stopped":
            return
        if code == 0:
            job.state, job.share = "done", 1.0
        else:
            job.state, job.error = "failed", said[-1] if said else f"its process ended with status {code}"

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def _heed(job: Job, line: str, said: list[str]) -> None:
    """A line of a command's: how far it is, as --progress json tells it, or something to be told."""
    text = line
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(line)
        if "message" in found:
            text = str(found["message"])
        else:
            job.stage = STAGES.get(found["stage"], clean(str(found["stage"])))
            job.share = min(max(found["done"] / max(found["total"], 1), 0.0), 1.0)
            job.left = None if found["eta"] is None else max(float(found["eta"]), 0.0)
            return
    if text := one_line(text)[:2000]:
        said.append(text)
        del said[:-50]
