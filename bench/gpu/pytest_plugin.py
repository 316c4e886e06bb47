"""A pytest plugin for tests on a GPU: results are on the disk as they come, and who has lost the GPU leaves.

    VTSUM_TEST_RESULTS=FILE python -m pytest -p bench.gpu.pytest_plugin ...

An error of a kernel leaves its process without a GPU, and every test after it would fail. So after a failure the GPU is
asked for an answer, and the process ends where there is none: pytest-xdist begins a new worker for the other tests.
Without xdist whoever started pytest starts it again; what stands in FILE is not run twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.kit.record import append, read

VARIABLE = "VTSUM_TEST_RESULTS"
BROKEN = 77
"""The exit status of a process whose GPU no longer answers."""


def gpu_is_broken() -> bool:
    """Who has not imported torch has no GPU to lose, and need not wait for it."""
    if "torch" not in sys.modules:
        return False
    from bench.kit.clock import gpu_is_broken

    return gpu_is_broken()


class Leave:
    """Where tests run: in each worker, or in the only process."""

    failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Leaving within it, the process has lost this very test, whose failure is known, and no other."""
        self.failed = False
        yield
        if self.failed and gpu_is_broken():
            sys.stdout.flush()
            os._exit(BROKEN)


class Results:
    """Where results arrive: in the process that was started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {r["test"] for r in read(path) if "test" in r and r["outcome"] != "not collected"}

    def write(self, test: str, outcome: str, text: str = "", seconds: float = 0.0) -> None:
        append(self.path, {"test": test, "outcome": outcome, "text": text, "seconds": round(seconds, 3)})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            lines = [line.removeprefix("E").strip() for line in report.longreprtext.splitlines() if line.strip()]
            self.write(report.nodeid, "not collected", lines[-1][:400] if lines else "")
        elif report.skipped:
            self.write(report.nodeid, "left out", _reason(report.longrepr))

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.known]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items or self.known:
            append(self.path, {"collected": len(session.items) + len(self.known)})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        append(self.path, {"collected": len(ids)})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(nodeid, "begun")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = report.longreprtext if crash is None else crash.message
            lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[gw")]
            self.write(report.nodeid, "failed", lines[0][:400] if lines else "", report.duration)
        elif report.skipped:
            what = "passed" if hasattr(report, "wasxfail") else "skipped"
            self.write(report.nodeid, what, _reason(report.longrepr), report.duration)
        elif report.when == "call":
            self.write(report.nodeid, "passed", "", report.duration)


def _reason(longrepr: Any) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")[:400]


def pytest_configure(config: pytest.Config) -> None:
    worker = hasattr(config, "workerinput")
    if VARIABLE in os.environ:
        if worker or not getattr(config.option, "numprocesses", None):
            config.pluginmanager.register(Leave(), "leave")
        if not worker:
            config.pluginmanager.register(Results(Path(os.environ[VARIABLE])), "results")
