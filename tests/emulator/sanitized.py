"""Runs small, odd calls through a sanitized library; test_sanitizers.py starts it under AddressSanitizer's runtime.

Every tensor ends where its allocation ends, so that a read past it is found.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.emulator.build import FAMILIES
from tests.emulator.cases import Case
from tests.emulator.run import Library

PACKED: dict[str, Any] = {"batch": 1, "frames": 23, "lengths": (3, 0, 19, 1)}
CASES = [
    *(Case(left=left, right=right, width=width, frames=23) for (left, right), width in product(
        [(0, 0), (1, 3), (8, 8), (0, 20), (16, 16)], [8, 32, 64])),
    *(Case(left=5, right=4, width=width, frames=3) for width in (1, 24, 72, 128, 256)),
    *(Case(left=4, right=4, width=64, frames=frames, batch=1, transposed=True) for frames in (1, 2, 15, 16, 17, 33)),
    Case(left=20, right=15, width=64, frames=40, batch=1, hand_on=True),
    Case(left=-1, right=0, width=128, frames=70, batch=1, heads=1, hand_on=True),
    Case(left=-1, right=-1, width=32, frames=33, hand_on=True, mask=True),
    Case(left=3, right=2, width=40, frames=9, offset=1),
    Case(left=3, right=2, width=16, frames=21, dilation=4, bias=True, mask=True, key_heads=1),
    Case(left=2, right=2, width=16, frames=21, dilation=50),
    Case(left=3, right=2, width=24, frames=21, dilation=3, bias=True, shift=True),
    Case(left=8, right=8, width=8, frames=7, bias=True, shift=True, dropout_p=0.3),
    Case(**PACKED, left=2, right=3, width=16, bias=True, dropout_p=0.3),
    Case(**PACKED, left=2, right=2, width=64, dropout_p=0.3, row_offset=2**32 - 9),
    Case(left=9, right=9, width=32, frames=23, dropout_p=0.3, row_offset=2**32 - 9),
    Case(left=20, right=15, width=64, frames=40, batch=1, hand_on=True, dropout_p=0.3),
    Case(**PACKED, left=2, right=1, width=13, shift=True, dilation=2),
]  # fmt: skip


def calls() -> Iterator[tuple[Case, torch.dtype]]:
    """In float32 and one of the 16-bit dtypes, whose elements have the same places in memory."""
    for number, case in enumerate(CASES):
        yield from ((case, torch.float32), (case, (torch.float16, torch.bfloat16)[number % 2]))


def main(path: Path) -> None:
    lib = Library(path)
    for case, dtype in calls():
        torch.manual_seed(0)
        call = case.call(dtype)
        dout, dlse = case.gradients(dtype)
        for family in FAMILIES:
            if not lib.takes(family, call, backward=False):
                continue
            print(f"{family} {case} {dtype}", flush=True)  # the last line says where a report comes from
            out, lse = lib.forward(call, family)
            handed_on = {"out": out, "lse": lse} if case.hand_on else {}
            if lib.takes(family, call, backward=True, handed_on=case.hand_on):
                lib.backward(call, dout, dlse, family, **handed_on)
    bounds = torch.empty(2, 23, dtype=torch.int32)
    lib.bounds(torch.tensor([0, 3, 3, 22, 23], dtype=torch.int32), bounds)
    print("all is well")


def write_past_a_tensor(path: Path) -> None:
    """What must be found: or else this file proves nothing."""
    tensor = torch.empty(40)
    Library(path).c.selftest_wrong(7, ctypes.c_void_p(tensor.data_ptr()))


if __name__ == "__main__":
    (write_past_a_tensor if "--wrong" in sys.argv else main)(Path(sys.argv[1]))
