"""A pytest plugin: several processes share the tests that each of them collected, and write down each result at once.

    VTSUM_SHARE=FOLDER:NUMBER:OF python -m pytest -p bench.gpu.share ...

pytest-xdist does this too, but need not be there, and a GPU asks for more: an error of a kernel leaves the process
without one, so the process ends then and leaves the other tests to a new one. Each process begins in a place of its own
and goes round; who takes a test first, by a file in FOLDER, runs it. Results are JSON lines in FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from bench.kit.record import read

VARIABLE = "VTSUM_SHARE"
BROKEN = 77
"""The exit status of a process whose GPU no longer answers."""

Item = TypeVar("Item")


class Queue(Generic[Item]):
    """The items of a list, each with its name, that nobody else has taken, from a place in it around to there."""

    def __init__(self, folder: Path, items: Sequence[tuple[str, Item]], number: int, of: int) -> None:
        start = number * len(items) // of
        self.folder, self.number = folder, number
        self.items, self.next = [*items[start:], *items[:start]], 0

    def take(self) -> Item | None:
        while self.next < len(self.items):
            name, item = self.items[self.next]
            self.next += 1
            try:
                with taken(self.folder, name).open("x", encoding="utf-8") as file:
                    file.write(str(self.number))
            except FileExistsError:
                continue
            return item
        return None


def taken(folder: Path, test: str) -> Path:
    """The file that says that somebody took a test."""
    return folder / f"{hashlib.sha256(test.encode()).hexdigest()[:24]}.taken"


class Share:
    """The hooks: which tests this process runs, and what it writes down."""

    def __init__(self, folder: Path, number: int, of: int) -> None:
        self.folder, self.number, self.of = folder, number, of
        results = folder / f"results-{number}.jsonl"
        self.give_back({record["test"] for record in read(results)})
        self.log = results.open("a", encoding="utf-8")

    def give_back(self, begun: set[str]) -> None:
        """A process of our number died: what it had taken and not begun is for all again."""
        kept = {taken(self.folder, test) for test in begun}
        for path in set(self.folder.glob("*.taken")) - kept:
            if path.read_text(encoding="utf-8") == str(self.number):
                path.unlink()

    def write(self, test: str, outcome: str, text: str = "", seconds: float = 0.0) -> None:
        line = {"test": test, "outcome": outcome, "text": text, "seconds": round(seconds, 3)}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(report.nodeid, "not collected", _last_line(report.longreprtext))
        elif report.skipped:
            self.write(report.nodeid, "left out", _reason(report.longrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop: what follows an item must be known before it runs, so it is taken before."""
        if session.config.option.collectonly:
            return True
        (self.folder / f"collected-{self.number}").write_text(str(len(session.items)), encoding="utf-8")
        queue = Queue(self.folder, [(item.nodeid, item) for item in session.items], self.number, self.of)
        item = queue.take()
        while item is not None:
            following = queue.take()
            self.write(item.nodeid, "begun")
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if gpu_is_broken():
                pytest.exit("an error left this process without its GPU", BROKEN)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.write(report.nodeid, "failed", _message(report), report.duration)
        elif report.skipped:
            what = "passed" if hasattr(report, "wasxfail") else "skipped"
            self.write(report.nodeid, what, _reason(report.longrepr), report.duration)
        elif report.when == "call":
            self.write(report.nodeid, "passed", "", report.duration)


def gpu_is_broken() -> bool:
    """Whether this process began to use a GPU, and the GPU answers it no more."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _last_line(text: str) -> str:
    lines = [line.removeprefix("E").strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else ""


def _message(report: pytest.TestReport) -> str:
    """The first line of the error, as pytest shows it in its summary."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = report.longreprtext if crash is None else crash.message
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:400] if lines else ""


def _reason(longrepr: Any) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")[:400]


def pytest_configure(config: pytest.Config) -> None:
    if VARIABLE in os.environ:
        folder, number, of = os.environ[VARIABLE].rsplit(":", 2)
        config.pluginmanager.register(Share(Path(folder), int(number), int(of)), "share")
