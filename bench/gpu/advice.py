"""What to do next, from what the GPU check found: the end of its page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.gpu.stage import Line

#: Of a kind, so many are named; what takes so many times its prediction is worth a look; and below such a share of the
#: roofline what has no prediction.
MOST, FAR, LOW = 3, 1.3, 0.5
#: What to look at, by what a prediction is bound by.
LOOK_AT = {
    "memory": "blocks resident on a multiprocessor and bytes on their way (latency), pages of DRAM",
    "issue": "stalls of the loop's instructions, banks of shared memory",
    "tensor": "products a warp has under way",
    "special": "exponentials beside products",
}


def next_steps(lines: Sequence[tuple[str, Line]], tuned: bool) -> list[str]:
    """The most telling first, a few lines at most; `tuned`: the sizes of Triton's kernels were searched."""
    found = [line for _, line in lines]
    failed = [line for line in found if line.result == "failed"]
    measured = [line for line in found if line.result == "ok" and line.share_of_roofline is not None]
    far = _sorted((-x, line) for line in measured if (x := line.of_prediction) is not None and x >= FAR)
    behind = _sorted((x, line) for line in measured if (x := line.ratio_to_best_rival) is not None and x < 1)
    low = [line for line in measured if line.of_prediction is None and (line.share_of_roofline or 0.0) < LOW]
    steps = []
    if failed:
        steps.append(f"mend first what failed: {_named(failed)}; log.txt and tests.txt have the whole of it")
    steps += [
        f"{line.check} takes {-x:.1f} times its prediction, bound by {line.bound}: look at {LOOK_AT[line.bound]}"
        for x, line in far[:MOST]
    ]
    steps += [f"{line.check} is behind its best rival: {x:.2f}" for x, line in behind[:MOST]]
    if low:
        steps.append(f"below {LOW:.0%} of the roofline, and nothing is predicted of them: {_named(low)}")
    if measured and not tuned:
        steps.append("PART=kernels TUNE=1 searches the sizes of Triton's kernels, which were their defaults here")
    if measured and not failed:
        steps.append("keep the records: docs/TUNING.md says where they go")
    return steps


def _sorted(pairs: Iterable[tuple[float, Line]]) -> list[tuple[float, Line]]:
    return sorted(pairs, key=lambda pair: pair[0])


def _named(lines: Sequence[Line]) -> str:
    more = f" and {len(lines) - MOST} more" if len(lines) > MOST else ""
    return ", ".join(line.check for line in lines[:MOST]) + more
