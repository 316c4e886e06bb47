"""What stands in a compiled CUDA file, kernel by kernel: registers, and the instructions of the longest loop."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

_FUNCTION = re.compile(r"^\s*Function : (\S+)$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,6})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", re.MULTILINE)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


class Loop(NamedTuple):
    """Instructions that stand in a loop: all, tensor products (HMMA), special functions (MUFU)."""

    instructions: int
    products: int
    specials: int


def longest_loop(text: str) -> Loop:
    """From one function's part of `cuobjdump -sass`: the longest stretch that a branch back closes, without what the
    compiler laid behind the function's end, whence it branches back too. One of none is the whole function."""
    found = [(int(at, 16), when, name, rest) for at, when, name, rest in _INSTRUCTION.findall(text) if name != "NOP"]
    end = next((at for at, when, name, _ in found if name == "EXIT" and not when), math.inf)
    loops = [
        (int(target[1], 16), at)
        for at, _, name, rest in found
        if at < end and name.startswith("BRA") and (target := _TARGET.search(rest)) and int(target[1], 16) < at
    ]
    first, last = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, found[-1][0] if found else 0))
    names = [name for at, _, name, _ in found if first <= at <= last]
    return Loop(len(names), sum(n.startswith("HMMA") for n in names), sum(n.startswith("MUFU") for n in names))


def read(cuobjdump: str, cubin: Path) -> dict[str, tuple[int, Loop]]:
    """By mangled name: registers of a thread, and the longest loop."""

    def said(option: str) -> str:
        return subprocess.run([cuobjdump, option, str(cubin)], capture_output=True, text=True, check=True).stdout

    registers = dict(re.findall(r"Function (\S+):\s*\n\s*REG:(\d+)", said("--dump-resource-usage")))
    parts = _FUNCTION.split(said("-sass"))[1:]
    return {
        name: (int(registers[name]), longest_loop(text)) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
