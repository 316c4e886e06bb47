"""Compiles every Triton kernel to a cubin for each architecture, without a GPU, and looks for spilled registers."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vtsum_kernels.sliding_window_attention import triton as sliding

ARCHITECTURES = (80, 90, 100)
FLOAT_POINTERS = {"lse_ptr", "dlse_ptr", "stats_ptr"}
CASES = [(dtype, dim, flags) for dtype in ("fp32", "bf16", "fp16") for dim in (64, 256) for flags in (True, False)] + [
    ("bf16", 40, True)
]


def source(kernel: Any, dtype: str, dim: int, flags: bool) -> ASTSource:
    """A kernel with the types its launcher gives it."""
    constants = {"D": dim, **sliding.block_sizes(dim), "HAS_MASK": flags, "HAS_LSE": flags}
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name == "mask_ptr":
            signature[name] = "*u8"
        elif name.endswith("_ptr"):
            signature[name] = "*fp32" if name in FLOAT_POINTERS else f"*{dtype}"
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
    return ASTSource(kernel, signature, {name: constants[name] for name in kernel.arg_names if name in constants})


def spilled(cubin: bytes) -> str | None:
    """None if the kernel keeps nothing in local memory."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+).* LOCAL:(\d+)", usage.stdout)
    if found is None:
        return f"cuobjdump said nothing of registers: {usage.stdout[-500:]}"
    registers, stack, local = (int(number) for number in found.groups())
    return f"{stack} bytes of stack, {local} of local memory, {registers} registers" if stack or local else None


def compile_all() -> Iterator[tuple[str, str | None, str]]:
    """For each kernel and architecture: its name, what went wrong (None: nothing), and how many forms were compiled."""
    for kernel in sliding.KERNELS:
        for architecture in ARCHITECTURES:
            problems = []
            for dtype, dim, flags in CASES:
                try:
                    made = triton.compile(
                        source(kernel, dtype, dim, flags),
                        target=GPUTarget("cuda", architecture, 32),
                        options={"num_warps": 4},
                    )
                    problem = spilled(made.asm["cubin"])
                except Exception as error:  # the compiler fails in many ways; each is a finding
                    problem = f"{type(error).__name__}: {str(error)[-1500:]}"
                if problem is not None:
                    problems.append(f"  {dtype} D={dim} mask={flags}: {problem}")
            yield f"{kernel.__name__} sm_{architecture}", "\n".join(problems) or None, f"{len(CASES)} forms"
