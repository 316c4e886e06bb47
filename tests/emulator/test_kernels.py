"""The CUDA kernels of sliding-window attention against the definition, on the emulator: outputs and every gradient.

Bounds are those of tests/kernels/comparisons.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.emulator.build import FAMILIES
from tests.emulator.cases import BRAIN, CASES, FLOAT, OF_FAMILY, Case, one, wide
from tests.emulator.checks import Check, results
from tests.emulator.run import Call, Library, bounds_of, library


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def families_of(lib: Library, check: Check) -> list[str | None]:
    """The dispatcher's choice (None) and every family that takes the call, forward and backward."""
    return [None, *(family for family in FAMILIES if check.taken_by(lib, family))]


@pytest.mark.parametrize(("case", "dtype"), CASES, ids=str)
def test_every_family_gives_the_definitions_numbers(lib: Library, case: Case, dtype: torch.dtype) -> None:
    check = Check(case, dtype)
    check.hold({family: check.run(lib, family) for family in families_of(lib, check)})


@pytest.mark.parametrize(
    ("family", "case", "dtype"), [(family, *pair) for family in OF_FAMILY for pair in OF_FAMILY[family]], ids=str
)
def test_the_cases_of_a_family(lib: Library, family: str, case: Case, dtype: torch.dtype) -> None:
    """Right, and the same bits whichever thread runs first."""
    check = Check(case, dtype)
    assert check.taken_by(lib, family)
    check.hold({family: lib.same_bits_in_any_order(lambda: check.run(lib, family))})


def test_every_family_is_put_to_the_test(lib: Library) -> None:
    assert {family for pair in CASES for family in families_of(lib, Check(*pair))} == {None, *FAMILIES}


def test_growing_scores(lib: Library) -> None:
    """Later keys are larger, so that nearly every block holds a row's greatest score so far: the sums are rescaled."""
    check = Check(wide(110, 100, 220), BRAIN)
    check.call.k *= (1 + torch.arange(220.0) / 20)[:, None].to(BRAIN)
    check.hold({"tile": lib.same_bits_in_any_order(lambda: check.run(lib, "tile"))})


@pytest.mark.parametrize("side", [8, 16])
def test_walks_that_meet(lib: Library, side: int) -> None:
    """More strips than the emulated device takes at once: walks go over several. How they are cut changes no bit."""
    check = Check(Case(left=side, right=side, frames=200, heads=3, dlse=False), BRAIN)
    whole = check.run(lib, "strip")
    check.hold({"strip": whole})
    alone = Call(*(x[:1, :1] for x in (check.call.q, check.call.k, check.call.v)), side, side)
    for name, x in results(lib, "strip", alone, check.dout[:1, :1], None).items():
        assert torch.equal(x, whole[name][:1, :1]), name


def test_nothing_to_see(lib: Library) -> None:
    check = Check(one(2, 2, 30, 64, heads=2), BRAIN)
    check.call.mask = torch.zeros(1, 30, dtype=torch.bool)
    for x in (check.call.k, check.call.v):
        x.fill_(torch.nan)
    for name, x in check.run(lib, "ring").items():
        assert (x == (-torch.inf if name == "lse" else 0)).all(), name


@pytest.mark.parametrize("window", [(2, 2), (1, 2), (0, 0), (1, 0), (4, 3)])
def test_nan_in_a_key_reaches_who_sees_it_and_no_other(lib: Library, window: tuple[int, int]) -> None:
    check, (left, right) = Check(one(*window, 60, 64, dlse=False), BRAIN), window
    check.call.k[0, 0, 30, 3] = torch.nan
    got = {name: x[0, 0].isnan() for name, x in check.run(lib, "ring").items() if name in ("out", "dq", "dv")}
    rows = list(range(30 - right, 30 + left + 1))
    assert got["out"].all(-1).nonzero().flatten().tolist() == rows
    assert got["out"].any(-1).sum() == got["dq"].any(-1).sum() == len(rows)
    keys = list(range(rows[0] - left, rows[-1] + right + 1))
    assert got["dv"].any(-1).nonzero().flatten().tolist() == keys


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (4, 4)])
def test_sequences_keep_their_nan(lib: Library, window: tuple[int, int]) -> None:
    check = Check(one(*window, 60, 64, transposed=True, lengths=(20, 15, 25), dlse=False), BRAIN)
    for x in (check.call.q, check.call.k, check.call.v, check.dout):
        x[:, :, 20:35] = torch.nan
    for name, x in check.run(lib, "ring").items():
        spoilt = x[0, 0].isnan() if name == "lse" else x[0, 0].isnan().any(-1)
        assert spoilt.nonzero().flatten().tolist() == list(range(20, 35)), name


TAKES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    # A call, then what may be changed in it and what not.
    "ring": (
        {"left": 4, "right": 4, "width": 64},
        [{}, {"left": 8, "right": 0}, {"bias": True}, {"dtype": FLOAT}, {"sinks": True}, {"dropout_p": 0.1}],
        [
            {"left": 5}, {"left": 5, "right": 0, "width": 32}, {"left": -1}, {"right": -1}, {"shift": True},
            {"dilation": 2, "batch": 1, "frames": 40, "lengths": (40,)}, {"width": 48},
            {"offset": 1}, {"softcap": 1.0},
        ],
    ),
    "strip": (
        {"left": 16, "right": 16, "width": 64},
        [{}, {"key_heads": 1, "mask": True, "transposed": True}, {"sinks": True}, {"dropout_p": 0.1}],
        [
            {"left": 17}, {"left": -1}, {"dilation": 2}, {"shift": True}, {"bias": True},
            {"batch": 1, "frames": 40, "lengths": (10, 30)}, {"width": 48}, {"offset": 1}, {"dtype": FLOAT},
            {"softcap": 1.0},
        ],
    ),
    "tile": (
        {"left": 40, "right": -1, "width": 64},
        [{}, {"key_heads": 1, "mask": True, "transposed": True}, {"sinks": True}, {"dropout_p": 0.1}],
        [
            {"dilation": 2}, {"shift": True, "right": 40}, {"bias": True, "right": 40},
            {"batch": 1, "frames": 40, "lengths": (10, 30)}, {"width": 48}, {"offset": 1}, {"dtype": FLOAT},
            {"softcap": 1.0},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", TAKES)
def test_what_a_family_takes(lib: Library, family: str) -> None:
    plain, taken, refused = TAKES[family]
    for wanted, changes in ((True, taken), (False, refused)):
        for change in changes:
            case = Case(**{name: x for name, x in (plain | change).items() if name != "dtype"})
            call = case.call(change.get("dtype", BRAIN))
            assert lib.takes(family, call, backward=False) is wanted, change
            # The wide backward needs the forward's lse.
            handed = family == "tile"
            assert lib.takes(family, call, backward=True, handed_on=handed) is wanted, change
            assert not handed or not lib.takes(family, call, backward=True, handed_on=False), change


def test_lse_is_written_only_where_it_is_asked_for(lib: Library) -> None:
    check = Check(Case(left=8, right=8, width=64), BRAIN)
    for family in families_of(lib, check):
        assert torch.equal(lib.forward(check.call, family, need_lse=False)[0], lib.forward(check.call, family)[0])


def test_no_rows_no_launch_and_a_bias_without_gradient(lib: Library) -> None:
    for case in (Case(frames=0, bias=True), Case(batch=0, bias=True)):
        call = case.call(FLOAT)
        got = results(lib, None, call, *case.gradients(FLOAT))
        assert got["out"].shape == call.q.shape
        assert torch.equal(got["dbias"], torch.zeros(2, 6))


def test_more_entries_of_a_bias_than_a_grid_has_blocks(lib: Library) -> None:
    check = Check(Case(left=20, right=20, frames=70, width=24, bias=True), FLOAT)
    whole = check.run(lib, None)["dbias"]
    with lib.most_blocks(3):
        assert torch.equal(check.run(lib, None)["dbias"], whole)


def test_what_no_kernel_takes_is_an_error(lib: Library) -> None:
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
        lib.forward(Case(width=257).call(FLOAT))


def test_a_bias_of_minus_infinity_hides_a_key(lib: Library) -> None:
    hidden = Case(bias=True).call(FLOAT)
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
