"""Build, test and measure the kernels on this machine's GPU, unattended.

    python -m bench.gpu.check --out DIR [--part build|tests|kernels|model|all] [--minutes 10] [--tune] [--dry-run]

Needs no installation, no network and no git: torch with CUDA, nvcc, a C++ compiler and what the parts say is absent.
Writes into the tree (kernels/vtsum_kernels/*.so, build/gpu) and into DIR:

    check.jsonl   every line of the table as soon as it is known, and the facts about the machine
    table.md      the table; log.txt what all programs printed; tests.txt the tests' failures and durations
    OP.jsonl for each op, training_step.jsonl, encoder.jsonl   records as the benchmarks make them
    tuned.json    with --tune: the best choices for each shape, which the kernels read

Each part has its share of the minutes, and its programs are ended where they outlive it; the time that a part leaves
over is the next one's. Ends with status 1 where something failed, 0 where nothing did: what this machine
lacks is absent, not failed. --dry-run goes through everything on the CPU, with tiny shapes.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from bench.gpu import machine
from bench.gpu.advice import next_steps
from bench.gpu.stage import CHECK, LOG, SCRATCH, TABLE, TESTS, TUNED, Context, Line, interrupt
from bench.gpu.table import final, shorter
from bench.kit.record import run_name

#: Each part's module, and its share of the time: in ten minutes, seconds.
PARTS: dict[str, tuple[str, float]] = {
    "build": ("bench.gpu.build", 180),
    "tests": ("bench.gpu.tests", 150),
    "kernels": ("bench.gpu.kernels", 150),
    "model": ("bench.gpu.model", 90),
}
#: What is kept for looking at the machine and for the table.
RESERVE = 30 / 600
#: With --tune, the kernels' share is so much larger.
TUNING = 3
OURS = ("bench", "vtsum", "vtsum_kernels", "tests")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(SystemExit):
    """Somebody ended the check; its status says with which signal."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument("--part", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it (default 10)")
    parser.add_argument("--tune", action="store_true", help="search the best block sizes first; writes tuned.json")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny shapes")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        raise SystemExit(f"gpu_check: --minutes must be more than 0, got {options.minutes}")
    there = [name for name in (CHECK, TABLE, LOG, TESTS, TUNED) if (options.out / name).exists()]
    if there and CHECK not in there:
        raise SystemExit(
            f"gpu_check: --out must be new or hold earlier results, got {options.out} with another {there[0]}"
        )
    return options


def allowances(parts: Sequence[str], seconds: float, tune: bool) -> dict[str, float]:
    """Seconds for each part: the time without the reserve, by the parts' shares."""
    shares = {part: PARTS[part][1] * (TUNING if tune and part == "kernels" else 1) for part in parts}
    return {part: seconds * (1 - RESERVE) * share / sum(shares.values()) for part, share in shares.items()}


def what_went_wrong(part: str, error: BaseException) -> Line:
    """A missing package of others is absent; all else has failed."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OURS:
        return Line(part, "absent", f"the package {error.name} is not installed")
    return Line(part, "failed", traceback.format_exception_only(error)[-1].strip().splitlines()[0])


class Check:
    """One run of the check."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.began = time.monotonic()
        self.parts = list(PARTS) if options.part == "all" else [options.part]
        self.seconds = 60 * options.minutes
        SCRATCH.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="dry-", dir=SCRATCH)) if options.dry_run else SCRATCH
        options.out.mkdir(parents=True, exist_ok=True)
        self.context = Context(
            out=options.out.resolve(),
            device="cpu" if options.dry_run else "cuda",
            dry_run=options.dry_run,
            deadline=self.began + self.seconds * (1 - RESERVE),
            tune=options.tune,
            facts={},
            scratch=scratch,
            run=run_name(),
            environment=machine.environment(scratch),
        )

    def say(self, part: str, *line: Line) -> None:
        for one in line:
            self.context.say(part, one)
            said = f"{shorter(one.check)}: {one.result}" + (f": {shorter(one.detail)}" if one.detail else "")
            print(f"[{time.monotonic() - self.began:4.0f} s] {part}: {said}", flush=True)

    def write_table(self) -> str:
        kind = "dry run on the CPU: no number below means anything" if self.context.dry_run else "GPU check"
        head = [f"{kind}, {self.context.run}, {time.monotonic() - self.began:.0f} of {self.seconds:.0f} s"]
        facts = self.context.facts
        lines = self.context.said()
        steps = [] if self.context.dry_run else next_steps(lines, self.context.tune)
        text = final([*head, *(machine.words(facts) if facts else [])], lines, steps)
        (self.context.scratch / TABLE).write_text(text, encoding="utf-8")
        shutil.copyfile(self.context.scratch / TABLE, self.context.out / TABLE)
        return text

    def run_part(self, part: str, seconds: float) -> None:
        context = self.context
        if not context.dry_run and part != "build" and context.facts["gpu"] is None:
            why = context.facts.get("torch_failed", "torch finds no GPU (--dry-run needs none)")
            return self.say(part, Line(part, "failed", why))
        if seconds < 1:
            return self.say(part, Line(part, "skipped", "no time was left to begin it"))
        context.log(f"==> {part}, {seconds:.0f} s")
        silent = True
        try:
            told = replace(context, deadline=time.monotonic() + seconds)
            for line in importlib.import_module(PARTS[part][0]).run(told):
                self.say(part, line)
                silent = False
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:
            context.log(f"{part}: {traceback.format_exc()}")
            return self.say(part, what_went_wrong(part, error))
        if silent:
            self.say(part, Line(part, "failed", "it said nothing"))

    def run(self) -> int:
        waiting = list(self.parts)
        try:
            self.context.note(**machine.facts(self.context))
            words = "\n".join(machine.words(self.context.facts))
            print(words, flush=True)
            self.context.log(words)
            shares = allowances(self.parts, self.seconds, self.context.tune)
            while waiting:
                self.run_part(waiting[0], self.context.left() - sum(shares[later] for later in waiting[1:]))
                waiting.pop(0)
                self.write_table()
            if not self.context.dry_run:
                self.context.note(card_afterwards=machine.card(self.context))
        except Interrupted:
            for number, part in enumerate(waiting):
                begun = number == 0 and self.context.facts
                self.say(part, Line(part, "failed" if begun else "skipped", "the check was interrupted"))
            raise
        finally:
            print("\n" + self.write_table(), flush=True)
            if self.context.dry_run:
                shutil.rmtree(self.context.scratch, ignore_errors=True)
        return int(any(line.result == "failed" for _, line in self.context.said()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Signals end the check with a table of what is known."""

    def stop(number: int, frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)  # the table comes first now
        interrupt(Interrupted(128 + number))

    options = parse(arguments)
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        return Check(options).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
