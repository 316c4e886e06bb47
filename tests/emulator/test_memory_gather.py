"""Sums over chosen slots, their products and their scatter, on the emulator."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from tests.emulator.memory import Library, close, gather_params, library

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def chosen(table: Tensor, index: Tensor) -> Tensor:
    """[G, H, n, k, e] of table [G, H, S, e], in float64."""
    groups, heads, frames, k = index.shape
    flat = index.long().flatten(2)[..., None].expand(groups, heads, frames * k, table.shape[3])
    return table.double().gather(2, flat).unflatten(2, (frames, k))


def scattered(weights: Tensor, index: Tensor, rows: Tensor, slots: int) -> Tensor:
    groups, heads, frames, k = index.shape
    all_rows = weights.double()[..., None] * rows.double().transpose(1, 2)[:, :, :, None]
    flat = index.long().flatten(2)[..., None].expand(groups, heads, frames * k, rows.shape[3])
    return torch.zeros(groups, heads, slots, rows.shape[3]).double().scatter_add(2, flat, all_rows.flatten(2, 3))


def draw(
    shape: tuple[int, int, int, int], slots: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """weights, index, table and rows."""
    torch.manual_seed(0)
    groups, heads, frames, _ = shape
    weights, index = torch.randn(shape), torch.randint(slots, shape, dtype=torch.int32)
    weights[torch.rand(shape) < 0.1] = 0.0
    table, rows = torch.randn(groups, heads, slots, width), torch.randn(groups, frames, heads, width)
    return weights, index, table.to(dtype), rows.to(dtype)


def check(lib: Library, weights: Tensor, index: Tensor, table: Tensor, rows: Tensor) -> None:
    wide = chosen(table, index)
    close("gather", lib.gather(weights, index, table), (weights.double()[..., None] * wide).sum(3).transpose(1, 2))
    dots = (rows.double().transpose(1, 2)[:, :, :, None] * wide).sum(-1)
    close("gather_dot", lib.gather_dot(rows, index, table), dots)
    slots = table.shape[2]
    close("scatter", lib.scatter(weights, index, rows, slots), scattered(weights, index, rows, slots))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 3, 8, 10, 64, 100, 136, 264])
def test_widths(lib: Library, width: int, dtype: torch.dtype) -> None:
    check(lib, *draw((1, 2, 9, 5), 7, width, dtype))


@pytest.mark.parametrize("k", [1, 7, 8, 9, 16, 33])
@pytest.mark.parametrize("width", [24, 768])
def test_numbers_of_chosen_slots(lib: Library, k: int, width: int) -> None:
    check(lib, *draw((1, 1, 5, k), 40, width, torch.bfloat16))


def test_banks_of_their_own_and_strides(lib: Library) -> None:
    weights, index, table, rows = draw((3, 2, 6, 4), 11, 16, torch.float16)
    spread = torch.full((3, 11, 2, 24), torch.nan, dtype=torch.float16)[..., 8:]
    spread.copy_(table.transpose(1, 2))
    views = torch.empty(3, 2, 6, 16, dtype=torch.float16).transpose(1, 2).copy_(rows)
    check(lib, weights, index, spread.transpose(1, 2), views)
    odd = torch.empty(table.numel() + 1, dtype=torch.float16)[1:].view(table.shape).copy_(table)
    check(lib, weights, index, odd, rows)  # rows that begin off every multiple of 16 bytes


@pytest.mark.parametrize("slots", [1, 2, 511, 512, 513, 3000, 300_000])
def test_sorting(lib: Library, slots: int) -> None:
    """One pass, two and three, several tiles, slots of no, few and very many places."""
    torch.manual_seed(0)
    shape = (1, 2, 300, 15)
    index = (torch.rand(shape).pow(4) * slots).int()
    weights, rows = torch.randn(shape), torch.randn(1, 300, 2, 4)
    weights[:, 1] = 0.0
    close("scatter", lib.scatter(weights, index, rows, slots), scattered(weights, index, rows, slots))


def test_a_sum_of_ones_counts(lib: Library) -> None:
    index = torch.tensor([5, 5, 0, 2, 2, 2], dtype=torch.int32).expand(1, 1, 100, 6).contiguous()
    ones = torch.ones(1, 100, 1, 1)
    got = lib.scatter(torch.ones(1, 1, 100, 6), index, ones, 6).flatten()
    assert torch.equal(got, torch.tensor([100.0, 0, 300, 0, 0, 200]))


@pytest.mark.parametrize("width", [5, 16])
def test_what_has_no_weight_does_not_count(lib: Library, width: int) -> None:
    weights, index, table, rows = draw((1, 1, 6, 9), 5, width, torch.float32)
    table[:, :, 3], rows[:, 2] = torch.nan, torch.nan
    weights[index == 3] = 0.0
    weights[:, :, 2] = 0.0
    wanted = (weights.double()[..., None] * chosen(table.nan_to_num(), index)).sum(3).transpose(1, 2)
    close("gather", lib.gather(weights, index, table), wanted)
    close("scatter", lib.scatter(weights, index, rows, 5), scattered(weights, index, rows.nan_to_num(), 5))


def test_nothing_chosen(lib: Library) -> None:
    weights, index, table, rows = draw((1, 2, 4, 0), 3, 8, torch.float32)
    assert (lib.gather(weights, index, table) == 0).all()
    assert (lib.scatter(weights, index, rows, 3) == 0).all()
    assert lib.scatter(weights, index, rows, 0).shape == (1, 2, 0, 8)
    empty = torch.zeros(1, 2, 4, 3, dtype=torch.int32)  # what a search in an empty bank leaves
    assert (lib.gather(torch.zeros(1, 2, 4, 3), empty, table[:, :, :0]) == 0).all()
    assert (lib.gather_dot(rows, empty, table[:, :, :0]) == 0).all()


@pytest.mark.parametrize("width", [3, 16, 300])
def test_blocks_that_take_several_turns(lib: Library, width: int) -> None:
    """What there is to do goes over a grid's bounds: several heads a block, and several blocks' work of one head."""
    call = draw((2, 3, 90, 20), 5, width, torch.float16)  # 360 choices of each slot: more than a thread adds up
    with lib.most_blocks(4):
        check(lib, *call)


def test_more_heads_than_a_grid_has_rows(lib: Library) -> None:
    """Beyond 65,535 a grid's second dimension ends."""
    weights, index, table, _ = draw((2, 33_000, 1, 1), 1, 1, torch.float32)
    assert torch.equal(lib.gather(weights, index, table), (weights * table).transpose(1, 2))


def test_too_many_choices_of_a_head_are_refused(lib: Library) -> None:
    one = torch.ones(1, 1, 1, 1)
    p = gather_params(one.expand(1, 1, 2**16, 2**15), one.int().expand(1, 1, 2**16, 2**15), one, one)
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
        lib.check(lib.c.vts_memory_scatter_cuda(ctypes.byref(p), None, None))


def test_the_order_of_threads_changes_no_bit(lib: Library) -> None:
    weights, index, table, rows = draw((1, 2, 500, 9), 6, 8, torch.float32)

    def run() -> list[Tensor]:
        rest = [lib.gather_dot(rows, index, table), lib.scatter(weights, index, rows, 6)]
        return [lib.gather(weights, index, table), *rest]

    lib.same_bits_in_any_order(run)
