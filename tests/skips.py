"""A pytest plugin that writes every skipped test to a file, so that a runner can refuse silent gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import pytest


class Skip(TypedDict):
    """One line of the file: the test (or the file that was skipped whole), why, and whether it is marked gpu."""

    test: str
    reason: str
    gpu: bool


class SkipReport:
    """Collects skips of tests and of whole files, and writes them as JSON lines when the session ends.

    An expected failure is no skip. The file is written even if nothing was skipped: a missing one means no tests ran.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skips: dict[str, Skip] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._add(report.nodeid, report.longrepr, "gpu" in report.keywords)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._add(report.nodeid, report.longrepr, False)

    def pytest_sessionfinish(self) -> None:
        self.path.write_text("".join(json.dumps(skip) + "\n" for skip in self.skips.values()), encoding="utf-8")

    def _add(self, test: str, longrepr: object, gpu: bool) -> None:
        reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        self.skips[test] = Skip(test=test, reason=str(reason).removeprefix("Skipped: "), gpu=gpu)


def refused(path: Path) -> list[str]:
    """What must not have been skipped, one line a test: everything in the report that is not marked gpu."""
    skips = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [f"{skip['test']}: {skip['reason']}" for skip in skips if not skip["gpu"]]


if __name__ == "__main__":
    import sys

    lines = refused(Path(sys.argv[1]))
    for line in lines:
        print(f"skipped, though only a GPU test may be: {line}", file=sys.stderr)
    sys.exit(1 if lines else 0)
