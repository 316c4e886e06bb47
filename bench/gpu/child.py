"""Programs that a part starts: their lines arrive while they run, and one that broke the GPU is started again.

An error of a kernel stays with its process, which can do nothing more on the GPU then. What measures therefore runs in
processes of its own; they write their lines to a file that the part reads on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Line, call
from bench.kit.record import append

#: Before the name of a module.
PYTHON = (sys.executable, "-m")
#: The exit status of a program that found the GPU broken, and left out what broke it when it is started again.
BROKEN = 3
TRIES = 6
#: Seconds that a program may take to notice that its time is over.
GRACE = 3.0


class Teller:
    """In a program: says lines and facts to the part that started it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def line(self, line: Line) -> None:
        append(self.path, {"line": dataclasses.asdict(line)})

    def facts(self, **facts: Any) -> None:
        append(self.path, {"facts": facts})


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that `follow` gives to every program."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tell", type=Path, required=True, help="the file for lines")
    made.add_argument("--out", type=Path, required=True, help="the folder of results")
    made.add_argument("--run", required=True, help="names the run in records")
    made.add_argument("--device", choices=("cpu", "cuda"), required=True)
    made.add_argument("--until", type=float, required=True, help="when to be done, on time.monotonic's clock")
    made.add_argument("--dry-run", action="store_true", help="tiny shapes")
    return made


def follow(
    context: Context,
    module: str,
    *words: str,
    until: float,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
) -> Iterator[Line]:
    """Runs ``python -m module`` with `words`, and yields its lines as it says them; its facts become the context's.

    Args:
        until: when it must be done, on `time.monotonic`'s clock; it is killed soon after.
        environment: variables beside those that are set.
        command: put before python, such as a profiler's.
    Yields:
        Line: its own; and a failed one where it ends otherwise than with status 0, or breaks the GPU too often.
    """
    name = module.rsplit(".", 1)[-1]
    tell = context.scratch / f"{name}.lines.jsonl"
    tell.parent.mkdir(parents=True, exist_ok=True)
    tell.unlink(missing_ok=True)
    full = [*command, *PYTHON, module, *words, "--tell", str(tell), "--out", str(context.out)]
    full += ["--run", context.run, "--device", context.device, "--until", str(until)]
    full += ["--dry-run"] if context.dry_run else []
    read = 0
    for attempt in range(1, TRIES + 1):
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(call, full, until + GRACE - time.monotonic(), environment)
            while True:
                over = job.done()
                news, read = _news(context, tell, read)
                yield from news
                if over:
                    break
                time.sleep(0.1)
        done = job.result()
        context.log(f"== {' '.join(full[:6])} ...: status {done.status}, {done.seconds:.1f} s\n{done.output[-20_000:]}")
        if done.ok:
            return
        if done.status != BROKEN or attempt == TRIES:
            yield Line(name, "failed", done.why())
            return


def _news(context: Context, tell: Path, read: int) -> tuple[list[Line], int]:
    """Lines that were written since, and where to read on; facts go to the context."""
    found: list[Line] = []
    for raw in _bytes(tell, read).splitlines(keepends=True):
        if not raw.endswith(b"\n"):
            break  # half of a line: the rest will come
        read += len(raw)
        said = json.loads(raw) if raw.strip() else {}
        if "facts" in said:
            context.note(**said["facts"])
        elif "line" in said:
            found.append(Line(**said["line"]))
    return found, read


def _bytes(path: Path, start: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(start)
        return file.read()
