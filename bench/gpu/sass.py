"""What stands in machine code for a GPU, function by function: registers, and the instructions, all and those of the
longest loop."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

_FUNCTION = re.compile(r"^\s*Function : (\S+)$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,6})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", re.MULTILINE)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


class Function(NamedTuple):
    """Registers of a thread and the names of the instructions; `loop`: those of the longest stretch that a branch back
    closes, of a function without one all; `inner`: of the longest that has no other in it, or none."""

    registers: int
    names: list[str]
    loop: list[str]
    inner: list[str]


def parse(registers: int, text: str) -> Function:
    """From one function's part of `cuobjdump -sass`. What the compiler laid behind the function's end makes no loop,
    though it branches back, too."""
    found = [(int(at, 16), when, name, rest) for at, when, name, rest in _INSTRUCTION.findall(text) if name != "NOP"]
    end = next((at for at, when, name, _ in found if name == "EXIT" and not when), math.inf)
    loops = {
        (int(target[1], 16), at)
        for at, _, name, rest in found
        if at < end and name.startswith("BRA") and (target := _TARGET.search(rest)) and int(target[1], 16) < at
    }
    inner = {loop for loop in loops if not any(loop[0] <= a and b <= loop[1] for a, b in loops - {loop})}

    def longest(among: set[tuple[int, int]]) -> list[str]:
        first, last = max(among, key=lambda loop: loop[1] - loop[0], default=(0, -1))
        return [name for at, _, name, _ in found if first <= at <= last]

    names = [name for _, _, name, _ in found]
    return Function(registers, names, longest(loops) or names, longest(inner))


def read(cuobjdump: str, cubin: Path) -> dict[str, Function]:
    """The functions of a compiled file, by mangled name."""

    def said(option: str) -> str:
        return subprocess.run([cuobjdump, option, str(cubin)], capture_output=True, text=True, check=True).stdout

    registers = dict(re.findall(r"Function (\S+):\s*\n\s*REG:(\d+)", said("--dump-resource-usage")))
    parts = _FUNCTION.split(said("-sass"))[1:]
    return {name: parse(int(registers[name]), text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
