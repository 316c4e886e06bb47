"""torch.autocast reaches the ops as it reaches scaled_dot_product_attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.nn import MemoryBank

BIAS = torch.linspace(0.1, 1.3, 5)
#: Of rows x, a bank and a weight, which torch casts, and of what it leaves alone: biases of scores.
CALLS: dict[str, Callable[..., Tensor]] = {
    "window": lambda x, bank, weight, cast, backend: vk.sliding_window_attention(
        x[None, None], cast(x)[None, None], x[None, None], 5, bias=BIAS[None], backend=backend
    ),
    "read": lambda x, bank, weight, cast, backend: vk.memory_attention(
        x, cast(bank), bank, slot_bias=BIAS, normalize=True, backend=backend
    ),
    "product keys": lambda x, bank, weight, cast, backend: vk.memory_attention(
        x, (bank[:4, :4], cast(bank)[:, :4]), bank.repeat(4, 1), top_k=2, backend=backend
    ),
    "layer": lambda x, bank, weight, cast, backend: vk.memory_fuse(
        x, bank, None, cast(weight), weight[:, 0], query_weight=bank.new_ones(8, 8), residual=x[:, :3],
        fold=False, norm=(bank[0], None, 1e-5), backend=backend,
    ),
}  # fmt: skip


def half(x: Tensor) -> Tensor:
    return x.bfloat16()


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_cast(cpu_backend: str, name: str) -> None:
    """To the numbers of the same call in bfloat16, for float32 and mixed inputs; float64 is left alone."""
    call = CALLS[name]
    given = [torch.randn(shape) for shape in ((9, 8), (5, 8), (3, 16))]
    expected = call(*map(half, given), same, cpu_backend)
    leaves = [x.clone().requires_grad_() for x in given]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sdpa = F.scaled_dot_product_attention(given[0], half(given[0]), given[0])
        got = call(*leaves, half, cpu_backend)
        wide = call(*(x.double() for x in given), same, cpu_backend)
    assert got.dtype == sdpa.dtype == torch.bfloat16
    assert wide.dtype == torch.float64
    assert torch.equal(got, expected)
    got.float().sum().backward()
    assert leaves[0].grad is not None
    assert leaves[0].grad.dtype == torch.float32
    torch.testing.assert_close(wide, call(*(x.double() for x in given), same, cpu_backend))


def test_a_residual_stays_wide(cpp: None) -> None:
    """The layer's rows are added in float32, as those of a Linear's output under autocast are."""
    bank, x = MemoryBank(6, 8), torch.randn(2, 9, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bank(x).dtype == torch.float32
    same_bank: Any = copy.deepcopy(bank)
    same_bank.residual = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        update = same_bank(x)
        assert update.dtype == torch.bfloat16
        assert torch.equal(bank(x), x + update)
