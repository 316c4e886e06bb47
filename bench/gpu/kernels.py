"""The part that measures the kernels: what the compilers made of them, the best sizes (with --tune), the roofline, and
the ops against every rival.

The comparisons are made in a fixed order, the most telling first, as far as the time goes (`bench.gpu.plan`). Before,
the processor's cores compile at once what the comparisons need, rivals included; the compilers' caches keep it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.gpu import child, registers
from bench.gpu.stage import TUNED, Context, Line
from bench.kit.kernels import TUNED_VARIABLE

COMPARISONS = "bench.gpu.comparisons"
#: Shares of what is left when it begins: searching sizes, compiling ahead.
TUNE, WARM = 0.65, 0.4
#: Each process holds a CUDA context and imports torch.
MOST_PROCESSES = 12


def environment(context: Context) -> dict[str, str]:
    """For every program here: nothing is tuned unasked, what was tuned is read, a compiler uses one thread."""
    found = {"VTSUM_KERNELS_AUTOTUNE": "0", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if (context.out / TUNED).is_file():
        found[TUNED_VARIABLE] = str(context.out / TUNED)
    if context.device == "cpu":
        found["TRITON_INTERPRET"] = "1"
    return found


def run(context: Context) -> Iterator[Line]:
    yield registers.resources(context)
    if context.tune:
        search = {**environment(context), "VTSUM_KERNELS_AUTOTUNE": "1", TUNED_VARIABLE: ""}
        until = time.monotonic() + TUNE * context.left()
        yield from child.follow(context, "bench.gpu.tune", until=until, environment=search)
    yield compiled_ahead(context, until=time.monotonic() + WARM * max(context.left(), 0.0))
    until = max(context.deadline - child.GRACE, time.monotonic() + 1.0)
    yield from child.follow(context, COMPARISONS, until=until, environment=environment(context))


def compiled_ahead(context: Context, until: float) -> Line:
    """Has several processes compile what the comparisons need."""
    workers = 1 if context.dry_run else min(max((os.cpu_count() or 2) - 2, 1), MOST_PROCESSES)
    began = time.monotonic()
    with ExitStack() as stack:
        programs = []
        for number in range(workers):
            words, tell = ["--warm", str(number), str(workers)], context.scratch / f"warm{number}.lines.jsonl"
            command = child.command_of(context, COMPARISONS, words, until, tell)
            seconds = until + child.GRACE - time.monotonic()
            programs.append(stack.enter_context(context.start(command, seconds, environment(context))))
        said = [program.wait().output for program in programs]
    context.log("== compiling ahead\n" + "\n".join(said))
    made = sum(line.endswith(" s") for text in said for line in text.splitlines())
    detail = f"{made} calls by {workers} processes in {time.monotonic() - began:.0f} s"
    return Line("compiled ahead", "ok" if made else "failed", detail)
