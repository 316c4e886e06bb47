"""How many strips a warp serves in turn, as a measurement says: whatever it says, the results are the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_int, c_int64

import pytest
import torch

from tests.emulator.library import DTYPES
from tests.emulator.run import Call, Library, library

BATCH, HEADS, FRAMES, DIM = 1, 2, 700, 64
ROWS_LOG2 = (BATCH * HEADS * FRAMES - 1).bit_length()


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def choose(lib: Library, backward: bool, dtype: torch.dtype, keys: int, per_warp: int, rows: int = ROWS_LOG2) -> int:
    sizes = (c_int64(DTYPES[dtype]), c_int64(DIM), c_int64(keys), c_int64(rows))
    return int(lib.c.vts_sliding_window_attention_strips_per_warp_cuda(c_int(backward), *sizes, c_int(per_warp)))


@pytest.fixture
def forgotten(lib: Library) -> Iterator[None]:
    """Choices are the library's; no other test must meet them."""
    yield
    for backward in (False, True):
        for dtype in DTYPES:
            for keys in (5, 17):
                assert choose(lib, backward, dtype, keys, 0) == 0


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(("family", "keys"), [("ring", 5), ("strip", 17)])
def test_every_choice_gives_the_same_bits(lib: Library, family: str, keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, dout = (torch.randn(BATCH, HEADS, FRAMES, DIM, generator=generator).bfloat16() for _ in range(4))
    call = Call(q, k, v, keys // 2, keys // 2)
    assert lib.takes(family, call, backward=False)
    before = lib.forward(call), lib.backward(call, dout)
    launches = []
    for per_warp in (1, 3, 64):
        for backward in (False, True):
            assert choose(lib, backward, torch.bfloat16, keys, per_warp) == 0
        out, lse = lib.forward(call)
        launches.append(int(lib.c.vts_emulator_blocks()))
        for got, right in zip((out, lse), before[0], strict=True):
            assert got is not None
            assert torch.equal(got, right)  # type: ignore[arg-type]
        for got, right in zip(lib.backward(call, dout)[:3], before[1][:3], strict=True):
            assert torch.equal(got, right)  # type: ignore[arg-type]
    assert launches == sorted(launches)
    assert launches[0] < launches[-1]  # more strips, more blocks: the choice reached the launch


@pytest.mark.usefixtures("forgotten")
def test_calls_with_a_bias_keep_their_strips(lib: Library) -> None:
    """Their scratch is asked for ahead of the launch."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dout = (torch.randn(BATCH, HEADS, FRAMES, DIM, generator=generator).bfloat16() for _ in range(4))
    call = Call(q, k, v, 2, 2, bias=torch.randn(HEADS, 5, generator=generator))
    right = lib.backward(call, dout)
    for backward in (False, True):
        assert choose(lib, backward, torch.bfloat16, 5, 64) == 0
    for got, expected in zip(lib.backward(call, dout), right, strict=True):
        assert got is not None
        assert torch.equal(got, expected)  # type: ignore[arg-type]


def test_there_is_an_end_to_choices(lib: Library) -> None:
    """Beyond its room the table refuses; what it holds can be changed still, and what is forgotten gives way."""
    some = range(600)
    answers = [choose(lib, False, torch.float32, keys, 1, rows=1) for keys in some]
    assert answers.count(0) >= 500
    assert answers == sorted(answers)
    assert answers[-1] == 1
    assert choose(lib, False, torch.float32, 0, 2, rows=1) == 0
    for keys in some:
        assert choose(lib, False, torch.float32, keys, 0, rows=1) == 0
    assert choose(lib, False, torch.float32, 599, 1, rows=1) == 0
    assert choose(lib, False, torch.float32, 599, 0, rows=1) == 0
