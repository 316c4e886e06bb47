"""Looks at the installed CUDA library on a machine that needs no GPU, as `make check-cuda` does.

It runs in an environment with a CUDA build of torch and the wheel, outside this tree, and imports nothing of it. Held
are: all symbols are found when the library is loaded, every op has a kernel of its own for CUDA, and no kernel in the
file, for any architecture, keeps anything in local memory. Nothing is computed. Prints what was found; leaves with
status 1 if something does not hold.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

if os.environ.get("LD_BIND_NOW") != "1":  # the dynamic loader reads it as a process begins
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_BIND_NOW": "1"})

import torch
import triton
import vtsum_kernels as vk
from vtsum_kernels import namespace

USAGE = re.compile(r"Function (\S+?):?\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
# Steps of the CPU's own forms, which no other device takes.
OF_THE_CPU = (
    *(f"memory_{name}" for name in ["layer_bwd", "layer_fwd", "matmul", "product_", "rescore_", "round"]),
    *(f"memory_{name}" for name in ["rows_slopes_", "rows_softmax_", "search_", "shortlist_", "unproject_"]),
    *(f"sliding_window_attention_blockwise_{name}" for name in ["fwd", "bwd"]),
)
DIVISION = 8  # bytes of stack: a call of the 64-bit division keeps its return address, which is no spill


def main() -> int:
    folder = Path(vk.__file__).parent
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}; {folder}")
    wrong = []
    libraries = vk.build_info()["libraries"]
    wrong += [f"{name} is not loaded: {entry['reason']}" for name, entry in libraries.items() if not entry["loaded"]]
    files = list(folder.glob("_cuda.*so"))
    if len(files) != 1:
        wrong.append(f"one CUDA library must be installed, got {len(files)}")
    wrong += _without_kernels()
    for file in files:
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
        wrong += _in_local_memory(file)
    for line in wrong:
        print(f"FAILED {line}")
    return 1 if wrong else 0


def _without_kernels() -> list[str]:
    """The ops that have a kernel for the CPU and none for CUDA."""
    ours = namespace.add_op_namespace_prefix("")
    every = {device: torch._C._dispatch_get_registrations_for_dispatch_key(device) for device in ("CPU", "CUDA")}
    on = {device: {name for name in names if name.startswith(ours)} for device, names in every.items()}
    print(f"{len(on['CPU'])} ops have a kernel for the CPU, {len(on['CUDA'])} one for CUDA")
    others = {ours + name for name in OF_THE_CPU}
    wrong = [f"{name} has no kernel for CUDA" for name in sorted(on["CPU"] - on["CUDA"] - others)]
    wrong += [f"{name} must not be listed as the CPU's own" for name in sorted(others - (on["CPU"] - on["CUDA"]))]
    return wrong if on["CUDA"] else [*wrong, "no op has a kernel for CUDA"]


def _in_local_memory(file: Path) -> list[str]:
    """The kernels of a library that spill."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True)
    said = done.stdout + done.stderr
    kernels = USAGE.findall(said)
    if done.returncode or not kernels:
        return [f"cuobjdump tells of no kernel: {said.strip().splitlines()[-1] if said.strip() else 'nothing said'}"]
    each = Counter(re.findall(r"^arch = (\S+)", said, re.MULTILINE))
    most = max(int(registers) for _, registers, *_ in kernels)
    print(f"{len(kernels)} kernels in all, at most {most} registers; cubins: {dict(sorted(each.items()))}")
    bad = [kernel for kernel in kernels if int(kernel[2]) > DIVISION or int(kernel[4])]
    return [f"{name} keeps {stack} bytes of stack and {local} of local memory" for name, _, stack, _, local in bad]


if __name__ == "__main__":
    sys.exit(main())
