"""Measure an op of vtsum_kernels against copying its bytes and against its rivals.

    python -m bench.run --op sliding_window_attention

Results go to bench/results/OP.jsonl, a line for each contestant of each contest as soon as it is known. A run that was
interrupted goes on with --resume. Progress goes to stderr. `python -m bench.report` makes tables and plots of it.
Ends with status 1 where our own kernels could not be measured: wrong numbers, or an error; with status 3 where a
contestant left the GPU unusable.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.kit.op import Options
from bench.kit.record import OURS, RESULTS, append, contest_key, machine, read

#: Each op's module has PACKAGES, PASSES, CASES, NUMBERS, WORDS, QUICK, names(device) and plan(options).
OPS = {
    "memory_retrieval": "bench.ops.memory_attention.cases",
    "sliding_window_attention": "bench.ops.sliding_window_attention.cases",
}
DTYPES = ("float32", "float16", "bfloat16")
#: The exit status where a contestant left the GPU unusable, and --resume goes on.
BROKEN = 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=__doc__,
        epilog="With --op, --help also lists what may be chosen for that op.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = "comma-separated; default: the benchmark's own plan"
    parser.add_argument("--op", choices=sorted(OPS), required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--dtype", default="", metavar="LIST", help=listed)
    parser.add_argument("--rivals", default="", metavar="LIST", help="comma-separated; default: all of them")
    parser.add_argument("--seconds", type=float, help="to spend on measuring a contestant (default 0.2, quick 0.05)")
    parser.add_argument(
        "--slow",
        type=float,
        default=1.0,
        help="leave out rivals that take more seconds a call, unless we are hardly faster",
    )
    parser.add_argument("--gib", type=float, help="leave out who needs more memory (default: a third of what is there)")
    parser.add_argument("--output", type=Path, help="default: bench/results/OP.jsonl")
    parser.add_argument("--resume", action="store_true", help="go on with the last run in the output file")
    parser.add_argument("--dry-run", action="store_true", help="list the contests and who takes part; measure nothing")
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--op")
    name = first.parse_known_args(arguments)[0].op
    if name in OPS:
        op = importlib.import_module(OPS[name])
        parser.add_argument("--quick", action="store_true", help=op.QUICK)
        parser.add_argument("--case", default="", metavar="LIST", help=f"{', '.join(op.CASES)}; {listed}")
        parser.add_argument("--passes", default="", metavar="LIST", help=f"{', '.join(op.PASSES)}; {listed}")
        for number, what in op.NUMBERS.items():
            parser.add_argument(f"--{number}", default="", metavar="LIST", help=f"{what}; {listed}")
        for word, known in op.WORDS.items():
            parser.add_argument(f"--{word}", default="", metavar="LIST", help=f"{', '.join(known)}; {listed}")
    return parser.parse_args(arguments)


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


def memory_bytes(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_alive(device: str) -> None:
    """Without a limit, the kernel ends a process that asks for more memory than there is; with it, the rival fails."""
    if device == "cpu" and sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(0.85 * memory_bytes("cpu")), resource.RLIM_INFINITY))


def environment(device: str, packages: Sequence[str]) -> dict[str, Any]:
    import torch

    facts = machine(packages)
    facts["device_type"] = device
    facts["threads"] = torch.get_num_threads()
    if device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
        facts["versions"]["cuda"] = torch.version.cuda
    else:
        import vtsum_kernels

        facts["cpu_level"] = vtsum_kernels.build_info()["cpu_level"]
    return facts


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    import torch

    from bench.kit.clock import keep_memory
    from bench.kit.comparison import Broken, History, Limits, hold

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("bench.run: --device must be cpu where torch finds no GPU, got cuda")
    op = importlib.import_module(OPS[options.op])
    wanted = Options(
        device,
        chosen("--case", options.case, op.CASES),
        chosen("--dtype", options.dtype, DTYPES),
        chosen("--passes", options.passes, op.PASSES),
        chosen("--rivals", options.rivals, op.names(device)),
        {name: numbers(f"--{name}", getattr(options, name)) for name in op.NUMBERS},
        {name: chosen(f"--{name}", getattr(options, name), known) for name, known in op.WORDS.items()},
        options.quick,
    )
    contests = op.plan(wanted)
    if options.dry_run:
        for contest in contests:
            size = f"{contest.flops / 1e9:.1f} GFLOP" if contest.flops else f"{contest.moved / 2**20:.1f} MiB"
            print(title(contest.facts), f"{size}:", ", ".join(contest.names))
        return 0

    output: Path = options.output or RESULTS / f"{options.op}.jsonl"
    run, done = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), set()
    broke: set[tuple[Any, str]] = set()
    if options.resume:
        earlier = [r for r in read(output) if r["op"] == options.op and r["device_type"] == device]
        if earlier:
            run = earlier[-1]["run"]
            done = {(contest_key(r), r["name"]) for r in earlier if r["run"] == run}
            broke = {(contest_key(r), r["name"]) for r in earlier if r["run"] == run and r.get("broke")}
    seconds = options.seconds if options.seconds is not None else 0.05 if options.quick else 0.2
    memory = int(options.gib * 2**30) if options.gib is not None else memory_bytes(device) // 3
    keep_alive(device)
    keep_memory()
    facts, order, history = environment(device, op.PACKAGES), random.Random(0), History()
    began, right = time.monotonic(), True
    for number, contest in enumerate(contests, 1):
        key = contest_key(contest.facts)
        if all((key, name) in done for name in contest.names):
            continue
        head = f"[{number}/{len(contests)}, {time.monotonic() - began:.0f} s] {title(contest.facts)}"
        facts["load_before"] = round(os.getloadavg()[0], 2)

        print(head, file=sys.stderr, flush=True)

        records: list[dict[str, Any]] = []
        without = frozenset(name for name in contest.names if (key, name) in broke)
        try:
            for record in hold(contest, Limits(seconds, options.slow, memory), history, order, progress, without):
                line = {"op": options.op, "run": run, **record, **facts}
                append(output, line)
                records.append(line)
                right &= record["name"] != OURS or record["status"] in ("ok", "too slow")
        except Broken as culprit:
            progress("")
            print(f"bench.run: {culprit} broke the GPU for this process; --resume goes on without it", file=sys.stderr)
            return BROKEN
        progress("")
        print("\n".join(summary(records)), file=sys.stderr, flush=True)
    return int(not right)


def progress(what: str) -> None:
    """On a terminal, who is at it just now; the line is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {what} ..." if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)


def title(facts: dict[str, Any]) -> str:
    shape = " ".join(f"{key} {value}" for key, value in facts["shape"].items())
    return f"{facts['case']} {facts['pass']} {facts['dtype']} {shape} {facts.get('layout', '')}".rstrip()


def summary(records: list[dict[str, Any]]) -> list[str]:
    """A line for each contestant, the fastest first."""
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
