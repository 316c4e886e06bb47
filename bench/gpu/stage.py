"""What the parts of the GPU check share: what a part is told, what it says, and programs that end in time.

A part is a module `bench.gpu.NAME` with `run(context) -> Iterator[Line]`: each line that it yields is on the disk
before the part goes on, and an exception becomes a failed line. What takes long or may break is done by programs that
it starts, which `context.deadline` ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.kit.record import ROOT, append, read

SCRATCH = ROOT / "build" / "gpu"
CHECK, TABLE, LOG, TESTS, TUNED = "check.jsonl", "table.md", "log.txt", "tests.txt", "tuned.json"
Result = Literal["ok", "failed", "absent", "skipped"]
Command = Sequence[str | os.PathLike[str]]


_uninterrupted = False
_came: list[BaseException] = []


def interrupt(error: BaseException) -> None:
    """For a handler of signals: raise an error, within `uninterrupted` at its end."""
    if not _uninterrupted:
        raise error
    _came.append(error)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Around the beginning of a program: before its number is known, an interruption would leave it behind."""
    global _uninterrupted
    _uninterrupted = True
    try:
        yield
    finally:
        _uninterrupted = False
    if _came:
        raise _came.pop()


@dataclass(frozen=True)
class Line:
    """One line of the final table.

    Args:
        check: what was looked at, in a few words.
        result: "failed": wrong numbers, an error, no time left in the middle; "absent": the machine lacks what it
            needs; "skipped": not tried, e.g. because no time was left to begin it.
        detail: one short line; why, unless it is ok.
        share_of_roofline: reached part of what the measured copy or product allows, 0 to 1.
        ratio_to_best_rival: the fastest rival's time over ours; above 1 we are faster.
        of_prediction: our time over what `bench.gpu.cost` predicts; bound: what that is bound by.
    """

    check: str
    result: Result
    detail: str = ""
    share_of_roofline: float | None = None
    ratio_to_best_rival: float | None = None
    of_prediction: float | None = None
    bound: str = ""


@dataclass
class Context:
    """What a part is told.

    Args:
        out: the folder of results.
        device: "cuda", or "cpu" in a dry run, which goes through everything with tiny shapes.
        deadline: when the part must be done, on `time.monotonic`'s clock, which all processes of a machine share.
        facts: of the machine, and what earlier parts noted.
        scratch: for files nobody needs afterwards.
        run: names this run in every record.
        environment: variables for every program, beside those that are set.
    """

    out: Path
    device: str
    dry_run: bool
    deadline: float
    tune: bool
    facts: dict[str, Any]
    scratch: Path = SCRATCH
    run: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds until the part must be done; below 0 where it is late."""
        return self.deadline - time.monotonic()

    def note(self, **facts: Any) -> None:
        """Adds facts, for this part, for those after it and for the record."""
        self.facts.update(facts)
        append(self.out / CHECK, {"run": self.run, "facts": facts})

    def log(self, text: str) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / LOG).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text.rstrip("\n") + "\n")

    def say(self, part: str, line: Line) -> None:
        """Adds a line of a part to check.jsonl; it is on the disk when this returns."""
        append(self.out / CHECK, {"run": self.run, "part": part, "at": time.time(), **asdict(line)})

    def said(self) -> list[tuple[str, Line]]:
        """Every line of this run so far, each with its part."""
        mine = [r for r in read(self.out / CHECK) if r.get("run") == self.run and "part" in r]
        return [(r["part"], Line(*(r[name] for name in Line.__dataclass_fields__))) for r in mine]

    def start(
        self, command: Command, seconds: float, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> Program:
        """What it printed goes to the log where it is cut short."""
        return Program(command, seconds, {**self.environment, **(environment or {})}, cwd, self.log)

    def call(
        self, command: Command, seconds: float, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> Done:
        """Runs a program, at most so long."""
        with self.start(command, seconds, environment, cwd) as program:
            return program.wait()


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


class Program:
    """A program that runs, at most for so many seconds; with the block it is ended, with its whole process group.

    Output and errors are kept together, as they come. A program that does not exist ends with status 127; one that has
    no time is not started.
    """

    def __init__(
        self,
        command: Command,
        seconds: float,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.began, self.seconds, self.log = time.monotonic(), seconds, log
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - the block closes it; a pipe would have to be emptied
        self.process: subprocess.Popen[bytes] | None = None
        self.result = Done(None, "", 0.0) if seconds <= 0 else None
        if self.result is None:
            try:
                with uninterrupted():
                    try:
                        self.process = subprocess.Popen(
                            [os.fspath(part) for part in command],
                            stdin=subprocess.DEVNULL,
                            stdout=self.output,
                            stderr=subprocess.STDOUT,
                            env={**os.environ, **(environment or {})},
                            cwd=cwd,
                            process_group=0,  # not a session: whoever ends our session ends this too
                        )
                    except OSError as error:
                        self.result = Done(127, f"{os.fspath(command[0])}: {error.strerror}", 0.0)
            except BaseException:
                self.end()
                self.output.close()
                raise

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self.result is None:
            self.log(self.printed())
        self.output.close()

    def printed(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def done(self) -> Done | None:
        """How it ended; None while it runs. It is killed when its time is over."""
        if self.result is None and self.process is not None:
            status, took = self.process.poll(), time.monotonic() - self.began
            if status is not None or took >= self.seconds:
                self.end()
                self.result = Done(status, self.printed(), took)
        return self.result

    def wait(self) -> Done:
        while (done := self.done()) is None:
            time.sleep(0.05)
        return done

    def end(self) -> None:
        """Also what it left behind in its process group."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
