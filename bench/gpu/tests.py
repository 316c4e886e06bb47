"""Runs the tests marked gpu, by pytest-xdist in several processes at once; a line for each file of tests.

In a dry run it is a handful of tests that need no GPU, in the same way: on the CPU, in Triton's interpreter and in the
emulator of a thread block. Where pytest-xdist is not installed one process runs them all, which is said.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.pytest_plugin import BROKEN, VARIABLE
from bench.gpu.stage import TESTS, Context, Done, Line
from bench.kit.record import ROOT, read

PROCESSES = 12
STARTS = 5
"""How often each of them may begin again after an error took its GPU away, or it died."""
MARGIN = 3.0
"""Seconds before the deadline to end the tests and write down how they went."""
SLOWEST = 25

#: Words for pytest in a dry run, and variables for it.
DRY = ["tests/kernels/test_sliding_window_attention.py", "tests/kernels/test_triton_numbers.py"]
DRY += ["tests/emulator/test_emulator.py", "-k", "test_scale or strip-short or test_shuffles_and_votes"]
DRY_VARIABLES = {"TRITON_INTERPRET": "1"}


@dataclass
class File:
    """What became of the tests of one file."""

    name: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last result of each test; an error stands, even where a later phase of the test passed."""

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
    yield from by_pytest(context, words, DRY_VARIABLES if context.dry_run else {}, root)


def by_pytest(context: Context, words: Sequence[str], variables: Mapping[str, str], root: Path) -> Iterator[Line]:
    """Runs ``pytest`` with these words and variables."""
    processes = 1 if context.dry_run else max(1, min(PROCESSES, (os.cpu_count() or 2) * 3 // 4))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "bench.gpu.pytest_plugin"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    # Of the plugins that other packages bring, none is needed but these.
    command += ["-p", "_hypothesis_pytestplugin"] if find_spec("_hypothesis_pytestplugin") else []
    shared = find_spec("xdist") is not None
    if shared:
        command += ["-p", "xdist.plugin", "-n", str(processes), "--dist", "worksteal"]
        command += ["--max-worker-restart", str(STARTS * processes)]
    else:
        yield Line("tests in parallel", "absent", "pytest-xdist is not installed: one process runs them all")
    path = [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    context.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
        results = Path(folder, "results.jsonl")
        told = {**variables, VARIABLE: str(results), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        told["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        ends: list[Done] = []
        try:
            while len(ends) < STARTS:
                ends.append(context.call([*command, *words], context.left() - MARGIN, told, cwd=root))
                died = ends[-1].status is not None and (ends[-1].status < 0 or ends[-1].status == BROKEN)
                if not died:
                    break
        except BaseException:  # interrupted: what is known by now stands
            for file in by_file(read(results)):
                context.say("tests", file.line())
            raise
        lines = read(results)
    found = by_file(lines)
    report(context, words, ends, found)
    for file in found:
        yield file.line()
    yield from ending(ends[-1], max((r["collected"] for r in lines if "collected" in r), default=0), found)


def files(root: Path) -> list[str]:
    """The kernels' tests, whose marks also come from fixtures, and whatever other file names the mark."""
    others = [
        str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        if "kernels" not in path.relative_to(root).parts and "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    return [*others, "tests/kernels"]  # those others take long: they begin at once


def by_file(lines: Sequence[dict[str, Any]]) -> list[File]:
    found: dict[str, File] = {}
    for result in lines:
        if "test" in result:
            name = result["test"].partition("::")[0] or "tests"
            known = found.setdefault(name, File(name)).results
            if known.get(result["test"], {}).get("outcome") != "failed":
                known[result["test"]] = result
    return [found[name] for name in sorted(found)]


def ending(last: Done, collected: int, found: Sequence[File]) -> Iterator[Line]:
    """What else there is to say: tests that nobody came to, a process that died, a run without tests."""
    begun = sum(r["outcome"] not in ("left out", "not collected") for file in found for r in file.results.values())
    if begun < collected:
        why = "no time was left" if last.status is None else "processes died"
        yield Line("all tests", "failed", f"{collected - begun} of {collected} tests were not run: {why}")
    # 0: passed; 1: tests failed, which their lines say; 5: there was no test, which is said below.
    if last.status not in (None, 0, 1, 5):
        yield Line("all tests", "failed", last.why())
    elif not collected and not any(file.results for file in found):
        yield Line("all tests", "failed", f"no tests were found: {last.why()}")


def report(context: Context, words: Sequence[str], ends: Sequence[Done], found: Sequence[File]) -> None:
    """Adds the tests' failures and durations to tests.txt."""
    every = [result for file in found for result in file.results.values()]
    slowest = sorted(every, key=lambda r: -r["seconds"])[:SLOWEST]
    text = [f"==> pytest {' '.join(words)}"]
    text += [f"{result['outcome']:8} {result['seconds']:8.2f} s  {result['test']}" for result in slowest]
    text += [done.output for done in ends]
    with (context.out / TESTS).open("a", encoding="utf-8") as file:
        file.write("\n".join(text) + "\n")
