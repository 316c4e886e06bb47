"""Searches the best sizes of our Triton kernels on this GPU, and writes them to a file that the kernels read.

As a program it tunes the calls of the plan (`bench.gpu.plan`) in their order, as far as the time goes: first several
processes compile all candidates at once, then one measures them alone: rows, keys, warps and stages, from the
candidates of each kind of call; around the best of them, other warps and stages. Copied to
kernels/vtsum_kernels/tuned.json, the file becomes the default.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import child
from bench.gpu.plan import TRITON, Planned, planned
from bench.gpu.stage import TUNED, Context, Line
from bench.kit.kernels import TUNED_VARIABLE, read_tuned, use_tuner, write_tuned

#: Share of the time for compiling ahead.
COMPILE = 0.35
#: Seconds that it takes to tune one more call, about.
LEAST = 5.0
MOST_PROCESSES = 12
#: A choice must beat the kernel's own by this much, or it is noise.
BETTER = 0.98


def search(context: Context, until: float, environment: Mapping[str, str]) -> Iterator[Line]:
    """Compiles ahead, then measures; one line for all. Where nothing was written, that has failed."""
    environment = {**environment, TUNED_VARIABLE: str(context.out / TUNED)}
    ahead = time.monotonic() + COMPILE * max(until - time.monotonic(), 0.0)
    most = min((os.cpu_count() or 2) - 2, MOST_PROCESSES, len(targets(context.dry_run)))
    workers = 1 if context.dry_run else max(most, 1)
    jobs = [["--compile", str(number), str(workers)] for number in range(workers)]
    child.at_once(context, "bench.gpu.tune", jobs, ahead, environment)
    yield from child.follow(context, "bench.gpu.tune", until=until, environment=environment)


def targets(dry_run: bool) -> list[Planned]:
    """The calls of the plan that have anything to choose, each kind of call once: both passes of those with two."""
    made: dict[Any, Planned] = {}
    for plan in planned(dry_run):
        kind, direction = dataclasses.replace(plan.setting, direction=""), plan.setting.direction
        if plan.triton and (kind not in made or direction == "fwd+bwd"):
            made[kind] = plan
    return list(made.values())


def around(best: Any, candidates: Sequence[Any]) -> list[Any]:
    """The candidates' best with other warps and stages, those that are no candidates yet."""
    near = [best._replace(warps=warps) for warps in (best.warps // 2, 2 * best.warps) if warps in (1, 2, 4, 8, 16)]
    near += [best._replace(stages=stages) for stages in (best.stages - 1, best.stages + 1) if 1 <= stages <= 5]
    return [config for config in near if config not in candidates]


class Search:
    """Takes the place of the kernels' tuner: every choice is searched for, and remembered."""

    def __init__(self, wider: bool = True) -> None:
        self.wider = wider
        self.choices: dict[str, Any] = {}
        self.gains: list[float] = []

    def choose(
        self, key: str, candidates: Sequence[Any], measure: Callable[[Any], float], may_measure: bool = True
    ) -> Any:
        """The quickest of the candidates and of what is around the quickest of them."""
        if not may_measure:
            return self.choices.get(key, candidates[0])
        if key not in self.choices:
            times = {config: measure(config) for config in candidates}
            best = min(times, key=times.__getitem__)
            if self.wider:
                times |= {config: measure(config) for config in around(best, candidates)}
                best = min(times, key=times.__getitem__)
            first = times[candidates[0]]
            best = best if times[best] < BETTER * first else candidates[0]
            self.choices[key] = best
            if times[best] > 0 and first < math.inf:
                self.gains.append(first / times[best])
        return self.choices[key]


def attempt(plan: Planned) -> None:
    """Makes a call through Triton once, and prints what came of it."""
    began = time.monotonic()
    try:
        plan.entry(TRITON).start()(0)
        said = f"{time.monotonic() - began:.1f} s"
    except Exception as error:  # a size that does not compile is no reason to end
        said = f"{type(error).__name__}: {str(error)[:200]}"
    print(f"{plan.title}: {said}", flush=True)


def main() -> int:
    options = child.parser(__doc__)
    options.add_argument("--compile", nargs=2, type=int, metavar=("NUMBER", "OF"), help="this share of the calls alone")
    chosen = options.parse_args()
    plans, least = targets(chosen.dry_run), 0.0 if chosen.dry_run else LEAST
    os.environ["VTSUM_KERNELS_AUTOTUNE"] = "1"
    searched = Search(wider=not chosen.compile)
    use_tuner(searched)
    if chosen.compile:  # the compiler's cache keeps the binaries of every candidate
        number, of = chosen.compile
        for plan in plans[number::of]:
            if time.monotonic() < chosen.until:
                attempt(plan)
        return 0
    import torch
    import triton

    path, done = Path(chosen.out) / TUNED, 0
    before, made_with = read_tuned(path), f"triton {triton.__version__}, torch {torch.__version__}"
    for plan in plans:
        if chosen.until - time.monotonic() < least:
            break
        attempt(plan)
        write_tuned(path, before | searched.choices, made_with)  # whole after each call
        done += 1
    gain = f", {statistics.median(searched.gains):.2f} times as fast in the middle" if searched.gains else ""
    detail = f"{len(searched.choices)} choices{gain}, of {done} of {len(plans)} calls"
    child.Teller(chosen.tell).line(Line("tuned sizes", "ok" if done else "failed", detail))
    return 0


if __name__ == "__main__":
    sys.exit(main())
