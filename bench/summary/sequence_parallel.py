"""Windows over a sequence in stretches on ranks: a halo against gathering k and v whole, and against Ulysses. With
`--all` every frame sees every other: frames exchanged for heads against a ring, and against gathering.

    python -m bench.summary.sequence_parallel [--ranks 2 4] [--frames 2048 8192 32768] [--window 65 | --all]

Each rank is a process of its own on this machine, by gloo, of one thread. Measured are forward and backward of the
attention alone (B 1, H 12, D 64), all ranks starting together: the time of the slowest, the median of `--repeats`
rounds in which the ways take turns; and the bytes that a rank hands over for others. `alone` is the same without any
exchange: what is left of a time without it is the exchange's. A time is only kept where outputs and gradients are those
of one process. One JSON line for each number of ranks, length and way goes to results/sequence_parallel.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine

BATCH, HEADS, DIM = 1, 12, 64
#: How far a float32 number may be from one process's, of the largest.
TOLERANCE = 1e-5


def measure(options: argparse.Namespace, rank: int, ranks: int, store: str) -> Iterator[dict[str, Any]]:
    """This rank's part of all measurements; each rank yields all results."""
    import torch
    import torch.distributed as dist

    from bench.summary import full_attention_ways, sequence_parallel_ways
    from vtsum.processes import load_collectives

    ways = sequence_parallel_ways
    each = full_attention_ways.WAYS if options.all else ways.WAYS
    torch.set_num_threads(1)
    load_collectives()
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    ways.count_messages()
    for frames in options.frames:
        generator = torch.Generator().manual_seed(0)
        whole = [torch.randn(BATCH, HEADS, frames, DIM, generator=generator) for _ in range(4)]
        own = slice(rank * frames // ranks, (rank + 1) * frames // ranks)
        q, k, v = (x[:, :, own].clone().requires_grad_() for x in whole[:3])
        dout = whole[3][:, :, own].clone()
        wanted = [x[:, :, own].clone() for x in _one_process(whole, None if options.all else options.window)]
        del whole

        def step(way: ways.Way, inputs: Any = (q, k, v), dout: Any = dout) -> list[torch.Tensor]:
            out = way(inputs[0], inputs[1], inputs[2], options.window)
            return [out.detach(), *torch.autograd.grad(out, inputs, dout)]

        apart: dict[str, float] = {}
        for name, way in each.items():
            found = step(way)
            worst = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, wanted, strict=True))
            apart[name] = max(_everyones(worst))
        taken: dict[str, list[float]] = {name: [] for name in each}
        sent: dict[str, int] = {}
        for _ in range(options.repeats):
            for name, way in each.items():
                ways.handed = 0
                dist.barrier()
                began = time.perf_counter()
                step(way)
                taken[name].append(max(_everyones(time.perf_counter() - began)))
                sent[name] = ways.handed
        for name in each:
            right = apart[name] <= TOLERANCE
            yield {
                "op": "sequence_parallel",
                "way": name,
                "ranks": ranks,
                "shape": {"B": BATCH, "H": HEADS, "T": frames, "D": DIM},
                "window": None if options.all else options.window,
                "dtype": "float32",
                "device_type": "cpu",
                "difference": apart[name],
                "right": right,
                "s": round(statistics.median(taken[name]), 6) if right or name == "alone" else None,
                "sent_bytes": int(max(_everyones(sent[name]))),
                "repeats": options.repeats,
            }
    dist.destroy_process_group()


def _one_process(whole: list[Any], window: int | None) -> list[Any]:
    import torch
    from vtsum_kernels import sliding_window_attention

    inputs = [x.detach().requires_grad_() for x in whole[:3]]
    if window is None:
        out = torch.nn.functional.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2])
    else:
        out = sliding_window_attention(inputs[0], inputs[1], inputs[2], window)
    return [out.detach(), *torch.autograd.grad(out, inputs, whole[3])]


def _everyones(value: float) -> list[float]:
    import torch
    import torch.distributed as dist

    found = [torch.zeros(1, dtype=torch.float64) for _ in range(dist.get_world_size())]
    dist.all_gather(found, torch.tensor([float(value)], dtype=torch.float64))
    return [float(x) for x in found]


def together(options: argparse.Namespace, ranks: int) -> list[dict[str, Any]]:
    """The measurements of so many processes."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "bench.summary.sequence_parallel", "--frames", *map(str, options.frames)]
        words += ["--all"] if options.all else ["--window", str(options.window)]
        words += ["--repeats", str(options.repeats), "--results", os.devnull]
        started = []
        for rank in range(ranks):
            with open(Path(folder) / f"{rank}.out", "wb") as out:
                place = ["--measure", str(rank), str(ranks), f"{folder}/store"]
                started.append(subprocess.Popen([*words, *place], env=environment, stdout=out))
        try:
            ended = [process.wait(options.timeout) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        if any(ended):
            raise SystemExit(f"sequence_parallel: all {ranks} processes must end with 0, got {ended}")
        return [json.loads(line) for line in (Path(folder) / "0.out").read_text().splitlines()]


def main() -> None:
    given = parser(__doc__, "sequence_parallel")
    given.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="divisors of 12 heads and of all lengths")
    given.add_argument("--frames", type=int, nargs="+", default=[2048, 8192, 32768], help="of the whole sequence")
    given.add_argument("--window", type=int, default=65)
    given.add_argument("--all", action="store_true", help="every frame sees every other")
    given.add_argument("--repeats", type=int, default=15)
    given.add_argument("--timeout", type=float, default=1200.0, help="seconds for one number of ranks")
    given.add_argument("--measure", nargs=3, metavar=("RANK", "RANKS", "STORE"), help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.measure:
        rank, ranks, store = options.measure
        for line in measure(options, int(rank), int(ranks), store):
            print(json.dumps(line), flush=True)
        return
    wrong = False
    for ranks in options.ranks:
        if HEADS % ranks or any(frames % ranks for frames in options.frames):
            raise SystemExit(f"sequence_parallel: ranks must divide {HEADS} heads and all frames, got {ranks}")
        lines = together(options, ranks)
        keep(options.results, machine(("torch",)), lines)
        wrong = wrong or any(line["way"] in ("halo", "heads") and not line["right"] for line in lines)
    if wrong:
        raise SystemExit("sequence_parallel: our results must be those of one process, are not")


if __name__ == "__main__":
    main()
