"""The CUDA kernels of sliding-window attention against the oracle, on the emulator: outputs and every gradient.

Each call goes through the dispatcher and every family that takes it. Bounds are those of tests/kernels/comparisons.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.emulator.build import FAMILIES
from tests.emulator.cases import CASES, PACKED, Case
from tests.emulator.oracle import expected, philox
from tests.emulator.run import Call, Library, bounds_of, library
from tests.kernels.comparisons import hold

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def results(
    lib: Library, case: Case, call: Call, dout: Tensor, dlse: Tensor | None, family: str | None
) -> dict[str, Tensor]:
    out, lse = lib.forward(call, family)
    handed_on = {"out": out, "lse": lse} if case.hand_on else {}
    dq, dk, dv, dbias = lib.backward(call, dout, dlse, family, **handed_on)
    got = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv, "dbias": dbias}
    return {name: x for name, x in got.items() if x is not None}


def families_of(lib: Library, case: Case, call: Call) -> list[str | None]:
    """The dispatcher's choice (None) and every family that takes the call, forward and backward."""

    def takes(family: str) -> bool:
        return all(lib.takes(family, call, backward=b, handed_on=case.hand_on) for b in (False, True))

    return [None, *filter(takes, FAMILIES)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_the_oracle(lib: Library, case: Case, dtype: str) -> None:
    call = case.call(DTYPES[dtype])
    dout, dlse = case.gradients(DTYPES[dtype])
    exact = expected(call, dout, dlse, torch.float64)
    eager = expected(call, dout, dlse, DTYPES[dtype])
    # A score of 100 rounded to float32 is off by 4e-6, and exp turns that into a relative error of its weight.
    condition = 8.0 if case.amplitude > 1 else 1.0
    for family in families_of(lib, case, call):
        got = results(lib, case, call, dout, dlse, family)
        assert got.keys() == exact.keys()
        for name, x in got.items():
            of_eager = eager[name].float() if name in ("lse", "dbias") else eager[name]
            hold(f"{family or 'dispatched'} {name}", x, exact[name], of_eager, condition, DTYPES[dtype])


def test_every_family_is_put_to_the_test(lib: Library) -> None:
    taken = {f for case in CASES for dtype in DTYPES.values() for f in families_of(lib, case, case.call(dtype))}
    assert taken == {None, *FAMILIES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        Case(left=8, right=8, width=64, frames=70),
        Case(left=20, right=20, width=64, frames=70, hand_on=True, mask=True),
        Case(**PACKED, bias=True, dropout_p=0.3),
        Case(shift=True, bias=True, dilation=2, width=16),
    ],
    ids=str,
)
def test_the_same_bits_each_time_in_any_order_of_threads(lib: Library, case: Case, dtype: str) -> None:
    call = case.call(DTYPES[dtype])
    dout, dlse = case.gradients(DTYPES[dtype])
    for family in families_of(lib, case, call):
        first = results(lib, case, call, dout, dlse, family)
        lib.reverse(True)
        try:
            second = results(lib, case, call, dout, dlse, family)
        finally:
            lib.reverse(False)
        assert all(torch.equal(first[name], second[name]) for name in first), family


def test_lse_is_written_only_where_it_is_asked_for(lib: Library) -> None:
    case = Case(left=8, right=8, width=64)
    call = case.call(torch.bfloat16)
    for family in families_of(lib, case, call):
        assert torch.equal(lib.forward(call, family, need_lse=False)[0], lib.forward(call, family)[0])


def test_no_rows_no_launch_and_a_bias_without_gradient(lib: Library) -> None:
    for case in (Case(frames=0, bias=True), Case(batch=0, bias=True)):
        call = case.call(torch.float32)
        got = results(lib, case, call, *case.gradients(torch.float32), None)
        assert got["out"].shape == call.q.shape
        assert torch.equal(got["dbias"], torch.zeros(2, 6))


def test_what_no_kernel_takes_is_an_error(lib: Library) -> None:
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
        lib.forward(Case(width=257).call(torch.float32))


def test_a_bias_of_minus_infinity_hides_a_key(lib: Library) -> None:
    hidden = Case(bias=True).call(torch.float32)
    assert hidden.bias is not None
    hidden.bias[:, -2:] = -torch.inf
    narrower = Call(hidden.q, hidden.k, hidden.v, 3, 0, bias=hidden.bias[:, :4].contiguous())
    assert torch.allclose(lib.forward(hidden)[0], lib.forward(narrower)[0], atol=1e-6)
    hidden.bias[:] = -torch.inf
    out, lse = lib.forward(hidden)
    assert (out == 0).all()
    assert lse is not None
    assert (lse == -torch.inf).all()
    grads = lib.backward(hidden, torch.randn_like(out))
    assert all((grad == 0).all() for grad in grads if grad is not None)


def test_the_oracle_draws_as_philox_does() -> None:
    assert philox(0, 0, 0, 0) == 0x6627E8D5  # the published answer for a counter and a key of zeros


@pytest.mark.parametrize("lengths", [(5,), (0, 3, 0, 0, 2), (1, 1, 1, 300), (700, 0)])
def test_sequence_bounds(lib: Library, lengths: tuple[int, ...]) -> None:
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    frames = sum(lengths)
    bounds = torch.full((2, frames), -1, dtype=torch.int32)
    lib.bounds(cu_seqlens, bounds)
    assert torch.equal(bounds, bounds_of(cu_seqlens, frames))


def test_sequence_bounds_stay_inside_whatever_cu_seqlens_holds(lib: Library) -> None:
    frames = 40
    for wrong in ([5, 10], [0, 60], [-3, 20, 10, 90], [30, 20, 10], [0]):
        bounds = torch.full((2, frames), -1, dtype=torch.int32)
        lib.bounds(torch.tensor(wrong, dtype=torch.int32), bounds)
        first, end = bounds
        assert ((first >= 0) & (end <= frames) & (end >= first)).all(), wrong
        inside = torch.arange(frames)
        assert (((first <= inside) & (inside < end)) | (first == end)).all(), wrong
