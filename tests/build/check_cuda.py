"""Looks at the installed CUDA library on a machine that needs no GPU: ``python check_cuda.py``, as `make check-cuda` does.

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

import torch  # noqa: E402
import triton  # noqa: E402
import vtsum_kernels as vk  # noqa: E402
from vtsum_kernels import namespace  # noqa: E402

USAGE = re.compile(r"Function (\S+?):?\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
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
    on = {
        device: {name for name in torch._C._dispatch_get_registrations_for_dispatch_key(device) if name.startswith(ours)}
        for device in ("CPU", "CUDA")
    }
    print(f"{len(on['CPU'])} ops have a kernel for the CPU, {len(on['CUDA'])} one for CUDA")
    missing = sorted(on["CPU"] - on["CUDA"])
    return [f"{name} has no kernel for CUDA" for name in missing] or ([] if on["CUDA"] else ["no op has one for CUDA"])


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
