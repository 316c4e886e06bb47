"""Measure an op of vtsum_kernels against copying its bytes, or a large product, and against its rivals.

    python -m bench.run --op sliding_window_attention

Results go to bench/results/OP.jsonl, a line for each implementation in each comparison as soon as it is known. A run
that was interrupted goes on with --resume. Progress goes to stderr. `python -m bench.report` makes tables and plots.
Ends with status 1 where our own kernels could not be measured: wrong numbers, or an error; with status 3 where an
implementation left the GPU unusable.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.kit.op import Op, Options
from bench.kit.record import OURS, RESULTS, environment, read, run_name
from bench.ops import OPS, benchmark

DTYPES = ("float32", "float16", "bfloat16")
#: The exit status where an implementation left the GPU unusable, and --resume goes on.
BROKEN = 3


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Op]:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--op", choices=OPS)
    name = first.parse_known_args(arguments)[0].op
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=__doc__,
        epilog="With --op, --help also lists what may be chosen for that op.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = "comma-separated; default: the benchmark's own plan"
    parser.add_argument("--op", choices=OPS, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--dtype", default="", metavar="LIST", help=listed)
    parser.add_argument("--rivals", default="", metavar="LIST", help="comma-separated; default: all of them")
    parser.add_argument("--seconds", type=float, help="to spend on measuring each (default 0.2, quick 0.05)")
    slow = "leave out rivals that take more seconds a call, unless we are hardly faster"
    parser.add_argument("--slow", type=float, default=1.0, help=slow)
    parser.add_argument("--gib", type=float, help="of memory that all may take together (default: nearly all there is)")
    parser.add_argument("--output", type=Path, help="default: bench/results/OP.jsonl")
    parser.add_argument("--resume", action="store_true", help="go on with the last run in the output file")
    parser.add_argument("--dry-run", action="store_true", help="list what is compared with whom; measure nothing")
    op = benchmark(name) if name else None
    if op is not None:
        parser.add_argument("--quick", action="store_true", help=op.quick)
        parser.add_argument("--case", default="", metavar="LIST", help=f"{', '.join(op.cases)}; {listed}")
        parser.add_argument("--passes", default="", metavar="LIST", help=f"{', '.join(op.passes)}; {listed}")
        for number, what in op.numbers.items():
            parser.add_argument(f"--{number}", default="", metavar="LIST", help=f"{what}; {listed}")
        for word, known in op.words.items():
            parser.add_argument(f"--{word}", default="", metavar="LIST", help=f"{', '.join(known)}; {listed}")
    options = parser.parse_args(arguments)
    assert op is not None  # or else the parser has ended here
    return options, op


def chosen(name: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in known:
            raise SystemExit(f"bench.run: {name} must be one of {', '.join(known)}, got {word}")
    return words


def numbers(name: str, text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise SystemExit(f"bench.run: {name} must be positive numbers, got {word}")
    return tuple(int(word) for word in words)


def limit_memory(device: str, gib: float | None) -> None:
    """Without a limit, the kernel ends a process that asks for more memory than there is; with it, the rival fails."""
    if device == "cuda" and gib is not None:
        import torch

        torch.cuda.set_per_process_memory_fraction(min(gib * 2**30 / torch.cuda.mem_get_info()[1], 1.0))
    elif device == "cpu" and sys.platform.startswith("linux"):
        import resource

        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = 0.85 * there if gib is None else gib * 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), resource.RLIM_INFINITY))


def main(arguments: Sequence[str] | None = None) -> int:
    options, op = parse(arguments)
    import torch

    from bench.kit.clock import keep_memory
    from bench.kit.comparison import Broken, History, Limits, compare_into

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("bench.run: --device must be cpu where torch finds no GPU, got cuda")
    wanted = Options(
        device,
        chosen("--case", options.case, op.cases),
        chosen("--dtype", options.dtype, DTYPES),
        chosen("--passes", options.passes, op.passes),
        chosen("--rivals", options.rivals, [rival.name for rival in op.rivals if device in rival.devices]),
        {name: numbers(f"--{name}", getattr(options, name)) for name in op.numbers},
        {name: chosen(f"--{name}", getattr(options, name), known) for name, known in op.words.items()},
        options.quick,
    )
    comparisons = [op.comparison(s, op.against(s, wanted.rivals)) for s in op.settings(wanted)]
    if options.dry_run:
        for comparison in comparisons:
            size = f"{comparison.flops / 1e9:.1f} GFLOP" if comparison.flops else f"{comparison.moved / 2**20:.1f} MiB"
            print(title(comparison.facts), f"{size}:", ", ".join(comparison.names))
        return 0

    output: Path = options.output or RESULTS / f"{op.name}.jsonl"
    run = run_name()
    if options.resume:
        earlier = [r["run"] for r in read(output) if r["op"] == op.name and r["device_type"] == device]
        run = earlier[-1] if earlier else run
    seconds = options.seconds if options.seconds is not None else 0.05 if options.quick else 0.2
    limits = Limits(seconds, options.slow)
    limit_memory(device, options.gib)
    keep_memory()
    machine, order, history = environment(device, op.packages), random.Random(0), History()
    began, right = time.monotonic(), True
    for number, comparison in enumerate(comparisons, 1):
        head = f"[{number}/{len(comparisons)}, {time.monotonic() - began:.0f} s] {title(comparison.facts)}"
        print(head, file=sys.stderr, flush=True)
        try:
            found = compare_into(output, op.name, run, comparison, machine, limits, history, order, progress)
        except Broken as culprit:
            progress("")
            print(f"bench.run: {culprit} broke the GPU for this process; --resume goes on without it", file=sys.stderr)
            return BROKEN
        progress("")
        for name, record in (found or {}).items():
            right &= name != OURS or record["status"] in ("ok", "too slow")
        print("\n".join(summary(list((found or {}).values()))), file=sys.stderr, flush=True)
    return int(not right)


def progress(what: str) -> None:
    """On a terminal, who is at it just now; the line is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {what} ..." if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)


def title(facts: dict[str, Any]) -> str:
    shape = " ".join(f"{key} {value}" for key, value in facts["shape"].items())
    return f"{facts['case']} {facts['pass']} {facts['dtype']} {shape} {facts.get('layout', '')}".rstrip()


def summary(records: list[dict[str, Any]]) -> list[str]:
    """A line for each implementation, the fastest first."""
    lines = []
    for r in sorted(records, key=lambda r: r["time_us"]["p50"] if r["status"] == "ok" else float("inf")):
        if r["status"] == "ok":
            if "gflop_s" in r:
                share = "" if r["share_of_product"] is None else f"{r['share_of_product']:7.1%} of product"
                speed = f"{r['gflop_s']:9.1f} GFLOP/s {share}"
            else:
                share = "" if r["share_of_copy"] is None else f"{r['share_of_copy']:7.1%} of copy"
                speed = f"{r['gb_s']:9.1f} GB/s {share}"
            lines.append(f"  {r['name']:24}{r['time_us']['p50']:14.1f} us {speed}")
        else:
            lines.append(f"  {r['name']:24}{r['status']}: {r['reason']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
