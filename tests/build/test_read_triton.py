"""What the compiler makes of Triton's kernels where it decides on their speed: needs Triton, and no GPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from tests.build import read_triton
from tests.build.compile_triton import Case, Usage


def only(case: Case, kernel: str) -> tuple[read_triton.Read, int]:
    """What one kernel of a case became for an H100, and how many warps of it fit an SM."""
    (launch,) = [made for made in read_triton.launches(case, False) if kernel in made.kernel.__name__]
    found = read_triton.read(90, launch)
    return found, read_triton.warps_an_sm(90, found, launch.config.warps)


def test_values_are_loaded_beside_keys() -> None:
    """Loaded after the softmax, they wait for memory once more, and only 16 or 20 warps fit."""
    found, warps = only(Case(torch.bfloat16, 64, 5, False), "tile_fwd")
    assert found.usage[1:] == (0, 0)
    assert warps >= 24
    assert set(found.loads) == {128}


def test_what_is_counted() -> None:
    names = ["LDG.E.128.CONSTANT", "LDG.E", "LDG.E.U16", "LDG.E.LTC128B.64", "LDGSTS.E.BYPASS.LTC128B.128", "STG.E.S8"]
    assert list(map(read_triton.bits, names)) == [128, 32, 16, 64, 128, 8]
    line = "        /*0a10*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;\n        /*0a20*/   BAR.SYNC 0x0 ;\n"
    assert read_triton.INSTRUCTION.findall(line) == ["LDG.E.128", "BAR.SYNC"]

    def warps(registers: int, shared: int) -> int:
        used = read_triton.Read(Usage(registers, 0, 0), shared, 0, 0, Counter(), Counter())
        return read_triton.warps_an_sm(90, used, 4)

    assert [warps(128, 0), warps(129, 0), warps(32, 0), warps(32, 100 * 1024)] == [16, 12, 64, 8]
