"""How a family of kernels is held against the oracle, and against itself in another order of threads."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.emulator.cases import Case
from tests.emulator.oracle import expected
from tests.emulator.run import Call, Library
from tests.kernels.comparisons import hold

FLOATS = [torch.float16, torch.bfloat16]


def run(
    lib: Library, family: str, call: Call, dout: Tensor, dlse: Tensor | None, *, hand_on: bool = False
) -> dict[str, Tensor]:
    """Forward and backward; `hand_on`: the backward is given out and lse."""
    assert lib.takes(family, call, backward=False)
    assert lib.takes(family, call, backward=True, handed_on=hand_on)
    out, lse = lib.forward(call, family)
    assert lse is not None
    dq, dk, dv, dbias = lib.backward(call, dout, dlse, family, **({"out": out, "lse": lse} if hand_on else {}))
    got = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
    return got if dbias is None else got | {"dbias": dbias}


def check_call(
    lib: Library, family: str, call: Call, dout: Tensor, dlse: Tensor | None, *, hand_on: bool = False
) -> dict[str, Tensor]:
    """Results, right ones: within the house's bounds, and the same bits whichever thread runs first."""
    got, dtype = run(lib, family, call, dout, dlse, hand_on=hand_on), call.q.dtype
    exact, eager = expected(call, dout, dlse, torch.float64), expected(call, dout, dlse, dtype)
    for name, x in got.items():
        of_eager = eager[name].float() if name in ("lse", "dbias") else eager[name]
        hold(f"{family} {name}", x, exact[name], of_eager, 1.0, dtype)
    lib.reverse(True)
    try:
        again = run(lib, family, call, dout, dlse, hand_on=hand_on)
    finally:
        lib.reverse(False)
    assert all(torch.equal(got[name], again[name]) for name in got), "the order of threads changes the results"
    return got


def check(lib: Library, family: str, case: Case, dtype: torch.dtype = torch.bfloat16) -> tuple[Call, dict[str, Tensor]]:
    torch.manual_seed(0)
    call = case.call(dtype)
    return call, check_call(lib, family, call, *case.gradients(dtype), hand_on=case.hand_on)
