"""The weights of few slots by tensor cores, and what lies around the products of the backward pass, on the emulator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.emulator.memory import Library, close, library
from tests.kernels import definitions

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def draw(
    groups: int, frames: int, heads: int, slots: int, width: int, dtype: torch.dtype, bias: str = "", mask: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(0)
    x, keys = torch.randn(groups, frames, heads, width).to(dtype), torch.randn(groups, heads, slots, width).to(dtype)
    factor = torch.rand(groups, heads, frames) * 4 / math.sqrt(width)
    slot_bias = None
    if bias:
        slot_bias = torch.randn(groups if "g" in bias else 1, heads if "h" in bias else 1, slots)
        slot_bias[..., torch.rand(slots) < 0.3] = -math.inf
        slot_bias[0, 0] = -math.inf if "none" in bias else slot_bias[0, 0]
    query_mask = torch.rand(groups, frames) > 0.4 if mask else None
    if query_mask is not None:
        x[~query_mask] = math.nan
        factor.transpose(1, 2)[~query_mask] = math.nan
    return x, keys, factor, slot_bias, query_mask


def check(
    lib: Library,
    call: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    dtype: torch.dtype | None = None,
) -> None:
    x, keys, factor, slot_bias, query_mask = call
    got = lib.weights(*call, dtype)
    assert got is not None
    scores = x.double().nan_to_num().transpose(1, 2) @ keys.double().transpose(2, 3)
    bias = None if slot_bias is None else slot_bias.double()
    wanted = definitions.softmax_over_slots(scores * factor.double().nan_to_num()[..., None], bias, query_mask)
    for name, mine, theirs in zip(("weights", "lse", "usage"), got, wanted, strict=True):
        close(name, mine, theirs)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("slots", [4, 64, 68, 128, 132, 256])
def test_slots(lib: Library, slots: int, dtype: torch.dtype) -> None:
    """All three kernels, full and not; weights of both dtypes."""
    call = draw(1, 37, 1, slots, 40, dtype)
    check(lib, call)
    check(lib, call, torch.float32)


@pytest.mark.parametrize("width", [8, 32, 64, 96, 136, 200])
def test_widths(lib: Library, width: int) -> None:
    """Fewer stages than the ring holds, and more; a last one that is not full."""
    check(lib, draw(1, 20, 1, 72, width, torch.bfloat16))


@pytest.mark.parametrize("frames", [1, 16, 127, 128, 129, 260])
def test_frames(lib: Library, frames: int) -> None:
    check(lib, draw(1, frames, 1, 20, 16, torch.float16))


@pytest.mark.parametrize("bias", ["1", "g", "h", "gh none"])
@pytest.mark.parametrize("slots", [12, 200])
def test_heads_biases_and_padding(lib: Library, slots: int, bias: str) -> None:
    check(lib, draw(2, 19, 3, slots, 24, torch.bfloat16, bias, mask=True))


def test_warps_that_find_nothing(lib: Library) -> None:
    """One half of the slots left out, or far below the other half."""
    x, keys, factor, _, _ = draw(1, 20, 1, 128, 16, torch.float16)
    for low in (-math.inf, -500.0):
        for half in (slice(0, 64), slice(64, 128)):
            bias = torch.zeros(1, 1, 128)
            bias[..., half] = low
            check(lib, (x, keys, factor, bias, None))


def test_strides(lib: Library) -> None:
    x, keys, factor, _, _ = draw(2, 20, 2, 16, 24, torch.bfloat16)
    wide = torch.full((2, 2, 20, 32), math.nan, dtype=x.dtype)[..., 8:]
    wide.copy_(x.transpose(1, 2))
    check(lib, (wide.transpose(1, 2), keys.transpose(0, 1).contiguous().transpose(0, 1), factor, None, None))


def test_what_it_takes(lib: Library) -> None:
    assert lib.weights(*draw(1, 5, 1, 6, 16, torch.float16)) is None
    assert lib.weights(*draw(1, 5, 1, 260, 16, torch.float16)) is None
    assert lib.weights(*draw(1, 5, 1, 8, 12, torch.float16)) is None
    assert lib.weights(*draw(1, 5, 1, 8, 16, torch.float32)) is None
    assert lib.weights(*draw(1, 5, 1, 8, 16, torch.float16), torch.bfloat16) is None


def test_weights_sum_to_one_and_usage_counts_the_frames(lib: Library) -> None:
    weights, _, usage = lib.weights(*draw(1, 300, 2, 256, 16, torch.bfloat16), torch.float32) or ()
    assert (weights.sum(-1) - 1).abs().max() < 1e-6
    assert (usage.sum(-1) - 300).abs().max() < 1e-4


def test_the_order_of_threads_changes_no_bit(lib: Library) -> None:
    call = draw(1, 140, 1, 132, 40, torch.float16, "1")
    lib.same_bits_in_any_order(lambda: lib.weights(*call))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("width", [3, 16, 70, 264, 1100])
def test_the_backward_of_the_factor(lib: Library, width: int, dtype: torch.dtype) -> None:
    x, _, factor, _, query_mask = draw(2, 9, 3, 4, width, dtype, mask=True)
    assert query_mask is not None
    u = torch.randn(x.shape).to(dtype)
    u[~query_mask] = math.nan
    dx, dfactor, scaled = lib.factor_backward(x, u, factor, query_mask)
    rows, along, factors = x.double().nan_to_num(), u.double().nan_to_num(), factor.double().nan_to_num()
    by = factors.transpose(1, 2)[..., None]
    close("dx", dx, along * by)
    close("scaled", scaled, rows * by)
    close("dfactor", dfactor, (rows * along).sum(-1).transpose(1, 2))


def test_blocks_of_rows_that_take_several_turns(lib: Library) -> None:
    x, _, factor, _, query_mask = draw(2, 90, 3, 4, 16, torch.float16, mask=True)
    u = torch.randn(x.shape).half()
    wanted = lib.factor_backward(x, u, factor, query_mask)
    with lib.most_blocks(2):
        got = lib.factor_backward(x, u, factor, query_mask)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def test_sums_of_blocks(lib: Library) -> None:
    total, term = torch.randn(3, 333), torch.randn(3, 333)
    wanted = total + term
    lib.add(total, term)
    assert torch.equal(total, wanted)


@pytest.mark.parametrize("slots", [64, 128, 256])
def test_nan_makes_its_row_nan_and_no_other(lib: Library, slots: int) -> None:
    x, keys, factor, bias, _ = draw(1, 37, 1, slots, 40, torch.float16)
    clean = lib.weights(x, keys, factor, bias, None, None)
    x[0, 5, 0, 3] = math.nan
    got = lib.weights(x, keys, factor, bias, None, None)
    assert clean is not None
    assert got is not None
    assert got[0][0, 0, 5].isnan().all()
    assert got[1][0, 0, 5].isnan()
    others = torch.arange(37) != 5
    assert all(torch.equal(a[0, 0, others], b[0, 0, others]) for a, b in zip(got[:2], clean[:2], strict=True))
