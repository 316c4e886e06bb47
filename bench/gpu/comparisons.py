"""The program that makes the comparisons; ``bench.gpu.kernels`` starts it. First the roofline, then the plan.

Every record is in the op's JSON lines as soon as it is known, and a line is said for each comparison when it is over.
Who breaks the GPU ends the program with status BROKEN; started again, it goes on without that one.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.plan import planned
from bench.gpu.stage import Line
from bench.kit.clock import keep_memory
from bench.kit.comparison import Broken, History, Limits, compare_into
from bench.kit.record import OURS, environment, read
from bench.kit.roofline import Roofline, measure
from bench.kit.tables import Compared, best_rival
from bench.run import memory_bytes

#: Seconds to spend on samples of each, beyond which a rival's call is too slow, and that a comparison needs to be worth
#: beginning.
SECONDS, SLOW, LEAST = 0.1, 0.25, 4.0
#: What a comparison with compiled rivals needs besides, where the compiler's cache does not hold them.
COMPILING = 6.0
TINY_SECONDS = 0.002
#: A comparison may take so many seconds; who has not begun by then is left out.
LONGEST = 25.0


def line_of(title: str, compared: Compared, roofline: Roofline) -> Line:
    """What a comparison comes to: our time and spread, the best rival's, the shares."""
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
    for name, record in compared.items():
        if name != OURS and name.startswith(OURS) and record["status"] == "ok":
            said.append(f"{name.removeprefix(OURS + '_')} {record['time_us']['p50']:.5g}")
    rival = best_rival(compared)
    if rival is not None:
        said.append(f"{rival['name']} {rival['time_us']['p50']:.5g}")
    share = roofline.seconds(int(ours["moved_bytes"]), int(ours.get("flops") or 0), ours["dtype"]) / time["p50"] * 1e6
    ratio = None if rival is None else rival["time_us"]["p50"] / time["p50"]
    return Line(title, "failed" if troubles else "ok", "; ".join([*said, *troubles]), share, ratio)


def roofline_of(tell: Path) -> Roofline | None:
    """What an earlier start of this program measured."""
    said: dict[str, Any] = {}
    for entry in read(tell):
        said |= entry.get("facts", {})
    return Roofline.of(said)


def main() -> int:
    options = parser(__doc__).parse_args()
    teller = Teller(options.tell)
    keep_memory()
    tiny = options.dry_run
    roofline = roofline_of(options.tell) or measure(
        options.device, tiny, lambda what, detail: teller.line(Line(what, "ok", detail))
    )
    teller.facts(**roofline.facts())
    history, memory, plans = History(), memory_bytes(options.device) // 3, planned(tiny)
    for number, plan in enumerate(plans):
        needed = LEAST + (COMPILING if plan.compiled else 0.0)
        if options.until - time.monotonic() < needed and not (tiny and number == 0):
            left = len(plans) - number
            teller.line(Line(f"{left} more comparisons", "skipped", f"no time was left, from: {plan.title}"))
            break
        deadline = min(options.until - 1.0, time.monotonic() + LONGEST)
        limits = Limits(TINY_SECONDS if tiny else SECONDS, SLOW, memory, deadline)
        path, machine = options.out / f"{plan.op.name}.jsonl", environment(options.device, plan.op.packages)
        print(f"{plan.title} ...", flush=True)
        try:
            compared = compare_into(
                path, plan.op.name, options.run, plan.comparison(), machine, limits, history, random.Random(0)
            )
        except Broken as culprit:
            ours = str(culprit).startswith(OURS)
            why = "it broke the GPU; the others go on without it"
            teller.line(Line(f"{plan.title}: {culprit}", "failed" if ours else "skipped", why))
            return BROKEN
        except Exception as error:  # inputs that have no room, say: the next comparison may have it
            teller.line(Line(plan.title, "failed", f"{type(error).__name__}: {str(error)[:200]}"))
            continue
        if compared is not None:
            teller.line(line_of(plan.title, compared, roofline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
