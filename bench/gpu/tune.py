"""The program that searches the best sizes of our Triton kernels on this GPU: ``bench.gpu.kernels --tune`` starts it.

It makes the calls of the plan in their order, as far as the time goes; the kernels' own tuner measures their candidates
and writes the best to tuned.json. Copied to kernels/vtsum_kernels/tuned.json, the file becomes the default.
"""

from __future__ import annotations

import sys
import time

from bench.gpu.child import Teller, parser
from bench.gpu.comparisons import called_once
from bench.gpu.plan import TRITON, tunable
from bench.gpu.stage import TUNED
from bench.kit.kernels import tune_into

#: Seconds that it takes to tune one more call, about.
LEAST = 5.0


def main() -> int:
    chosen = parser(__doc__).parse_args()
    plans, done = tunable(chosen.dry_run), 0
    tuner = tune_into(chosen.out / TUNED)
    for plan in plans:
        if not chosen.dry_run and chosen.until - time.monotonic() < LEAST:
            break
        print(called_once(plan, TRITON), flush=True)
        done += 1
    detail = f"{len(tuner.read())} choices, of {done} of {len(plans)} calls"
    Teller(chosen.tell).line("tuned sizes", "ok" if done else "failed", detail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
