"""What the window op's CUDA kernels should take on a GPU, from what the compiler made of them: no GPU is needed.

    python -m bench.gpu.cost [--arch 90] [--results FILE]

Each kernel of KERNELS is compiled by nvcc and read by cuobjdump. With how its launch cuts the work, that gives the
least times of

    memory     the tensors' bytes, and what strips read twice, at the speed of a copy
    issue      a scheduler begins one instruction a clock; of what stands in a loop dropout's branch is left out, those
               of the edges are not, so this is at most what is said
    tensor     products by mma.sync, which reaches MMA of the tensor cores' peak
    special    exponentials: SPECIAL lanes a clock and scheduler

on the cards of CARDS. The longest of them, over the share of the last round of blocks that has work, is the prediction;
what no count shows (latencies, banks, pages of DRAM) comes on top. A JSON line a kernel and card goes to
results/gpu_cost.jsonl, and `python -m bench.report` writes the table in docs/TUNING.md.

Source: NVIDIA's data sheets of H100 SXM and H200 (multiprocessors, bandwidth, peak, from which the clock); Luo et al.,
"Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", arXiv 2402.13499 (mma.sync).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.gpu.nvcc import CSRC, find_nvcc, nvcc_flags
from bench.gpu.predictions import COPY, VIDEO
from bench.gpu.registers import find_cuobjdump
from bench.gpu.sass import Function, read
from bench.kit.command import keep
from bench.kit.plot import seconds
from bench.kit.record import RESULTS, machine
from bench.kit.tables import Records, Tables, newest, records, table

#: Of a multiprocessor of compute capability 9.0; of its shared memory 1 KiB a block is the system's.
SCHEDULERS, SPECIAL, REGISTERS, SHARED, WARPS = 4, 4, 65536, 228 * 1024, 64
MMA, FLOPS_OF_MMA = 0.62, 2 * 16 * 8 * 16
ROW = VIDEO["D"] * 2  # bytes, of bfloat16
ROWS = VIDEO["B"] * VIDEO["H"] * VIDEO["T"]


class Card(NamedTuple):
    """A GPU: multiprocessors, bytes a second that a copy reads and writes, bfloat16 operations a second at its peak."""

    processors: int
    copy: float
    peak: float

    @property
    def clock(self) -> float:
        return self.peak / (self.processors * 4096)


#: The H100's copy has the same share of its data sheet's bandwidth as the H200's, which was measured.
CARDS = {"H100": Card(132, COPY * 3.35 / 4.8, 989.4e12), "H200": Card(132, COPY, 989.4e12)}


class Loop(NamedTuple):
    """Instructions a turn of a loop: all, tensor products (HMMA), special functions (MUFU)."""

    instructions: float
    products: float
    specials: float


class Work(NamedTuple):
    """How a launch cuts VIDEO on a card: runs of the loop by all warps together, the part of what is read that is read
    twice, and the share of all rounds of blocks that has work."""

    loops: int
    again: float
    busy: float


class Kernel(NamedTuple):
    """A kernel for a window: the file and the part of the mangled name that it is found by, how many tensors it reads
    and writes whole, bytes of shared memory a block, warps a block, how blocks on the card become work, and how many
    turns the loop that is counted takes in each turn of one around it."""

    what: str
    unit: str
    name: str
    window: int
    tensors: tuple[int, int]
    shared: int
    warps: int
    work: Callable[[Kernel, int], Work]
    turns: int = 1


def ring(kernel: Kernel, blocks: int) -> Work:
    """As `cut` of ring_plan.h: every warp has four strips of 8 lanes, and strips are as long as all warps can share."""
    halo, warps = kernel.window - 1, blocks * kernel.warps
    share = math.ceil(ROWS / (warps * 4))
    wanted = math.ceil(share / math.ceil(share / 512))
    rows = math.ceil((wanted + halo) / 8) * 8 - halo
    strips = math.ceil(VIDEO["T"] / rows)
    groups = math.ceil(VIDEO["B"] * VIDEO["H"] * strips / 4)
    return Work(groups * ((rows + halo) // 8), halo / rows, groups / (math.ceil(groups / warps) * warps))


def strip(kernel: Kernel, blocks: int) -> Work:
    """As `cut_walks` of strip.h: walks of one warp over 16-row units."""
    lines, units = VIDEO["B"] * VIDEO["H"], math.ceil(VIDEO["T"] / 16)
    extra = 3 if kernel.what == "strip forward" else 5  # 16-row blocks that a walk reads besides its own
    ways = []
    for per_warp in range(1, 9):
        count = min(max(per_warp * blocks // lines, 1), units)
        length = math.ceil(units / count)
        walks = lines * math.ceil(units / length)
        ways.append((math.ceil(walks / blocks) * (length + extra), length, walks))
    _, length, walks = min(ways)
    return Work(walks * (length + extra), extra / length, walks / (math.ceil(walks / blocks) * blocks))


def tile(kernel: Kernel, blocks: int) -> Work:
    """A block of four warps for 64 rows (or keys), which see steps of 64 keys (or rows), each in so many turns; L2
    holds what neighbours share."""
    tiles = VIDEO["B"] * VIDEO["H"] * math.ceil(VIDEO["T"] / 64)
    steps = 1 + 2 * math.ceil((kernel.window // 2) / 64)
    return Work(tiles * kernel.warps * steps * kernel.turns, 0.0, tiles / (math.ceil(tiles / blocks) * blocks))


_BF16 = "_kernelI13__nv_bfloat16"
KERNELS = (
    Kernel("ring forward", "ring_fwd_bfloat16", f"ring_fwd{_BF16}Li8ELi5ELb0E", 5, (3, 1), 24576, 2, ring),
    Kernel("ring backward", "ring_bwd_bfloat16", f"ring_bwd{_BF16}Li8ELi5ELb0E", 5, (4, 3), 57344, 2, ring),
    Kernel("ring forward", "ring_fwd_bfloat16", f"ring_fwd{_BF16}Li8ELi9ELb0E", 9, (3, 1), 24576, 2, ring),
    Kernel("ring backward", "ring_bwd_bfloat16", f"ring_bwd{_BF16}Li8ELi9ELb0E", 9, (4, 3), 57344, 2, ring),
    Kernel("strip forward", "strip_fwd", f"strip_fwd{_BF16}Li64ELi3E", 33, (3, 1), 10 * 16 * ROW, 1, strip),
    Kernel("strip backward", "strip_bwd", f"strip_bwd{_BF16}Li64ELi3E", 33, (4, 3), 16 * 16 * ROW, 1, strip),
    Kernel("tile forward", "tile_fwd", f"tile_fwd{_BF16}Li64E", 129, (3, 1), 57344, 4, tile, 2),
    Kernel("tile backward, dq", "tile_bwd", f"tile_bwd_rows{_BF16}Li64E", 129, (5, 1), 67072, 4, tile, 2),
    Kernel("tile backward, dk dv", "tile_bwd", f"tile_bwd_keys{_BF16}Li64E", 129, (4, 2), 67072, 4, tile, 4),
)


def resident(kernel: Kernel, registers: int) -> int:
    """Blocks of a kernel that a multiprocessor holds at once."""
    of_registers = REGISTERS // (math.ceil(registers / 8) * 8 * 32 * kernel.warps)
    most = 12 if kernel.work is strip else 32  # strips are cut for at most so many
    return min(of_registers, SHARED // (kernel.shared + 1024), WARPS // kernel.warps, most)


def predicted(kernel: Kernel, registers: int, loop: Loop, card: Card) -> dict[str, Any]:
    """The least times by what they are bound by, in seconds, and the prediction."""
    blocks = resident(kernel, registers)
    work = kernel.work(kernel, blocks * card.processors)
    reads, writes = kernel.tensors
    each = work.loops / (card.processors * SCHEDULERS)  # loops of a scheduler
    times = {
        "memory": ROWS * ROW * (reads * (1 + work.again) + writes) / card.copy,
        "issue": each * loop.instructions / card.clock,
        "tensor": work.loops * loop.products * FLOPS_OF_MMA / (MMA * card.peak),
        "special": each * loop.specials * 32 / SPECIAL / card.clock,
    }
    bound = max(times, key=times.__getitem__)
    return {"resident": blocks, "times": times, "bound": bound, "predicted_s": times[bound] / work.busy}


def counted(function: Function, turns: int) -> Loop:
    """A turn of the longest loop, or of the one within that takes so many turns in each of its own."""

    def of(names: list[str]) -> tuple[int, int, int]:
        return len(names), sum(n.startswith("HMMA") for n in names), sum(n.startswith("MUFU") for n in names)

    outer, inner = of(function.loop), of(function.within)
    return Loop(*((all_ - own) / turns + own if turns > 1 else all_ for all_, own in zip(outer, inner, strict=True)))


def compiled(arch: int, nvcc: str, cuobjdump: str) -> dict[str, Function]:
    """Every kernel of the files that KERNELS names, by mangled name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for unit in dict.fromkeys(kernel.unit for kernel in KERNELS):
            source, cubin = CSRC / "cuda" / "sliding_window_attention" / f"{unit}.cu", Path(folder, f"{unit}.cubin")
            subprocess.run(
                [nvcc, "-cubin", *nvcc_flags(), f"-arch=sm_{arch}", "-o", str(cubin), str(source)], check=True
            )
            found.update(read(cuobjdump, cubin))
    return found


def lines(arch: int, found: dict[str, Function]) -> Iterator[dict[str, Any]]:
    """A record a kernel and card, from what `compiled` gave."""
    for kernel in KERNELS:
        function = next(function for name, function in found.items() if kernel.name in name)
        registers, loop = function.registers, counted(function, kernel.turns)
        for name, card in CARDS.items():
            yield {
                "op": "gpu_cost",
                "kernel": kernel.what,
                "window": kernel.window,
                "shape": VIDEO,
                "dtype": "bfloat16",
                "arch": arch,
                "card": name,
                "registers": registers,
                "loop": loop._asdict(),
                **predicted(kernel, registers, loop, card),
            }


def prediction_of(op: str, measured: Mapping[str, Any], found: Records | None = None) -> tuple[float, str] | None:
    """Seconds that a call of an op should take which a record is of, and what binds the longest of its kernels; None
    where nothing is predicted of such a call, of what served it, or of its card."""
    shape, device = measured.get("shape", {}), str(measured.get("device"))
    card = next((name for name in CARDS if name in device), None)
    told = {"case": "sweep", "dtype": "bfloat16", "backend": "cuda"}
    known = op == "sliding_window_attention" and all(measured.get(name) == value for name, value in told.items())
    if not known or card is None or any(shape.get(name) != size for name, size in VIDEO.items()):
        return None
    wanted = {"fwd": ("forward",), "bwd": ("backward",), "fwd+bwd": ("forward", "backward")}.get(measured["pass"], ())
    each = newest(records("gpu_cost", found), "kernel", window=shape.get("window"), card=card)
    chosen = [line for (kernel,), line in each.items() if any(word in kernel for word in wanted)]
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
                f"{what}, window {window}",
                f"{line['registers']}, {line['resident']}",
                f"{line['loop']['instructions']:,.0f}",
                *(seconds(line["times"][by]) if line["times"][by] else "" for by in ("memory", "issue", "tensor")),
                seconds(line["times"]["special"]),
                seconds(line["predicted_s"]),
                seconds(other["predicted_s"]),
            ])  # fmt: skip
    last = next(reversed(each.values()), None)
    below = last and f"sm_{last['arch']}, nvcc {last['versions']['nvcc']}, commit {last['commit']}."
    head = ["bfloat16", "registers, blocks a multiprocessor", "instructions of the loop", "memory", "issue", "tensor"]
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
