"""What the CUDA kernels should take on a GPU, from what the compiler made of them: no GPU is needed.

    python -m bench.gpu.cost [--arch 90] [--results FILE]

Each kernel of `cost_window` and `cost_memory` is compiled by nvcc and read by cuobjdump. With how its launch cuts the
work, that gives the least times of

    memory     the tensors' bytes, and what strips read twice, at the speed of a copy
    issue      a scheduler begins one instruction a clock; of what stands in a loop dropout's branch is left out, those
               of the edges are not, so this is at most what is said
    tensor     products by mma.sync, which reaches MMA of the tensor cores' peak
    special    exponentials: SPECIAL lanes a clock and scheduler

on the cards of CARDS. The longest of them, over the share of the last round of blocks that has work, is the prediction;
what no count shows (latencies, banks, pages of DRAM) comes on top. A JSON line a kernel and card goes to
results/gpu_cost.jsonl, and `python -m bench.report` writes the table in docs/TUNING.md.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu import cost_memory, cost_window
from bench.gpu.card import CARDS, predicted
from bench.gpu.nvcc import CSRC, find_nvcc, nvcc_flags
from bench.gpu.predictions import BANK, VIDEO
from bench.gpu.registers import find_cuobjdump
from bench.gpu.sass import Function, read
from bench.kit.command import keep
from bench.kit.plot import seconds
from bench.kit.record import RESULTS, machine
from bench.kit.tables import Records, Tables, newest, records, table

Kernel = cost_window.Kernel | cost_memory.Kernel
KERNELS: tuple[Kernel, ...] = (*cost_window.KERNELS, *cost_memory.KERNELS)


def compiled(arch: int, nvcc: str, cuobjdump: str) -> dict[str, Function]:
    """Every kernel of the files that KERNELS names, by mangled name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, unit in enumerate(dict.fromkeys(kernel.unit for kernel in KERNELS)):
            source, cubin = CSRC / "cuda" / f"{unit}.cu", Path(folder, f"{number}.cubin")
            subprocess.run(
                [nvcc, "-cubin", *nvcc_flags(), f"-arch=sm_{arch}", "-o", str(cubin), str(source)], check=True
            )
            found.update(read(cuobjdump, cubin))
    return found


def lines(arch: int, found: dict[str, Function]) -> Iterator[dict[str, Any]]:
    """A record a kernel and card, from what `compiled` gave."""
    for kernel in KERNELS:
        function = next((function for name, function in found.items() if kernel.name in name), None)
        if function is None:
            raise LookupError(f"{kernel.unit}.cu must have a kernel whose name holds {kernel.name}, has none")
        loop, blocks = kernel.loop(function), kernel.blocks(function.registers)
        for name, card in CARDS.items():
            yield {
                "op": "gpu_cost",
                **kernel.facts,
                "dtype": "bfloat16",
                "arch": arch,
                "card": name,
                "registers": function.registers,
                "resident": blocks,
                "loop": loop._asdict(),
                **predicted(kernel.asked(blocks, loop, card), card),
            }


def prediction_of(op: str, measured: Mapping[str, Any], found: Records | None = None) -> tuple[float, str] | None:
    """Seconds that a call of an op should take which a record is of, and what binds the longest of its kernels; None
    where nothing is predicted of such a call, of what served it, or of its card."""
    shape, device = measured.get("shape", {}), str(measured.get("device"))
    card = next((name for name in CARDS if name in device), None)
    if card is None or (measured.get("dtype"), measured.get("backend")) != ("bfloat16", "cuda"):
        return None
    each = newest(records("gpu_cost", found), "kernel", window=shape.get("window"), card=card)
    case, way = measured.get("case"), measured["pass"]
    if (op, case) == (cost_window.OF, "sweep") and VIDEO.items() <= shape.items():
        words = {"fwd": ("forward",), "bwd": ("backward",), "fwd+bwd": ("forward", "backward")}.get(way, ())
        chosen = [line for (kernel,), line in each.items() if any(word in kernel for word in words)]
    else:
        alone = [kernel for kernel in cost_memory.KERNELS if kernel.measured == (op, case) and way == "fwd"]
        alone = [kernel for kernel in alone if {**BANK, **kernel.shape}.items() <= shape.items()]
        chosen = [each[kernel.what,] for kernel in alone if (kernel.what,) in each]
    if not chosen:
        return None
    longest = max(chosen, key=lambda line: line["predicted_s"])
    return sum(line["predicted_s"] for line in chosen), longest["bound"]


def costs(found: Records | None = None) -> str:
    """A row a kernel, on the H200; the H100's prediction beside it."""
    each = newest(records("gpu_cost", found), "kernel", "window", "card")
    rows = []
    for (what, window, card), line in each.items():
        other = each.get((what, window, "H100"))
        if card == "H200" and other is not None:
            rows.append([
                what if window is None else f"{what}, window {window}",
                f"{line['registers']}, {line['resident']}",
                f"{line['loop']['instructions']:,.0f}",
                *(seconds(line["times"][by]) if line["times"][by] else "" for by in ("memory", "issue", "tensor")),
                seconds(line["times"]["special"]) if line["times"]["special"] else "",
                seconds(line["predicted_s"]),
                seconds(other["predicted_s"]),
            ])  # fmt: skip
    last = next(reversed(each.values()), None)
    below = last and f"sm_{last['arch']}, nvcc {last['versions']['nvcc']}, commit {last['commit']}."
    head = ["bfloat16", "registers, blocks a multiprocessor", "instructions", "memory", "issue", "tensor"]
    return table([*head, "special", "predicted, H200", "H100"], rows, below or "")


TABLES: Tables = {"gpu_cost": costs}


def main() -> None:
    given = argparse.ArgumentParser(
        prog="python -m bench.gpu.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given.add_argument("--arch", type=int, default=90, help="compute capability, of Hopper's cards 90")
    given.add_argument("--results", type=Path, default=RESULTS / "gpu_cost.jsonl", help="default: %(default)s")
    options = given.parse_args()
    nvcc, cuobjdump = find_nvcc(), find_cuobjdump()
    if nvcc is None or cuobjdump is None:
        raise SystemExit(f"cost: {'nvcc' if nvcc is None else 'cuobjdump'} must be on the path, was not found")
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    facts = machine(())
    facts["versions"]["nvcc"] = said.partition("release ")[2].partition(",")[0]
    keep(options.results, facts, lines(options.arch, compiled(options.arch, nvcc, cuobjdump)))


if __name__ == "__main__":
    main()
