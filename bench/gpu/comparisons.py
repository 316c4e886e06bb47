"""The program that holds the contests: ``bench.gpu.kernels`` starts it. First the roofline, then the plan in its order.

Every record is in the op's JSON lines as soon as it is known, and a line is said for each contest when it is over. A
contestant that breaks the GPU ends the program with status BROKEN; started again, it goes on without that one.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.plan import PACKAGES, Planned, planned
from bench.gpu.roofline import Roofline, measure
from bench.gpu.stage import Line
from bench.kit.compared import Held, best_rival
from bench.kit.comparison import Broken, History, Limits, hold
from bench.kit.record import OURS, append, contest_key, read

#: Seconds to spend on a contestant's samples, beyond which a rival's call is too slow, and that a contest needs to be
#: worth beginning.
SECONDS, SLOW, LEAST = 0.1, 0.25, 4.0
#: What a contest with compiled rivals needs besides, where the compiler's cache does not hold them.
COMPILING = 6.0
TINY_SECONDS = 0.002
#: A contest may take so many seconds; who has not begun by then is left out.
LONGEST = 25.0


def file_of(out: Path, op: str) -> Path:
    return out / f"{op}.jsonl"


def line_of(title: str, held: Held, roofline: Roofline) -> Line:
    """What a contest comes to: our time and spread, the best rival's, the shares."""
    ours = held.get(OURS)
    if ours is None:
        return Line(title, "failed", "we were not measured")
    troubles = [
        f"{name} {record['status']}: {record['reason']}"
        for name, record in held.items()
        if name.startswith(OURS) and record["status"] not in ("ok", "left out")
    ]
    if ours["status"] != "ok":
        return Line(title, "failed", "; ".join(troubles) or f"{ours['status']}: {ours['reason']}")
    time = ours["time_us"]
    said = [f"{time['p50']:.5g} us ({time['p20']:.5g} to {time['p80']:.5g}) {ours.get('backend', '')}".rstrip()]
    for name, record in held.items():
        if name != OURS and name.startswith(OURS) and record["status"] == "ok":
            said.append(f"{name.removeprefix(OURS + '_')} {record['time_us']['p50']:.5g}")
    rival = best_rival(held)
    if rival is not None:
        said.append(f"{rival['name']} {rival['time_us']['p50']:.5g}")
    share = roofline.seconds(int(ours["moved_bytes"]), int(ours.get("flops") or 0), ours["dtype"]) / time["p50"] * 1e6
    ratio = None if rival is None else rival["time_us"]["p50"] / time["p50"]
    return Line(title, "failed" if troubles else "ok", "; ".join([*said, *troubles]), share, ratio)


def facts_of(device: str) -> dict[str, Any]:
    from bench.run import environment

    return environment(device, PACKAGES)


def contest_records(path: Path, run: str, key: tuple[Any, ...]) -> Held:
    """What this run knows of a contest."""
    return {r["name"]: r for r in read(path) if r["run"] == run and contest_key(r) == key}


def run_one(plan: Planned, out: Path, run: str, facts: dict[str, Any], limits: Limits, history: History) -> Held | None:
    """Holds a contest, unless the run has it already (then None). Raises Broken."""
    contest = plan.contest()
    path, key = file_of(out, plan.op), contest_key(contest.facts)
    known = contest_records(path, run, key)
    if all(name in known for name in contest.names):
        return None
    without = frozenset(name for name, record in known.items() if record.get("broke"))
    facts = {**facts, "load_before": round(os.getloadavg()[0], 2)}
    for record in hold(contest, limits, history, random.Random(0), lambda name: None, without):
        append(path, {"op": plan.op, "run": run, **record, **facts})
    return contest_records(path, run, key)


def main() -> int:
    options = parser(__doc__).parse_args()
    teller = Teller(options.tell)
    from bench.kit.clock import keep_memory
    from bench.run import memory_bytes

    keep_memory()
    tiny = options.dry_run
    roofline = roofline_of(options.tell) or measure(options.device, tiny, teller.line)
    teller.facts(**roofline.facts())
    facts, history = facts_of(options.device), History()
    memory = memory_bytes(options.device) // 3
    plans = planned(tiny)
    for number, plan in enumerate(plans):
        needed = LEAST + (COMPILING if plan.compiled else 0.0)
        if options.until - time.monotonic() < needed and not (tiny and number == 0):
            left = len(plans) - number
            teller.line(Line(f"{left} more contests", "skipped", f"no time was left, from: {plan.title}"))
            break
        deadline = min(options.until - 1.0, time.monotonic() + LONGEST)
        limits = Limits(TINY_SECONDS if tiny else SECONDS, SLOW, memory, deadline)
        began = time.monotonic()
        print(f"{plan.title} ...", flush=True)
        try:
            held = run_one(plan, options.out, options.run, facts, limits, history)
        except Broken as culprit:
            ours = str(culprit).startswith(OURS)
            why = "it broke the GPU; the others go on without it"
            teller.line(Line(f"{plan.title}: {culprit}", "failed" if ours else "skipped", why))
            return BROKEN
        except Exception as error:  # inputs that have no room, say: the next contest may have it
            teller.line(Line(plan.title, "failed", f"{type(error).__name__}: {str(error)[:200]}"))
            continue
        if held is not None:
            teller.line(line_of(plan.title, held, roofline))
        print(f"{plan.title}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


def roofline_of(tell: Path) -> Roofline | None:
    """What an earlier start of this program measured."""
    said: dict[str, Any] = {}
    for entry in read(tell):
        said |= entry.get("facts", {})
    return Roofline.of(said)


if __name__ == "__main__":
    sys.exit(main())
