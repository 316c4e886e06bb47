"""Changed files given to every parser: it returns or refuses them, in bounded time and memory, and touches nothing.

A few hundred inputs each time, always the same; `make test-slow` tries new ones for FUZZ_MINUTES minutes in all. The
input of a failure is printed: it belongs among the seeds in targets.py. One that took the process along lies in the
test's folder.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz import guard
from tests.fuzz.mutation import inputs
from tests.fuzz.targets import TARGETS, Target
from tests.vtsum.hostile import Payload
from vtsum.errors import VTSumError

EXAMPLES = 150
ROUND = 300  # inputs of the long run before its clock is looked at
PHASES = (Phase.generate, Phase.shrink)


@pytest.fixture
def check(target: Target, tmp_path: Path) -> Callable[[bytes], None]:
    """A function that has a target read an input; what is imported or cached at first use is there already."""
    path = tmp_path / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    target.prepare(tmp_path)
    for seed in target.seeds():
        path.write_bytes(target.wrap(seed))
        with contextlib.suppress(VTSumError):
            target.read(path)
    return lambda data: guard.check(target.read, path, target.wrap(data), target.memory)


def fuzz(target: Target, check: Callable[[bytes], None], examples: int, seed: int) -> None:
    strategy = inputs(target.seeds(), target.tokens, target.is_json)
    options = settings(
        max_examples=examples, deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck)
    )
    hypothesis.seed(seed)(options(given(data=strategy)(lambda data: check(data))))()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_changed_file_is_read_or_refused(target: Target, check: Callable[[bytes], None]) -> None:
    for seed in target.seeds():
        check(seed)
    fuzz(target, check, EXAMPLES, 0)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many_changed_files_are_read_or_refused(
    target: Target, check: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    end = time.monotonic() + 60 * float(os.environ.get("VTSUM_FUZZ_MINUTES", "60")) / len(TARGETS)
    count = 0

    def counted(data: bytes) -> None:
        nonlocal count
        count += 1
        check(data)

    while time.monotonic() < end:
        fuzz(target, counted, ROUND, random.SystemRandom().getrandbits(64))
    with capsys.disabled():
        print(f"\n{target.name}: {count} inputs")


def _loops(path: Path) -> None:
    while True:
        pass


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "another error": (lambda path: path.read_bytes()[10], "index out of range"),
    "code": (lambda path: pickle.loads(path.read_bytes()), r"os\.mkdir"),
    "a file written": (lambda path: path.with_name("new").write_text("x"), r"open .*new"),
    "a process": (lambda path: os.system(":"), r"os\.system"),
    "a word on the terminal": (lambda path: warnings.warn("x", stacklevel=1), "on standard error: x"),
    "endless work": (_loops, "of computing"),
    "much memory": (lambda path: bytearray(100 << 20), "bytes of memory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_parser_is_caught(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 1.0)
    read, reason = BAD[kind]
    data = pickle.dumps(Payload(tmp_path / "mark")) if kind == "code" else b"x"
    with pytest.raises((AssertionError, IndexError), match=reason):
        guard.check(read, tmp_path / "input", data)


def test_what_counting_its_memory_takes_is_no_work_of_a_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.2)

    def read(path: Path) -> None:
        if tracemalloc.is_tracing():
            _loops(path)

    guard.check(read, tmp_path / "input", b"x")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_good_file_is_read(target: Target, tmp_path: Path) -> None:
    """Or else all inputs would be refused for one and the same reason."""
    path = tmp_path / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    target.prepare(tmp_path)
    path.write_bytes(target.wrap(target.seeds()[0]))
    target.read(path)
