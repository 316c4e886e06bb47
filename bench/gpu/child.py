"""Programs that a part starts: their lines arrive while they run, and one that broke the GPU is started again.

An error of a kernel stays with its process, which can do nothing more on the GPU then. What measures therefore runs in
processes of its own; they write their lines to a file that the part reads on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Line
from bench.kit.record import append, read

#: The exit status of a program that found the GPU broken, and left out what broke it when it is started again.
BROKEN = 3
TRIES = 6
#: Seconds that a program may take to notice that its time is over.
GRACE = 3.0


class Teller:
    """In a program: says lines and facts to the part that started it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def line(self, *line: Any) -> None:
        """With a `Line`'s arguments."""
        append(self.path, {"line": dataclasses.asdict(Line(*line))})

    def failed(self, check: str, error: BaseException) -> None:
        """What a missing package is, is absent; any other error is a failure."""
        if isinstance(error, ImportError):
            self.line(check, "absent", f"{error.name} is not installed")
        else:
            self.line(check, "failed", f"{type(error).__name__}: {str(error)[:200]}")

    def facts(self, **facts: Any) -> None:
        append(self.path, {"facts": facts})


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every program gets."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tell", type=Path, required=True, help="the file for lines")
    made.add_argument("--out", type=Path, required=True, help="the folder of results")
    made.add_argument("--run", required=True, help="names the run in records")
    made.add_argument("--device", choices=("cpu", "cuda"), required=True)
    made.add_argument("--until", type=float, required=True, help="when to be done, on time.monotonic's clock")
    made.add_argument("--dry-run", action="store_true", help="tiny shapes")
    return made


def command_of(context: Context, module: str, words: Sequence[str], until: float, tell: Path) -> list[str]:
    """Also makes room for what the program tells."""
    tell.parent.mkdir(parents=True, exist_ok=True)
    tell.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, *words, "--tell", str(tell), "--out", str(context.out)]
    command += ["--run", context.run, "--device", context.device, "--until", str(until)]
    return [*command, "--dry-run"] if context.dry_run else command


def follow(
    context: Context, module: str, *words: str, until: float, environment: Mapping[str, str] | None = None
) -> Iterator[Line]:
    """Runs ``python -m module`` with `words`, and yields its lines as it says them; its facts become the context's.

    Args:
        until: when it must be done, on `time.monotonic`'s clock; it is killed soon after.
        environment: variables beside the context's.
    Yields:
        Line: its own; and a failed one where it ends otherwise than with status 0, or breaks the GPU too often.
    """
    name = module.rsplit(".", 1)[-1]
    tell = context.scratch / f"{name}.lines.jsonl"
    command, read_on = command_of(context, module, words, until, tell), 0
    for attempt in range(1, TRIES + 1):
        with context.start(command, until + GRACE - time.monotonic(), environment) as program:
            while True:
                done = program.done()
                news = read(tell)[read_on:]
                read_on += len(news)
                for said in news:
                    context.note(**said.get("facts", {}))
                    if "line" in said:
                        yield Line(**said["line"])
                if done is not None:
                    break
                time.sleep(0.1)
        context.log(
            f"== {module} {' '.join(words)}: status {done.status}, {done.seconds:.1f} s\n{done.output[-20_000:]}"
        )
        if done.ok:
            return
        if done.status != BROKEN or attempt == TRIES:
            yield Line(name, "failed", done.why())
            return
