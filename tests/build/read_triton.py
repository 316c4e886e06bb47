"""What a Triton kernel was made into, without a GPU: ``python -m tests.build.read_triton "bf16 D=64 w=5"``.

A line a launch of the cases of compile_triton.py whose name is given: registers, what is spilled, shared memory, warps
that fit an SM, instructions and barriers, and of the loads and stores of global memory how many bits each moves.
``--candidates`` has it for every size that is tried, not the default alone. Instructions are those of the whole kernel,
the way for NaN and infinities included, which is called and seldom runs; and of its longest loop without another in it,
where powers of two tell how many scores each thread computes in a step: several threads may compute the same.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from vtsum_kernels.triton_kit.tuning import Config

from bench.gpu.registers import find_cuobjdump
from bench.gpu.sass import Function
from bench.gpu.sass import read as read_sass
from tests.build import compile_triton, triton_memory
from tests.build.compile_triton import CASES, Case, Launch, Usage, compiled

#: Registers and warps of an SM; registers are handed out 8 a thread at a time, to whole warps.
REGISTERS, WARPS = 65536, {80: 64, 90: 64, 100: 64}
#: Modules that choose sizes.
LAUNCHERS = (
    "sliding_window_attention.triton.launch",
    "memory_attention.triton.launch",
    "memory_attention.triton.flash_launch",
    "memory_fuse.triton.launch",
)
WIDTH = re.compile(r"\.(128|64|[US]16|[US]8)\b")


class Read(NamedTuple):
    """A compiled kernel."""

    usage: Usage
    shared: int
    code: Function

    @property
    def powers(self) -> int:
        """Powers of two in the longest loop."""
        return self.code.inner.count("MUFU.EX2")

    def moved(self, kind: str) -> Counter[int]:
        """Loads (LDG; those into shared memory among them) or stores (STG) by the bits that a thread's moves."""
        return Counter(bits(name) for name in self.code.names if name.startswith(kind))


def read(architecture: int, launch: Launch) -> Read:
    made, used = compiled(architecture, launch)
    cuobjdump = find_cuobjdump()
    assert cuobjdump is not None  # it comes with Triton
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        (code,) = read_sass(cuobjdump, Path(file.name)).values()
    return Read(used, int(made.metadata.shared), code)


def bits(name: str) -> int:
    """How many bits a thread's load or store moves, by its name."""
    found = WIDTH.search(name.replace("LTC128B", "").replace("LTC64B", ""))
    return int(found[1].lstrip("US")) if found else 32


def warps_an_sm(architecture: int, read: Read, warps: int) -> int:
    """How many warps of such programs fit an SM."""
    registers = -(-read.usage.registers // 8) * 8 * 32
    programs = min(REGISTERS // registers // warps, WARPS[architecture] // warps)
    room = compile_triton.SHARED_MEMORY[architecture] + 1024  # each program takes 1 KiB for the system
    return min(programs, room // (read.shared + 1024)) * warps


def every(words: Any, device: Any, sizes: Sequence[Config], call: Any, measured: Sequence[Config] = ()) -> Any:
    """In place of the launchers' run: a call with each of the sizes."""
    results = [call(config) for config in sizes]
    return results[0]


def launches(case: Case | triton_memory.Case, candidates: bool) -> list[Launch]:
    """Those of a call of the case; with `candidates`, of every size that it is tried with."""
    with contextlib.ExitStack() as stack:
        for name in LAUNCHERS if candidates else ():
            stack.enter_context(mock.patch(f"vtsum_kernels.{name}.run", every))
        return compile_triton.launches(case)


def told(counts: Counter[int]) -> str:
    return " + ".join(f"{count} of {size}" for size, count in sorted(counts.items(), reverse=True)) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description="What Triton kernels were made into: a line a launch.")
    parser.add_argument("case", help="a case's name as `python -m tests.build.compile_gpu` prints it, or its beginning")
    parser.add_argument("--kernel", default="", help="those whose name has this in it")
    parser.add_argument("--architecture", type=int, default=90, choices=sorted(WARPS))
    parser.add_argument("--candidates", action="store_true", help="every size that is tried, not the default alone")
    chosen = parser.parse_args()
    cases = [case for case in (*CASES, *triton_memory.CASES) if str(case).startswith(chosen.case)]
    if not cases:
        parser.error(f"case must be the beginning of one of {', '.join(map(str, CASES))} ..., got {chosen.case!r}")
    for case in cases:
        for launch in launches(case, chosen.candidates):
            if chosen.kernel not in launch.kernel.__name__:
                continue
            sizes = ",".join(map(str, launch.config[1:]))
            name = f"{case} {launch.kernel.__name__.removesuffix('_kernel')} {launch.config.form} {sizes}"
            try:
                found = read(chosen.architecture, launch)
            except Exception as error:  # beyond the compiler: a candidate is passed over, too
                print(f"{name}: {type(error).__name__}: {str(error)[-200:]}", flush=True)
                continue
            warps = warps_an_sm(chosen.architecture, found, launch.config.warps)
            spilled = f" {found.usage.stored} + {found.usage.loaded} bytes spilled," if found.usage.stored else ""
            barriers = sum(name.startswith("BAR.SYNC") for name in found.code.names)
            code, inner = found.code, found.code.inner
            print(
                f"{name}: {found.usage.registers} registers,{spilled} {found.shared} bytes shared, {warps} warps an SM,"
                f" {len(code.names)} instructions, {len(inner)} of them and {found.powers} powers of two in the longest"
                f" loop, {barriers} barriers; "
                f"loads {told(found.moved('LDG'))}; stores {told(found.moved('STG'))} bits",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
