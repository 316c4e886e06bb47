"""Runs the tests marked gpu, in several processes at once; a line for each file of tests.

In a dry run it is a handful of tests that need no GPU, through the same processes: on the CPU, in Triton's interpreter
and in the emulator of a thread block.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.share import BROKEN, VARIABLE
from bench.gpu.stage import ROOT, TESTS, Context, Done, Line, call
from bench.kit.record import read

PROCESSES = 12
STARTS = 5
"""How often each of them may begin again after an error took its GPU away, or it died."""
MARGIN = 3.0
"""Seconds before the deadline to end the tests and write down how they went."""
SLOWEST = 25
NOT_RUN = ("left out", "not collected")

#: Words for pytest in a dry run, and variables for it.
DRY = ["tests/kernels/test_sliding_window_attention.py", "tests/kernels/test_triton_numbers.py"]
DRY += ["tests/emulator/test_emulator.py", "-k", "test_scale or strip-short or test_shuffles_and_votes"]
DRY_VARIABLES = {"TRITON_INTERPRET": "1"}


@dataclass
class File:
    """What became of the tests of one file."""

    name: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last result of each test."""

    def line(self) -> Line:
        counts = Counter(result["outcome"] for result in self.results.values())
        seconds = sum(result["seconds"] for result in self.results.values())
        names = ("passed", "failed", "skipped", "begun", "left out", "not collected")
        said = ", ".join(f"{counts[name]} {name}" for name in names if counts[name])
        failed = [r for r in self.results.values() if r["outcome"] in ("failed", "begun")]
        broken = [r for r in self.results.values() if r["outcome"] == "not collected"]
        why = Counter(r["text"] for r in self.results.values() if r["outcome"] in ("skipped", "left out"))
        if failed:
            first = failed[0]
            text = first["text"] or "it did not end"
            return Line(self.name, "failed", f"{said}; {first['test'].partition('::')[2]}: {text}")
        if broken:
            text = broken[0]["text"]
            return Line(self.name, "absent" if "ModuleNotFoundError" in text else "failed", f"{said}: {text}")
        most = f"; {why.most_common(1)[0][0]}" if why else ""
        if not counts["passed"]:
            return Line(self.name, "absent", said + most)
        return Line(self.name, "ok", f"{said} in {seconds:.0f} s{most}")


def run(context: Context, root: Path = ROOT) -> Iterator[Line]:
    words = DRY if context.dry_run else ["-m", "gpu", *files(root)]
    yield from shared_out(context, words, DRY_VARIABLES if context.dry_run else {}, root)


def shared_out(context: Context, words: Sequence[str], variables: Mapping[str, str], root: Path) -> Iterator[Line]:
    """Runs ``pytest`` with these words and variables, spread over processes."""
    processes = 1 if context.dry_run else max(1, min(PROCESSES, (os.cpu_count() or 2) * 3 // 4))
    place = context.scratch / "tests"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with ThreadPoolExecutor(processes) as pool:
        jobs = [
            pool.submit(one_process, context, n, words, variables, place, processes, root) for n in range(processes)
        ]
    ends = [job.result() for job in jobs]
    found = results(place)
    report(context, words, [done for dones in ends for done in dones], found)
    for file in found:
        yield file.line()
    yield from endings(place, ends, found)


def files(root: Path) -> list[str]:
    """The kernels' tests, whose marks also come from fixtures, and whatever other file marks a test gpu itself."""
    others = [
        str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        if "kernels" not in path.relative_to(root).parts and marks_gpu(path.read_text(encoding="utf-8"))
    ]
    return [*others, "tests/kernels"]  # those others take long: they begin at once


def marks_gpu(source: str) -> bool:
    """Whether a file says `pytest.mark.gpu`, otherwise than inside of a text."""
    return "mark.gpu" in source and any(
        isinstance(node, ast.Attribute)
        and node.attr == "gpu"
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "mark"
        for node in ast.walk(ast.parse(source))
    )


def one_process(
    context: Context, number: int, words: Sequence[str], variables: Mapping[str, str], place: Path, of: int, root: Path
) -> list[Done]:
    """pytest over its share of the tests, begun anew where an error took the GPU from it."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "bench.gpu.share", "-p", "no:cacheprovider"]
    # Of the plugins that other packages bring, none is needed but one.
    command += ["-p", "_hypothesis_pytestplugin"] if find_spec("_hypothesis_pytestplugin") else []
    told = {**variables, VARIABLE: f"{place}:{number}:{of}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    path = [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    told["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    ends: list[Done] = []
    while len(ends) < STARTS:
        arguments = [*command, "--continue-on-collection-errors", *words]
        ends.append(call(arguments, context.left() - MARGIN, told, cwd=root))
        died = ends[-1].status is not None and (ends[-1].status < 0 or ends[-1].status == BROKEN)
        if not died:
            break
    return ends


def results(place: Path) -> list[File]:
    """What the processes wrote down, by file of tests: an error stands, even where a later phase of the test passed."""
    found: dict[str, File] = {}
    for path in sorted(place.glob("results-*.jsonl")):
        for result in read(path):
            name = result["test"].partition("::")[0] or "tests"
            known = found.setdefault(name, File(name)).results
            before = known.get(result["test"])
            if before is None or before["outcome"] != "failed":
                known[result["test"]] = result
    return [found[name] for name in sorted(found)]


def endings(place: Path, ends: Sequence[Sequence[Done]], found: Sequence[File]) -> Iterator[Line]:
    """What else there is to say: tests that nobody came to, processes that died, a run without tests."""
    last = [dones[-1] for dones in ends]
    collected = max((int(path.read_text()) for path in place.glob("collected-*")), default=0)
    begun = sum(result["outcome"] not in NOT_RUN for file in found for result in file.results.values())
    stopped = sum(done.status is None for done in last)
    # 0: passed; 1: tests failed, which their lines say; 5: this process found no test, or every one taken.
    odd = [done for done in last if done.status not in (None, 0, 1, 5)]
    if begun < collected or stopped:
        why = f"{stopped} of {len(last)} processes had no time left" if stopped else "processes died"
        yield Line("all tests", "failed", f"{collected - begun} of {collected} tests were not run: {why}")
    if odd:
        yield Line("all tests", "failed", f"{len(odd)} of {len(last)} processes: {odd[0].why()}")
    if not collected and not stopped and not odd:
        yield Line("all tests", "failed", f"no tests were found: {last[0].why()}")


def report(context: Context, words: Sequence[str], ends: Sequence[Done], found: Sequence[File]) -> None:
    """Adds the tests' failures and durations to tests.txt."""
    every = [result for file in found for result in file.results.values()]
    slowest = sorted(every, key=lambda r: -r["seconds"])[:SLOWEST]
    text = [f"==> pytest {' '.join(words)}"]
    text += [f"{result['outcome']:8} {result['seconds']:8.2f} s  {result['test']}" for result in slowest]
    text += [done.output for done in ends]
    with (context.out / TESTS).open("a", encoding="utf-8") as file:
        file.write("\n".join(text) + "\n")
