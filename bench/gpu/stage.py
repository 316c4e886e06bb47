"""What the parts of the GPU check share: what a part is told, what it says, and programs that end in time.

A part is a module `bench.gpu.NAME` with `run(context) -> Iterator[Line]`. It runs in a process of its own, which
`bench.gpu.worker` starts: each line that it yields is on the disk before the part goes on; an exception becomes a
failed line; and a part that is not done by `context.deadline` is killed soon after, with all processes it started.
So a part looks at `context.left()` before each thing it begins, and yields what it knows as soon as it knows it.
With `context.tune`, the part `kernels` first searches the best choices and then measures with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.kit.record import ROOT, append, read

SCRATCH = ROOT / "build" / "gpu"

Result = Literal["ok", "failed", "absent", "skipped"]
RESULTS: tuple[Result, ...] = ("ok", "failed", "absent", "skipped")


@dataclass(frozen=True)
class Line:
    """One line of the final table.

    Args:
        check: what was looked at, in a few words, e.g. "sliding_window_attention fwd bf16 T 8192 w 5".
        result: "ok"; "failed": wrong numbers, an error, no time left in the middle; "absent": the machine lacks what
            it needs; "skipped": not tried, e.g. because no time was left to begin it.
        detail: one short line; why, unless it is ok.
        share_of_roofline: reached part of what the measured copy or product allows, 0 to 1.
        ratio_to_best_rival: the fastest rival's time over ours; above 1 we are faster.
    """

    check: str
    result: Result
    detail: str = ""
    share_of_roofline: float | None = None
    ratio_to_best_rival: float | None = None

    def __post_init__(self) -> None:
        if self.result not in RESULTS:
            raise ValueError(f"Line: result must be one of {', '.join(RESULTS)}, got {self.result}")


@dataclass
class Context:
    """What a part is told.

    Args:
        out: the folder of results; a part writes only the files that `bench.gpu.check` names there.
        device: "cuda", or "cpu" in a dry run.
        dry_run: go through everything with tiny shapes, on the CPU; the numbers mean nothing.
        deadline: when the part must be done, on `time.monotonic`'s clock, which all processes of a machine share.
        tune: search the best block sizes, warps, stages and strip lengths, and write them to `out`/tuned.json.
        facts: of the machine, as `bench.gpu.check` found them, and what earlier parts noted.
        scratch: for files nobody needs afterwards.
        run: names this run in every record.
    """

    out: Path
    device: str
    dry_run: bool
    deadline: float
    tune: bool
    facts: dict[str, Any]
    scratch: Path = field(default=SCRATCH)
    run: str = ""

    def left(self) -> float:
        """Seconds until the part must be done; below 0 where it is late."""
        return self.deadline - time.monotonic()

    def note(self, **facts: Any) -> None:
        """Adds facts, for this part, for those after it and for the record."""
        self.facts.update(facts)
        append(self.out / CHECK, {"run": self.run, "facts": facts})

    def log(self, text: str) -> None:
        """Adds lines to the log."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / LOG).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text.rstrip("\n") + "\n")


#: The files of `Context.out`; there may be no others.
CHECK, TABLE, LOG, TESTS, TUNED = "check.jsonl", "table.md", "log.txt", "tests.txt", "tuned.json"
MEASURED = ("sliding_window_attention.jsonl", "memory_retrieval.jsonl", "training_step.jsonl")
FILES = (CHECK, TABLE, LOG, TESTS, TUNED, *MEASURED)


def record(context: Context, part: str, line: Line) -> None:
    """Adds a line of a part to check.jsonl; it is on the disk when this returns."""
    append(context.out / CHECK, {"run": context.run, "part": part, "at": time.time(), **asdict(line)})


def recorded(context: Context) -> list[tuple[str, Line]]:
    """Every line of this run so far, each with its part."""
    names = Line.__dataclass_fields__
    return [
        (r["part"], Line(**{name: r[name] for name in names}))
        for r in read(context.out / CHECK)
        if r.get("run") == context.run and "part" in r
    ]


def noted(context: Context) -> dict[str, Any]:
    """All facts of this run: what was known and what parts noted."""
    facts = dict(context.facts)
    for r in read(context.out / CHECK):
        if r.get("run") == context.run and "facts" in r:
            facts.update(r["facts"])
    return facts


@dataclass(frozen=True)
class Done:
    """How a program ended: its exit status (None: it was killed for its time), what it printed, and seconds."""

    status: int | None
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 0

    def why(self) -> str:
        """In one short line, why it is not ok."""
        if self.status is None:
            return f"ended after {self.seconds:.0f} s, all the time it had"
        said = [line.strip() for line in self.output.splitlines() if line.strip()]
        end = f"signal {signal.Signals(-self.status).name}" if self.status < 0 else f"status {self.status}"
        return f"{end}: {said[-1][:300]}" if said else end


def call(
    command: Sequence[str | os.PathLike[str]],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    poll: Callable[[], None] | None = None,
    log: Path | None = None,
) -> Done:
    """Runs a program, at most so long; then it is killed, with everything that it started.

    Args:
        command: the program and its arguments. Nothing is read from the standard input.
        seconds: how long it may take; none are left where this is 0 or less, and it is not started then.
        environment: variables beside those that are set.
        poll: called about five times a second meanwhile.
        log: a file that what it prints is added to, as it comes.
    Returns:
        Done: output and errors together, as they came. A program that does not exist ends with status 127.
    """
    began = time.monotonic()
    if seconds <= 0:
        return Done(None, "", 0.0)
    # A file, not a pipe: nobody has to empty it meanwhile.
    with tempfile.TemporaryFile() if log is None else log.open("a+b") as output:
        start = output.seek(0, os.SEEK_END)
        try:
            process = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                process_group=0,  # not a session: whoever ends our session ends this too
            )
        except OSError as error:
            return Done(127, f"{os.fspath(command[0])}: {error.strerror}", 0.0)
        try:
            status = process.poll()
            while status is None and (left := began + seconds - time.monotonic()) > 0:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(0.2, left))
                if poll is not None:
                    poll()
                status = process.poll()
        finally:  # also where we are interrupted
            end(process)
        output.seek(start)
        return Done(status, output.read().decode(errors="replace"), time.monotonic() - began)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a program that leads a process group, and all that it started, in whatever process groups; waits for it."""
    running = process.poll() is None
    family = descendants(process.pid) if running else []
    for pid in (process.pid, *family):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for pid in family:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> list[int]:
    """All processes that a process started, directly or not, as long as those in between live."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            text = stat.read_text(errors="replace")
            parent = int(text.rpartition(")")[2].split()[1])  # a name may hold blanks and brackets
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, look = [], [pid]
    while look:
        new = children.get(look.pop(), [])
        found += new
        look += new
    return found
