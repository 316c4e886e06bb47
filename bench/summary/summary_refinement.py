"""Summary refinement: time of the greedy MAP, and F and diversity of refined summaries on TVSum.

    python -m bench.summary.summary_refinement --shared ../shared [--parts timing tvsum smoothing plot]
                                                [--sources ridge embedded]

timing     greedy_map on random walks through the features; every pick is held against the naive greedy search's: the
           item of the greatest determinant, by a factorisation that LAPACK makes anew
tvsum      see refinement_tvsum.py
smoothing  tau and rho of smoothed scores
plot       docs/summary_refinement.png, from the records

One JSON line a measurement goes to results/summary_refinement.jsonl.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.kit.command import keep, parser
from bench.kit.record import DOCS, machine, quantiles, read
from bench.summary import refinement_tvsum
from bench.summary.tables.summary_refinement import draw
from vtsum.enhance.summary_refinement import greedy_map
from vtsum.enhance.summary_refinement.dpp import Kernel

CASES = ((600, 90, 256), (3600, 540, 128), (3600, 540, 256), (3600, 540, 768))
PARTS = ("timing", "tvsum", "smoothing", "plot")


def wrong_picks(quality: np.ndarray, features: np.ndarray, picks: list[int]) -> int:
    """How many picks are not those of the naive greedy search after the picks before them.

    The determinant of the picks and one more item is that of the picks times the item's Schur complement, which follows
    from one Cholesky factorisation of the picks' kernel, in their order.
    """
    kernel = Kernel("bench", quality, features, "gaussian", None)
    rows = kernel.block(np.array(picks))
    factor = np.linalg.solve(np.linalg.cholesky(rows[:, picks]), rows)
    left = kernel.diagonal.copy()
    wrong = 0
    for n, item in enumerate(picks):
        wrong += int(np.argmax(left) != item)
        left -= factor[n] ** 2
        left[item] = -np.inf
    return wrong


def timing(repeats: int) -> Iterator[dict[str, Any]]:
    for count, k, columns in CASES:
        rng = np.random.default_rng(0)
        quality, features = rng.uniform(0.5, 1.5, count), rng.normal(size=(count, columns)).cumsum(axis=0)
        wall, processor, picks = [], [], []
        for _ in range(repeats):
            began, busy = time.perf_counter(), time.process_time()
            picks = greedy_map(quality, features, k=k, similarity="gaussian")
            wall.append(time.perf_counter() - began)
            processor.append(time.process_time() - busy)
        wrong = wrong_picks(quality, features, picks)
        if wrong or len(picks) != k:
            raise SystemExit(f"summary_refinement: greedy_map must pick as the naive search, {wrong} of {k} differ")
        yield {
            "part": "timing",
            "shape": {"N": count, "k": k, "C": columns},
            "wall_s": quantiles(wall),
            "processor_s": quantiles(processor),
            "least_s": round(min(wall), 3),
            "repeats": repeats,
            "picks_unlike_the_naive": wrong,
        }


def main() -> None:
    given = parser(__doc__, "summary_refinement", shared=True)
    given.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--sources", nargs="+", choices=list(refinement_tvsum.SOURCES), default=None)
    given.add_argument("--repeats", type=int, default=7)
    options = given.parse_args()
    facts = {"op": "summary_refinement", **machine(("numpy", "torch"))}
    if "timing" in options.parts:
        keep(options.results, facts, timing(options.repeats))
    wanted = {"tvsum", "smoothing"} & set(options.parts)
    for source in (options.sources or refinement_tvsum.SOURCES) if wanted else ():
        scored = refinement_tvsum.SOURCES[source](options.shared)
        for part, measure in (("tvsum", refinement_tvsum.measure), ("smoothing", refinement_tvsum.measure_smoothing)):
            if part in options.parts:
                keep(options.results, facts, measure(source, scored))
    if "plot" in options.parts:
        draw(DOCS / "summary_refinement.png", read(options.results))


if __name__ == "__main__":
    main()
