"""What stands in machine code for a GPU, function by function: registers, and the instructions, all and those of the
longest loop."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

_FUNCTION = re.compile(r"^\s*Function : (\S+)$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,6})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", re.MULTILINE)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
#: Loads, stores and products: a loop without any of them draws dropout's random numbers.
_MOVES = ("LD", "ST", "HMMA", "ATOM")
#: The addresses of its first and last instruction.
Stretch = tuple[int, int]


class Function(NamedTuple):
    """Registers of a thread and the names of the instructions; `loop`: those of the longest stretch that a branch back
    closes, of a function without one all; `within`: of the longest in it, or none; both without what dropout alone
    does. `inner`: of the longest stretch of the function that has no other in it, or none."""

    registers: int
    names: list[str]
    loop: list[str]
    within: list[str]
    inner: list[str]


def parse(registers: int, text: str) -> Function:
    """From one function's part of `cuobjdump -sass`. What the compiler laid behind the function's end makes no loop,
    though it branches back, too."""
    found = [(int(at, 16), when, name, rest) for at, when, name, rest in _INSTRUCTION.findall(text) if name != "NOP"]
    end = next((at for at, when, name, _ in found if name == "EXIT" and not when), math.inf)
    jumps = [
        (at, int(target[1], 16))
        for at, _, name, rest in found
        if at < end and name.startswith("BRA") and (target := _TARGET.search(rest))
    ]
    loops = {(to, at) for at, to in jumps if to < at}

    def inside(stretch: Stretch, other: Stretch) -> bool:
        return stretch != other and other[0] <= stretch[0] and stretch[1] <= other[1]

    def names_of(stretch: Stretch, without: Collection[Stretch] = ()) -> list[str]:
        return [
            name
            for at, _, name, _ in found
            if stretch[0] <= at <= stretch[1] and not any(first < at < last for first, last in without)
        ]

    def longest(among: Iterable[Stretch]) -> Stretch:
        return max(among, key=lambda stretch: stretch[1] - stretch[0], default=(0, -1))

    inner = {loop for loop in loops if not any(inside(other, loop) for other in loops)}
    random = {loop for loop in inner if not any(name.startswith(_MOVES) for name in names_of(loop))}
    dropout = [
        min(over, key=lambda jump: jump[1] - jump[0])
        for loop in random
        if (over := [jump for jump in jumps if jump[0] < loop[0] and loop[1] < jump[1]])
    ]
    whole = longest(loops - random)
    within = longest(loop for loop in loops - random if inside(loop, whole))
    names = [name for _, _, name, _ in found]
    return Function(
        registers, names, names_of(whole, dropout) or names, names_of(within, dropout), names_of(longest(inner))
    )


def read(cuobjdump: str, cubin: Path) -> dict[str, Function]:
    """The functions of a compiled file, by mangled name."""

    def said(option: str) -> str:
        return subprocess.run([cuobjdump, option, str(cubin)], capture_output=True, text=True, check=True).stdout

    registers = dict(re.findall(r"Function (\S+):\s*\n\s*REG:(\d+)", said("--dump-resource-usage")))
    parts = _FUNCTION.split(said("-sass"))[1:]
    return {name: parse(int(registers[name]), text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
