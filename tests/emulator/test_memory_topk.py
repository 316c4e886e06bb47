"""The k best slots of each row, on the emulator: exactly those of a stable sort."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.emulator.memory import Library, library


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def sorted_best(scores: Tensor, factor: Tensor, slot_bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Of float32 scores that a product with the factor and a sum with the bias do not round."""
    z = scores * factor[..., None]
    if slot_bias is not None:
        z = z + slot_bias[:, :, None]
    z = z.masked_fill(z.isnan(), -math.inf)
    best, index = torch.sort(z, dim=-1, descending=True, stable=True)
    some = min(k, z.shape[-1])
    wanted = torch.full((*z.shape[:-1], k), -math.inf), torch.zeros(*z.shape[:-1], k, dtype=torch.int32)
    wanted[0][..., :some], wanted[1][..., :some] = best[..., :some], index[..., :some].int()
    wanted[1][wanted[0] == -math.inf] = 0
    return wanted


def draw(*shape: int, levels: int = 0) -> list[Tensor]:
    """scores and factor; with `levels`, so few different scores that most are equal to others."""
    torch.manual_seed(0)
    scores = torch.randint(-levels, levels + 1, shape).float() if levels else torch.randn(shape)
    return [scores, torch.tensor([1.0, 2.0, 0.5, -1.0])[torch.randint(4, shape[:3])]]


def check(lib: Library, call: list[Tensor], slot_bias: Tensor | None, k: int, blocks: list[int], rows: int = 9) -> None:
    scores, factor = call
    best, index = lib.topk(scores, factor, slot_bias, k, blocks, rows)
    wanted = sorted_best(scores, factor, slot_bias, k)
    assert torch.equal(index, wanted[1])
    assert torch.equal(best, wanted[0])


@pytest.mark.parametrize("k", [1, 2, 31, 32, 200, 256])
@pytest.mark.parametrize("slots", [1, 5, 130, 512, 1025])
def test_few_slots(lib: Library, slots: int, k: int) -> None:
    """k larger than the number of slots: all of them."""
    check(lib, draw(1, 2, 3, slots), None, k, [slots])


@pytest.mark.parametrize("k", [3, 32, 257, 1024])
def test_many_slots(lib: Library, k: int) -> None:
    check(lib, draw(1, 1, 2, 9001), None, k, [9001])


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("k", [7, 64])
def test_ties_go_to_the_lower_slot(lib: Library, k: int, levels: int) -> None:
    check(lib, draw(1, 1, 3, 1500, levels=levels), None, k, [1500])
    check(lib, draw(1, 1, 1, 5000, levels=levels), None, k, [3000, 2000])


def test_the_sign_of_zero_is_no_order(lib: Library) -> None:
    scores = torch.tensor([-0.0, 0.0, -1.0, -0.0, 0.0]).view(1, 1, 1, 5)
    _, index = lib.topk(scores, torch.ones(1, 1, 1), None, 4, [5])
    assert index.flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("blocks", [[300, 1, 47, 152], [500], [4, 496]])
def test_blocks_of_slots_and_of_rows(lib: Library, blocks: list[int]) -> None:
    call, bias = draw(2, 3, 5, 500, levels=6), torch.randint(-3, 4, (2, 1, 500)).float()
    check(lib, call, bias, 40, blocks, rows=7)
    check(lib, call, torch.randint(-3, 4, (1, 3, 500)).float(), 40, blocks, rows=7)


def test_slots_left_out(lib: Library) -> None:
    """Fewer usable slots than k, and none at all; scores that are NaN are not usable either."""
    call, bias = draw(1, 2, 4, 700), torch.full((1, 2, 700), -math.inf)
    bias[0, 0, 3::100] = 0.0
    call[0][0, 0, 1, 103] = math.nan
    call[0][0, 0, 2] = math.nan
    check(lib, call, bias, 20, [700])


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize(("slots", "k"), [(1800, 9), (10000, 100)])
def test_scores_in_order(lib: Library, slots: int, k: int, rising: bool) -> None:
    """Rising scores pass every threshold: the buffer fills with each tile."""
    scores = torch.arange(float(slots)).view(1, 1, 1, slots)
    check(lib, [scores if rising else -scores, torch.ones(1, 1, 1)], None, k, [slots])


def test_k_out_of_range_is_refused(lib: Library) -> None:
    with pytest.raises(RuntimeError, match=r"^a CUDA call failed: refused \(cudaErrorInvalidValue\)$"):
        lib.topk(*draw(1, 1, 1, 9), None, 1025, [9])


def test_the_order_of_threads_changes_no_bit(lib: Library) -> None:
    call = draw(1, 1, 4, 3000, levels=9)
    lib.same_bits_in_any_order(lambda: lib.topk(*call, None, 50, [3000]))
