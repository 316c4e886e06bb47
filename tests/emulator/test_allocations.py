"""What the CUDA glue asks of torch beside its results: on a GPU each is a microsecond or more of a short call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

ROWS = torch.bfloat16, torch.float32


def asked(call: Callable[[], Any]) -> Counter[str]:
    """How many tensors a call allocated, of any size, and how many it copied."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    names = {"aten::empty": "allocated", "aten::empty_strided": "allocated", "aten::copy_": "copied"}
    return Counter(names[event.name] for event in profile.events() if event.name in names)


@pytest.mark.parametrize("dtype", ROWS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("need_lse", [False, True])
def test_the_window_op_forward(emulated: Any, dtype: torch.dtype, packed: bool, need_lse: bool) -> None:
    """out and lse, the latter of size 0 where nobody asked for it; where sequences are packed, their bounds."""
    q = torch.randn(1, 2, 40, 32).to(dtype)
    ends = torch.tensor([0, 9, 40], dtype=torch.int32) if packed else None
    options = 2, 2, 1, False, 0.5, 0.0, 0, need_lse
    found = asked(lambda: emulated.sliding_window_attention_fwd(q, q, q, None, ends, None, None, *options))
    assert found == {"allocated": 2 + packed}


@pytest.mark.parametrize(("side", "scratch"), [(2, 0), (8, 0), (40, 1)])
def test_the_window_op_backward(emulated: Any, side: int, scratch: int) -> None:
    """dq, dk, dv, and dbias and delta of size 0; the wide window's kernels leave statistics for one another."""
    q, lse = torch.randn(1, 2, 100, 32).bfloat16(), torch.randn(1, 2, 100)
    handed = (q, lse) if side > 16 else (None, None)
    call = (q, q, q, q, None, None, None, None, None, *handed, side, side, 1, False, 0.5, 0.0, 0)
    assert asked(lambda: emulated.sliding_window_attention_bwd(*call)) == {"allocated": 5 + scratch}


@pytest.mark.parametrize("rows", [0, 8, 100])
def test_one_block_of_rows_is_written_where_it_belongs(emulated: Any, rows: int) -> None:
    """Of several, each has its statistics and gradients copied."""
    x, bank, factor = torch.randn(1, rows, 1, 16), torch.randn(1, 1, 16, 16), torch.ones(1, 1, rows)
    forward = x, bank, bank, factor, None, None
    out, lse, _ = emulated.memory_flash_fwd(*forward, False)
    blocks = -(-rows // 32)
    found = asked(lambda: emulated.memory_flash_fwd(*forward, False))
    assert found["copied"] == (blocks if blocks > 1 else 0)
    found = asked(lambda: emulated.memory_flash_bwd(out, None, None, *forward, out, lse))
    assert found["copied"] == (2 * blocks if blocks > 1 else 0)


@pytest.mark.parametrize(("bias", "residual"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_join_makes_nothing_but_its_result(emulated: Any, bias: bool, residual: bool) -> None:
    """Bias and residual are where the products are added to: neither is held, nor copied, once more."""
    x, weights, weight, bank = (torch.randn(shape) for shape in ((50, 24), (50, 8), (16, 24), (8, 16)))
    extra = torch.randn(16) if bias else None, torch.randn(50, 16) if residual else None
    found = asked(lambda: emulated.memory_join_fwd(x, weights, weight, bank, *extra))
    wanted = x @ weight.t() + weights @ bank + sum(t for t in extra if t is not None)
    assert torch.allclose(emulated.memory_join_fwd(x, weights, weight, bank, *extra), wanted, atol=1e-5)
    assert found["allocated"] == (not (bias and residual))  # the sum of both is y
    assert found["copied"] == (bias != residual)  # by the CPU's addmm, into its result


@pytest.mark.parametrize("bias", [False, True])
def test_a_join_of_few_slots_lays_down_all_but_one_product_at_once(emulated: Any, bias: bool) -> None:
    """Of 16 bits: nothing is copied into y, whose rows are read and written once before the last product is added."""
    shapes = (50, 24), (50, 8), (16, 24), (8, 16), (50, 16)
    x, weights, weight, bank, residual = (torch.randn(shape).bfloat16() for shape in shapes)
    some_bias = torch.randn(16).bfloat16() if bias else None
    found = asked(lambda: emulated.memory_join_fwd(x, weights, weight, bank, some_bias, residual))
    assert found == {"allocated": 1}
