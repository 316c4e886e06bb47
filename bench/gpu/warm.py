"""Compiles ahead of the comparisons, by several processes at once, what they would compile one by one: rivals through
torch.compile, and our Triton kernels. Each makes its call once; the compilers' caches keep what came of it.

    python -m bench.gpu.warm ... --jobs 0:vtsum_triton,0:flex_compiled

A job is a comparison's number in the plan and an implementation. `jobs` cuts the work for so many processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from bench.gpu.child import Teller, parser
from bench.gpu.plan import TRITON, Planned, planned
from bench.kit.comparison import Absent, LeftOut
from bench.kit.kernels import Used, launched

#: Processes at most: each holds a CUDA context and imports torch.
MOST = 12


def jobs(plans: Sequence[Planned], workers: int, limit: int | None = None) -> list[str]:
    """The `--jobs` of each process: what is needed first is compiled first, and neighbours by different processes."""
    found = [
        f"{number}:{name}"
        for number, plan in enumerate(plans)
        for name in (*([TRITON] if plan.triton else []), *(rival.name for rival in plan.rivals() if rival.compiled))
    ]
    found = found[:limit]
    workers = max(min(workers, MOST, len(found)), 1)
    return [",".join(found[start::workers]) for start in range(workers) if found[start::workers]]


def make(plan: Planned, name: str, teller: Teller) -> str:
    """Makes a call once; what came of it in a few words. Tells what our Triton kernels take."""
    import torch

    began = time.monotonic()
    try:
        watched: AbstractContextManager[dict[str, list[Used]]] = launched() if name == TRITON else nullcontext({})
        with watched as kernels:
            plan.entry(name).start()(0)
        if kernels:
            teller.facts(triton={kernel: list(map(list, used)) for kernel, used in kernels.items()})
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except (Absent, LeftOut) as reason:
        return f"left out: {reason}"
    except Exception as error:  # the comparison will find the same, and record it
        return f"{type(error).__name__}: {str(error)[:200]}"
    return f"{time.monotonic() - began:.1f} s"


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--jobs", required=True)
    chosen = options.parse_args()
    plans, teller = planned(chosen.dry_run), Teller(chosen.tell)
    for job in chosen.jobs.split(","):
        if time.monotonic() > chosen.until:
            print(f"{job}: no time was left", flush=True)
            continue
        number, _, name = job.partition(":")
        print(f"{plans[int(number)].title}: {name}: {make(plans[int(number)], name, teller)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
