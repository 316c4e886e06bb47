"""The softmax over the slots and its backward, on the emulator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.emulator.memory import Library, close, library
from tests.kernels import definitions


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def draw(shape: tuple[int, int, int, int], bias: str = "", mask: bool = False) -> list[Tensor | None]:
    """scores, factor, slot_bias and query_mask; bias "gh": one for each group and head."""
    torch.manual_seed(0)
    groups, heads, frames, slots = shape
    scores, factor = torch.randn(shape), torch.rand(groups, heads, frames) * 4
    slot_bias = None
    if bias:
        slot_bias = torch.randn(groups if "g" in bias else 1, heads if "h" in bias else 1, slots)
        slot_bias[..., torch.rand(slots) < 0.3] = -math.inf
        slot_bias[0, 0] = -math.inf if "none" in bias else slot_bias[0, 0]
    query_mask = torch.rand(groups, frames) > 0.4 if mask else None
    if query_mask is not None:
        query_mask[0, 0] = False
        scores.transpose(1, 2)[~query_mask] = math.nan
        factor.transpose(1, 2)[~query_mask] = math.nan
    return [scores, factor, slot_bias, query_mask]


def check(lib: Library, call: list[Tensor | None], dtype: torch.dtype = torch.float32) -> None:
    """Forward and backward against float64, all gradients given and wanted."""
    scores, factor, slot_bias, query_mask = call
    assert scores is not None
    assert factor is not None
    z, f = scores.double().nan_to_num(), factor.double().nan_to_num()
    z.requires_grad_()
    b = None if slot_bias is None else slot_bias.double().requires_grad_()
    wanted = definitions.softmax_over_slots(z * f[..., None], b, query_mask)
    got = lib.softmax(scores.clone(), factor, slot_bias, query_mask, dtype)
    for name, mine, theirs in zip(("weights", "lse", "usage"), got, wanted, strict=True):
        close(name, mine, theirs.detach())

    dweights, dlse, dusage = torch.randn(scores.shape).to(dtype), torch.randn(factor.shape), torch.randn(got[2].shape)
    along = [dweights.double(), dlse.double(), dusage.double()]
    if query_mask is not None:  # what comes back to padded frames must not matter
        for x in (dweights, dlse):
            x.transpose(1, 2)[~query_mask] = math.nan
    along = [torch.where(x.isfinite(), x, 0.0) for x in along]
    finite = torch.where(wanted[1].isfinite(), wanted[1], 0.0)
    grads = torch.autograd.grad([wanted[0], finite, wanted[2]], [z] if b is None else [z, b], along)
    for scaled in (False, True):
        dscores, dslot_bias = lib.softmax_backward(
            dweights, dlse, dusage, got[0], factor if scaled else None, query_mask, dtype
        )
        unscaled = torch.where(f[..., None] == 0, 0.0, grads[0] / f[..., None])
        close("dscores", dscores, grads[0] if scaled else unscaled)
    close("dslot_bias", dslot_bias, unscaled.sum(2), 1e-5 if dtype == torch.float32 else 2 * 8e-3)
    if b is not None:
        close("shared dslot_bias", dslot_bias.sum_to_size(b.shape), grads[1].nan_to_num(), 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("slots", [1, 4, 63, 64, 130, 252, 500, 700, 1024])
def test_slots(lib: Library, slots: int, dtype: torch.dtype) -> None:
    check(lib, draw((1, 2, 11, slots), "h"), dtype)


@pytest.mark.parametrize("slots", [1999, 3000, 4100, 8192, 8200, 9001])
def test_many_slots(lib: Library, slots: int) -> None:
    """Rows held by a whole block, and rows that no block can hold."""
    check(lib, draw((1, 1, 3, slots), "h", mask=True), torch.bfloat16 if slots % 2 else torch.float32)


@pytest.mark.parametrize("bias", ["", "1", "g", "h", "gh", "gh none"])
@pytest.mark.parametrize("slots", [12, 70, 1500])
def test_biases_and_padding(lib: Library, slots: int, bias: str) -> None:
    """Slots left out, a head without any slot, and frames that hold NaN."""
    call = draw((2, 3, 4, slots), bias, mask=True)
    check(lib, call)
    weights, lse, usage = lib.softmax(*call)  # type: ignore[arg-type]
    if "none" in bias:
        assert (weights[0, 0] == 0).all()
        assert (lse[0, 0] == -math.inf).all()
        assert (usage[0, 0] == 0).all()


def test_usage_counts_the_frames(lib: Library) -> None:
    """More rows than a block walks: the sums of several blocks are added up."""
    call = draw((1, 1, 200, 60))
    _, _, usage = lib.softmax(*call)  # type: ignore[arg-type]
    assert float(usage.sum()) == pytest.approx(200, rel=1e-6)
    check(lib, call)


def test_in_place_and_without_usage(lib: Library) -> None:
    for slots in (100, 9000):
        call = draw((1, 1, 5, slots), "h")
        wanted = lib.softmax(*call)  # type: ignore[arg-type]
        got = lib.softmax(*call, in_place=True, need_usage=False)  # type: ignore[arg-type, misc]
        assert all(torch.equal(a, b) for a, b in zip(got[:2], wanted, strict=False))
        assert got[2].isnan().all()


@pytest.mark.parametrize("slots", [200, 1500, 8300])
def test_gradients_left_out(lib: Library, slots: int) -> None:
    scores, factor, _, _ = draw((1, 1, 3, slots))
    assert scores is not None
    assert factor is not None
    weights = lib.softmax(scores, factor)[0]
    dlse = torch.randn(1, 1, 3)
    dscores, dslot_bias = lib.softmax_backward(None, dlse, None, weights, need_bias=False)
    close("dscores", dscores, weights.double() * dlse[..., None])
    assert dslot_bias.isnan().all()


def test_scores_far_apart(lib: Library) -> None:
    """Rows whose warps hold scores of quite different sizes, or none that counts."""
    scores = torch.full((1, 1, 3, 2000), -300.0)
    scores[0, 0, 0, 5], scores[0, 0, 1, 1900] = 300.0, -299.0
    bias = torch.zeros(1, 1, 2000)
    bias[0, 0, 128:512] = -math.inf
    check(lib, [scores, torch.ones(1, 1, 3), bias, None])


def test_no_frames_and_no_slots(lib: Library) -> None:
    _, _, usage = lib.softmax(torch.empty(1, 2, 0, 7), torch.empty(1, 2, 0))
    assert (usage == 0).all()
    _, lse, _ = lib.softmax(torch.empty(1, 2, 3, 0), torch.ones(1, 2, 3))
    assert (lse == -math.inf).all()
    weights = torch.empty(1, 2, 0, 7)
    _, dslot_bias = lib.softmax_backward(weights, None, None, weights)
    assert (dslot_bias == 0).all()


@pytest.mark.parametrize("slots", [40, 333, 1500, 8500])
def test_the_order_of_threads_changes_no_bit(lib: Library, slots: int) -> None:
    call = draw((1, 2, 20 if slots < 1000 else 3, slots), "h")

    def run() -> tuple[Tensor, ...]:
        weights, lse, usage = lib.softmax(*call)  # type: ignore[arg-type]
        return weights, lse, usage, *lib.softmax_backward(weights, lse, usage, weights)

    lib.same_bits_in_any_order(run)


@pytest.mark.parametrize("slots", [20, 200, 1500, 8300])
def test_nan_makes_its_row_nan_and_no_other(lib: Library, slots: int) -> None:
    """Weights of 0 and an lse of -inf would say that it reads nothing. One NaN, an infinity, and NaN alone."""
    scores, factor, bias, _ = draw((1, 1, 6, slots), "h")
    assert scores is not None
    assert factor is not None
    assert bias is not None
    clean = lib.softmax(scores.clone(), factor, bias)
    usable = int(bias[0, 0].isfinite().nonzero()[-1])
    scores[0, 0, 1, usable], scores[0, 0, 2, usable], scores[0, 0, 4] = math.nan, math.inf, math.nan
    weights, lse, usage = lib.softmax(scores.clone(), factor, bias)
    for row in range(6):
        if row in (1, 2, 4):
            assert weights[0, 0, row].isnan().any()
            assert lse[0, 0, row].isnan()
        else:
            assert torch.equal(weights[0, 0, row], clean[0][0, 0, row])
            assert torch.equal(lse[0, 0, row], clean[1][0, 0, row])
    assert usage.isnan().any()
