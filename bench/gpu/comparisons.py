"""The program that makes the comparisons; ``bench.gpu.kernels`` starts it. First the roofline, then the plan.

Every record is in the op's JSON lines as soon as it is known, and a line is said for each comparison when it is over.
Who breaks the GPU ends the program with status BROKEN; started again, it goes on without that one.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import nullcontext
from typing import Any

from bench.gpu import cost, registers
from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.plan import Planned, planned
from bench.gpu.stage import Line
from bench.kit.clock import keep_memory
from bench.kit.comparison import Broken, History, Limits, compare_into
from bench.kit.kernels import Used, launched
from bench.kit.record import OURS, environment, read
from bench.kit.roofline import Roofline, measure
from bench.kit.tables import Compared, best_rival

#: Seconds to spend on samples of each (in a dry run, TINY), beyond which a rival's call is too slow, that a comparison
#: needs to be worth beginning, that compiled rivals need besides, and beyond which who has not begun is left out.
SECONDS, TINY, SLOW, LEAST, COMPILING, LONGEST = 0.1, 0.002, 0.25, 4.0, 6.0, 25.0


def line_of(title: str, compared: Compared, roofline: Roofline, op: str) -> Line:
    """What a comparison comes to: our time and spread, the best rival's, the shares, and what was predicted."""
    ours = compared.get(OURS)
    if ours is None:
        return Line(title, "failed", "we were not measured")
    troubles = [
        f"{name} {record['status']}: {record['reason']}"
        for name, record in compared.items()
        if name.startswith(OURS) and record["status"] not in ("ok", "left out")
    ]
    if ours["status"] != "ok":
        return Line(title, "failed", "; ".join(troubles) or f"{ours['status']}: {ours['reason']}")
    time = ours["time_us"]
    said = [f"{time['p50']:.5g} us ({time['p20']:.5g} to {time['p80']:.5g}) {ours.get('backend', '')}".rstrip()]
    rival = best_rival(compared)
    others = [r for name, r in compared.items() if name.startswith(f"{OURS}_") and r["status"] == "ok"]
    for record in [*others, *([rival] if rival else [])]:
        said.append(f"{record['name'].removeprefix(OURS + '_')} {record['time_us']['p50']:.5g}")
    share = roofline.seconds(int(ours["moved_bytes"]), int(ours.get("flops") or 0), ours["dtype"]) / time["p50"] * 1e6
    ratio = None if rival is None else rival["time_us"]["p50"] / time["p50"]
    foretold, bound = cost.prediction_of(op, ours) or (None, "")
    times = None if foretold is None else time["p50"] / 1e6 / foretold
    if foretold is not None:
        said.append(f"predicted {foretold * 1e6:.5g}")
    return Line(title, "failed" if troubles else "ok", "; ".join([*said, *troubles]), share, ratio, times, bound)


def called_once(plan: Planned, name: str) -> str:
    """Makes a call once, so that it is compiled; what came of it in a few words."""
    began = time.monotonic()
    try:
        plan.entry(name).start()(0)
    except Exception as error:  # the comparison will find the same, and record it
        return f"{plan.title}: {name}: {type(error).__name__}: {str(error)[:200]}"
    return f"{plan.title}: {name}: {time.monotonic() - began:.1f} s"


def warm(options: argparse.Namespace) -> None:
    """This process's share of all that compiles: neighbours go to different processes, what is needed first first."""
    number, of = options.warm
    jobs = [(plan, name) for plan in planned(options.dry_run) for name in plan.compiling()]
    for plan, name in jobs[number::of]:
        if time.monotonic() < options.until:
            print(called_once(plan, name), flush=True)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--warm", nargs=2, type=int, metavar=("NUMBER", "OF"), help="only compile, this share of it")
    options = arguments.parse_args()
    if options.warm:
        warm(options)
        return 0
    teller, tiny = Teller(options.tell), options.dry_run
    keep_memory()
    said: dict[str, Any] = {}
    for entry in read(options.tell):  # by an earlier start of this program
        said |= entry.get("facts", {})
    roofline = Roofline.of(said) or measure(options.device, tiny, lambda what, how: teller.line(what, "ok", how))
    teller.facts(**roofline.facts())
    history, plans = History(), planned(tiny)
    triton: dict[str, set[Used]] = {}
    for number, plan in enumerate(plans):
        needed = LEAST + (COMPILING if plan.compiled else 0.0)
        if options.until - time.monotonic() < needed and not (tiny and number == 0):
            left = f"no time was left, from: {plan.title}"
            teller.line(f"{len(plans) - number} more comparisons", "skipped", left)
            break
        limits = Limits(TINY if tiny else SECONDS, SLOW, min(options.until - 1.0, time.monotonic() + LONGEST))
        path, machine = options.out / f"{plan.op.name}.jsonl", environment(options.device, plan.op.packages)
        print(f"{plan.title} ...", flush=True)
        try:
            # Not where launching is what is measured.
            with launched(triton) if plan.triton else nullcontext():
                compared = compare_into(
                    path, plan.op.name, options.run, plan.comparison(), machine, limits, history, random.Random(0)
                )
        except Broken as culprit:
            ours = str(culprit).startswith(OURS)
            why = "it broke the GPU; the others go on without it"
            teller.line(f"{plan.title}: {culprit}", "failed" if ours else "skipped", why)
            return BROKEN
        except Exception as error:  # inputs that have no room, say: the next comparison may have it
            teller.failed(plan.title, error)
            continue
        if compared is not None:
            teller.line(*vars(line_of(plan.title, compared, roofline, plan.op.name)).values())
    if triton:
        facts, line = registers.told("Triton kernels' registers and spills", triton)
        teller.facts(triton_kernels=facts)
        teller.line(*vars(line).values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
