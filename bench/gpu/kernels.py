"""The part that measures the kernels: what the compilers made of them, the best sizes (with --tune), the roofline, the
ops against every rival, and what the card's counters say.

The comparisons are made in a fixed order, the most telling first, as far as the time goes (`bench.gpu.plan`). Before,
the processor's cores compile at once what the comparisons need, rivals included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from bench.gpu import child, counters, tune, warm
from bench.gpu.plan import planned
from bench.gpu.stage import TUNED, Context, Line
from bench.kit.kernels import TUNED_VARIABLE, Used

#: Shares of what is left when it begins: searching sizes, compiling ahead; and seconds kept for the counters.
TUNE, WARM, COUNTERS = 0.65, 0.4, 25.0


def environment(context: Context) -> dict[str, str]:
    """Variables for every program here: nothing is tuned unasked, what was tuned is read, compilers use one thread and
    remember."""
    found = {
        "VTSUM_KERNELS_AUTOTUNE": "0",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
    }
    if (context.out / TUNED).is_file():
        found[TUNED_VARIABLE] = str(context.out / TUNED)
    if context.device == "cpu":
        found["TRITON_INTERPRET"] = "1"
    return found


def run(context: Context) -> Iterator[Line]:
    yield from counters.resources(context)
    if context.tune:
        until = time.monotonic() + TUNE * context.left()
        yield from tune.search(context, until, environment(context))
    yield from compiled_ahead(context, until=time.monotonic() + WARM * max(context.left(), 0.0))
    spare = 0.0 if context.dry_run else COUNTERS
    until = max(context.deadline - spare - child.GRACE, time.monotonic() + 1.0)
    yield from child.follow(context, "bench.gpu.comparisons", until=until, environment=environment(context))
    yield from counters.counted(context, environment(context))


def compiled_ahead(context: Context, until: float) -> Iterator[Line]:
    """Has several processes compile what the comparisons need; also says what Triton made of our kernels."""
    began, plans = time.monotonic(), planned(context.dry_run)
    groups = warm.jobs(plans, 1, 1) if context.dry_run else warm.jobs(plans, max((os.cpu_count() or 2) - 2, 1))
    words = [["--jobs", group] for group in groups]
    said, told = child.at_once(context, "bench.gpu.warm", words, until, environment(context))
    wanted = sum(len(group.split(",")) for group in groups)
    made = sum(line.endswith(" s") for text in said for line in text.splitlines())
    detail = f"{made} of {wanted} calls by {len(groups)} processes in {time.monotonic() - began:.0f} s"
    yield Line("compiled ahead", "ok" if made else "failed", detail)
    yield from triton_kernels(context, [entry["facts"]["triton"] for entry in told])


def triton_kernels(context: Context, said: list[dict[str, list[list[int]]]]) -> Iterator[Line]:
    """A line for what all the processes saw."""
    check = "Triton kernels' registers and spills"
    found: dict[str, set[Used]] = {}
    for kernels in said:
        for name, all_of in kernels.items():
            found.setdefault(name, set()).update(Used(*used) for used in all_of)
    if not found:
        yield Line(check, "absent", "no Triton kernel was compiled")
        return
    facts, line = counters.told(check, {name: list(all_of) for name, all_of in found.items()})
    context.note(triton_kernels=facts)
    yield line
