"""What the compilers made of the kernels: registers, spills, shared memory."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Line
from bench.kit.kernels import Used
from bench.kit.record import ROOT

#: A call of a device function may keep its return address on the stack without spilling anything.
STACK = 8


def kernel_name(symbol: str) -> str | None:
    """The function of ours that a mangled symbol is an instance of: NAME_kernel."""
    for digits in re.finditer(r"\d+", symbol):
        for start in range(digits.start(), digits.end()):  # other names end with digits, too
            name = symbol[digits.end() : digits.end() + int(symbol[start : digits.end()])]
            if re.fullmatch(r"[a-z]\w*_kernel", name):
                return name
    return None


def read_resources(text: str) -> dict[str, list[Used]]:
    """From `cuobjdump --dump-resource-usage`: by kernel, what each of its instances takes."""
    found: dict[str, list[Used]] = {}
    for symbol, numbers in re.findall(r"Function (\S+):\s*\n\s*(REG:.*)", text):
        if (name := kernel_name(symbol)) is not None:
            values = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", numbers)}
            used = Used(values["REG"], max(values.get("STACK", 0), values.get("LOCAL", 0)), values.get("SHARED", 0))
            found.setdefault(name, []).append(used)
    return found


def find_cuobjdump(path: str | None = None) -> str | None:
    """The program, on that PATH or in Triton's package; None where there is none."""
    for folder in map(Path, sys.path):
        program = folder / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"
        if program.is_file():
            return shutil.which("cuobjdump", path=path) or str(program)
    return shutil.which("cuobjdump", path=path)


def resources(context: Context) -> Line:
    """Registers, spills and shared memory of the CUDA kernels as they were built."""
    check = "CUDA kernels' registers and spills"
    libraries = sorted((ROOT / "kernels" / "vtsum_kernels").glob("_cuda.*so"))
    program = find_cuobjdump(context.environment.get("PATH"))
    if program is None or not libraries:
        return Line(check, "absent", "cuobjdump was not found" if libraries else "the CUDA kernels are not built")
    done = context.call([program, "--dump-resource-usage", libraries[0]], min(60.0, context.left()))
    found = read_resources(done.output)
    if not done.ok or not found:
        return Line(check, "failed", done.why() if not done.ok else f"{libraries[0].name} holds none of our kernels")
    facts, line = told(check, found)
    context.note(cuda_kernels=facts)
    return line


def told(check: str, found: Mapping[str, Collection[Used]]) -> tuple[dict[str, Any], Line]:
    """What each kernel's largest instances take, for the facts; and a line for all."""
    facts = {
        name: {"instances": len(each), **{key: max(getattr(used, key) for used in each) for key in Used._fields}}
        for name, each in found.items()
    }
    spilling = sorted(name for name, most in facts.items() if most["stack"] > STACK)
    registers, widest = max((most["registers"], name) for name, most in facts.items())
    detail = f"{sum(map(len, found.values()))} kernels, at most {registers} registers ({widest})"
    if spilling:
        return facts, Line(check, "failed", f"{detail}; on the stack: {', '.join(spilling)}")
    return facts, Line(check, "ok", f"{detail}, none spills")
