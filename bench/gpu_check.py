"""Build, test and measure the kernels on this machine's GPU, unattended.

    python -m bench.gpu_check --out DIR [--part build|tests|kernels|model|all] [--minutes 10] [--tune] [--dry-run]

Needs no installation, no network and no git: torch with CUDA, nvcc, a C++ compiler and what the parts say is absent.
Writes into the tree (kernels/vtsum_kernels/*.so, build/gpu) and into DIR, where at most eight files come to lie:

    check.jsonl   every line of the table as soon as it is known, and the facts about the machine
    table.md      the table; log.txt what all programs printed; tests.txt the tests' failures and durations
    sliding_window_attention.jsonl, memory_retrieval.jsonl, training_step.jsonl   records as `bench.run` makes them
    tuned.json    with --tune: the best choices for each shape, which the kernels read

Each part runs in a process of its own for its share of the minutes, and is ended where it outlives it; the time that a
part leaves over is the next one's. Ends with status 1 where something failed, 0 where nothing did: what this machine
lacks is absent, not failed. --dry-run goes through everything on the CPU, with tiny shapes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from bench.gpu import machine
from bench.gpu.stage import CHECK, FILES, LOG, SCRATCH, TABLE, TESTS, Context, Line, call, noted, record, recorded
from bench.gpu.table import final, shorter
from bench.gpu.worker import to_json
from vtsum.files import write_text, written

#: Each part's module, and its share of the time: in ten minutes, seconds.
PARTS: dict[str, tuple[str, float]] = {
    "build": ("bench.gpu.build", 180),
    "tests": ("bench.gpu.tests", 150),
    "kernels": ("bench.gpu.kernels", 150),
    "model": ("bench.gpu.model", 90),
}
RESERVE = 30 / 600
"""What is kept for looking at the machine and for the table."""
TUNING = 3
"""With --tune, the kernels' share is so much larger."""
GRACE = 5.0
"""Seconds, at most, between a part's deadline and its end by force."""
LARGEST = 15 * 2**20
"""Bytes that a file of results may have; logs are cut in the middle."""


class Interrupted(SystemExit):
    """Somebody ended the check; its status says with which signal."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument("--part", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it (default 10)")
    parser.add_argument("--tune", action="store_true", help="search the best block sizes first; writes tuned.json")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny shapes")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        raise SystemExit(f"gpu_check: --minutes must be more than 0, got {options.minutes}")
    return options


def allowances(parts: Sequence[str], seconds: float, tune: bool) -> dict[str, float]:
    """Seconds for each part: the time without the reserve, by the parts' shares."""
    shares = {part: PARTS[part][1] * (TUNING if tune and part == "kernels" else 1) for part in parts}
    return {part: seconds * (1 - RESERVE) * share / sum(shares.values()) for part, share in shares.items()}


class Check:
    """One run of the check."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.began = time.monotonic()
        self.parts = list(PARTS) if options.part == "all" else [options.part]
        self.seconds = 60 * options.minutes
        now = datetime.now(UTC)
        self.context = Context(
            out=options.out.resolve(),
            device="cpu" if options.dry_run else "cuda",
            dry_run=options.dry_run,
            deadline=self.began + self.seconds * (1 - RESERVE),
            tune=options.tune,
            facts={},
            scratch=SCRATCH / f"dry-{os.getpid()}" if options.dry_run else SCRATCH,
            run=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        self.context.out.mkdir(parents=True, exist_ok=True)
        there = [name for name in FILES if (self.context.out / name).exists()]
        if there and CHECK not in there:
            raise SystemExit(
                f"gpu_check: --out must be new or hold earlier results, got {options.out} with another {there[0]}"
            )
        self.strangers = {path.name for path in self.context.out.iterdir()} - set(FILES)
        self.shown = 0

    def say(self, part: str, line: Line) -> None:
        record(self.context, part, line)
        self.show()

    def show(self) -> None:
        """Prints what is new in the record."""
        lines = recorded(self.context)
        for part, line in lines[self.shown :]:
            print(f"[{time.monotonic() - self.began:4.0f} s] {part}: {shorter(line.check)}: {line.result}", end="")
            print(f": {shorter(line.detail)}" if line.detail else "", flush=True)
        self.shown = len(lines)

    def head(self) -> list[str]:
        kind = "dry run on the CPU: no number below means anything" if self.context.dry_run else "GPU check"
        took = f"{self.context.run}, {time.monotonic() - self.began:.0f} of {self.seconds:.0f} s"
        return [f"{kind}, {took}", *machine.words(self.context.facts)] if self.context.facts else [f"{kind}, {took}"]

    def write_table(self) -> str:
        text = final(self.head(), recorded(self.context))
        write_text(self.context.out / TABLE, text)
        return text

    def look(self, environment: Mapping[str, str]) -> None:
        self.context.note(**machine.facts(self.context.left(), environment, self.context.out / LOG))
        for line in machine.words(self.context.facts):
            print(line, flush=True)
        self.context.log("\n".join(machine.words(self.context.facts)))

    def run_part(self, part: str, seconds: float, environment: Mapping[str, str]) -> None:
        context = self.context
        if not context.dry_run and part != "build" and context.facts["gpu"] is None:
            why = context.facts.get("torch_failed", "torch finds no GPU (--dry-run needs none)")
            self.say(part, Line(part, "failed", why))
            return
        if seconds < 1:
            self.say(part, Line(part, "skipped", "no time was left to begin it"))
            return
        grace = min(GRACE, seconds / 10)
        told = replace(context, deadline=time.monotonic() + seconds - grace, facts=noted(context))
        context.log(f"==> {part}, {seconds:.0f} s")
        command = [sys.executable, "-m", "bench.gpu.worker", part, PARTS[part][0], to_json(told)]
        done = call(command, seconds, environment, poll=self.show, log=context.out / LOG)
        if not done.ok:
            self.say(part, Line(part, "failed", f"{done.why()}; what it had said by then stands"))
        elif not any(name == part for name, _ in recorded(context)):
            self.say(part, Line(part, "failed", "it said nothing"))
        self.context.facts = noted(context)

    def run(self) -> int:
        environment = machine.environment(self.context.scratch)
        waiting = list(self.parts)
        try:
            self.look(environment)
            shares = allowances(self.parts, self.seconds, self.context.tune)
            while waiting:
                part = waiting[0]
                left = self.context.left() - sum(shares[later] for later in waiting[1:])
                self.run_part(part, left, environment)
                waiting.pop(0)
                self.write_table()
            if not self.context.dry_run:
                self.context.note(card_afterwards=machine.card(self.context.out / LOG))
        except Interrupted:
            for number, part in enumerate(waiting):
                begun = number == 0 and self.context.facts
                self.say(part, Line(part, "failed" if begun else "skipped", "the check was interrupted"))
            raise
        finally:
            self.tidy()
            print("\n" + self.write_table(), flush=True)
            if self.context.dry_run:
                shutil.rmtree(self.context.scratch, ignore_errors=True)
        return int(any(line.result == "failed" for _, line in recorded(self.context)))

    def tidy(self) -> None:
        """Results stay few and small: they come back over a narrow way."""
        out = self.context.out
        for name in (LOG, TESTS):
            cut(out / name, LARGEST)
        found = {path.name: path for path in out.iterdir()}
        strange = sorted(set(found) - set(FILES) - self.strangers)
        large = sorted(name for name in set(found) & set(FILES) if found[name].stat().st_size > LARGEST)
        for names, what in ((strange, "not a file of results"), (large, f"over {LARGEST // 2**20} MiB")):
            if names:
                self.say("results", Line(", ".join(names), "failed", what))


def cut(path: Path, size: int) -> None:
    """Leaves the beginning and the end of a text that is too long."""
    if not path.exists() or path.stat().st_size <= size:
        return
    text = path.read_bytes()
    left_out = f"\n... {len(text) - 2 * (size // 2 - 64)} bytes left out ...\n"
    with written(path) as part:
        part.write_bytes(text[: size // 2 - 64] + left_out.encode() + text[-(size // 2 - 64) :])


def stop_on_signals() -> Callable[[], None]:
    """SIGTERM, SIGINT and SIGHUP end the check with a table of what is known; returns what undoes that."""

    def stop(number: int, frame: FrameType | None) -> None:
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)  # the table comes first now
        raise Interrupted(128 + number)

    before: dict[int, Any] = {
        number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    undo = stop_on_signals()
    try:
        return Check(options).run()
    finally:
        undo()


if __name__ == "__main__":
    sys.exit(main())
