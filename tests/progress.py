"""A pytest plugin that draws one progress bar instead of a dot a test, on terminals only."""

from __future__ import annotations

import shutil
import sys
import time

import pytest


class ProgressBar:
    """`[#######.......]  512/1204  42%  2 failed  3 skipped  1:05 left`, redrawn in place; failures stay above it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.total = self.done = self.failed = self.skipped = 0
        self.started = self.drawn = time.monotonic()

    @staticmethod
    def wanted(config: pytest.Config) -> bool:
        """True on a terminal, unless the user asked for names (-v) or for output as it comes (-s)."""
        return sys.stdout.isatty() and config.get_verbosity() <= 0 and config.getoption("capture") != "no"

    def pytest_runtestloop(self, session: pytest.Session) -> None:
        self.started = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """Count as usual, print nothing a test; a failure's own report follows at the end."""
        if hasattr(report, "wasxfail"):
            return ("xfailed" if report.skipped else "xpassed"), "", ""
        if report.failed:
            return ("failed" if report.when == "call" else "error"), "", ""
        if report.skipped:
            return "skipped", "", ""
        return ("passed" if report.when == "call" else ""), "", ""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed += 1
            self._line(f"FAILED {report.nodeid}")
        self.skipped += report.skipped
        if report.when == "teardown":
            self.done += 1
        if time.monotonic() - self.drawn > 0.1 or report.failed:
            self._draw()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.done:
            self._draw()
            print(flush=True)

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        session = self.config.pluginmanager.get_plugin("session")
        self.total = max(getattr(session, "testscollected", 0), self.done)
        share = self.done / max(self.total, 1)
        left = (self.drawn - self.started) * (1 - share) / share if share else 0.0
        counts = "".join(f"  {n} {name}" for n, name in ((self.failed, "failed"), (self.skipped, "skipped")) if n)
        tail = f"  {self.done}/{self.total}  {share:4.0%}{counts}  {int(left) // 60}:{int(left) % 60:02d} left"
        width = max(10, min(40, shutil.get_terminal_size().columns - len(tail) - 3))
        full = round(share * width)
        print(f"\r\x1b[2K[{'#' * full}{'.' * (width - full)}]{tail}", end="", flush=True)

    @staticmethod
    def _line(text: str) -> None:
        print(f"\r\x1b[2K{text}", flush=True)
