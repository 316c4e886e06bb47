"""Calls of the public op that Triton's kernels serve; those of fewer queries than keys become others before.

See triton_windows.py for where they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels.sliding_window_attention.reference import sliding_window_attention_reference

from tests.kernels.triton_reads import DEVICE, MARKS
from tests.kernels.window_calls import BEYOND, FEWER_QUERIES, compare, global_is_as_exact_as_windowed, says_nothing_more

pytestmark = MARKS


@pytest.fixture(autouse=True)
def tensors_on_the_device() -> Iterator[None]:
    with torch.device(DEVICE):
        yield


def test_through_the_public_op() -> None:
    """The same seed drops the same weights as in the reference, and gradients of grouped heads are summed."""
    leaves = [torch.randn(2, 30, h, 16).transpose(1, 2).to(DEVICE).requires_grad_() for h in (2, 1, 1)]
    bias = torch.randn(2, 5, device=DEVICE, requires_grad=True)
    results = []
    for backend in ("triton", "reference"):
        torch.manual_seed(3)
        out, lse = vk.sliding_window_attention(
            *leaves, 5, bias=bias, dropout_p=0.25, return_lse=True, key_mask=torch.tensor([30, 20]).to(DEVICE),
            backend=backend,
        )  # fmt: skip
        loss = out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).square().sum()
        results.append([out, *torch.autograd.grad(loss, [*leaves, bias])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
    reason = vk.explain("sliding_window_attention", *leaves, 5, backend="triton")
    assert "-> triton: serves this call (asked for)" in reason


def test_a_packed_call_through_the_public_op() -> None:
    q, k, v = (torch.randn(40, 2, 16, device=DEVICE) for _ in range(3))
    ends = torch.tensor([0, 13, 40], device=DEVICE)
    got = vk.sliding_window_attention(q, k, v, 7, cu_seqlens=ends, border="shift", backend="triton")
    for first, last in ((0, 13), (13, 40)):
        alone = [x[first:last].transpose(0, 1)[None].double() for x in (q, k, v)]
        expected, _ = sliding_window_attention_reference(*alone, 3, 3, scale=0.25, shift=True)
        torch.testing.assert_close(got[first:last].transpose(0, 1)[None].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", FEWER_QUERIES.values(), ids=FEWER_QUERIES)
def test_more_keys_than_queries(options: dict[str, Any]) -> None:
    # Gradients start from lse: where it is 8, its rounding to float32 is 5e-7 of every weight.
    compare("triton", torch.float32, condition=2.0, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_more_keys_than_queries_in_16_bits(dtype: torch.dtype) -> None:
    compare("triton", dtype, shape=(1, 2, 50, 16), queries=9, sides=(12, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_rows_are_not_rounded(dtype: torch.dtype) -> None:
    sinks = torch.tensor([0.5, -1.0])
    compare("triton", dtype, shape=(1, 2, 30, 16), sides=(4, 2), with_bias=True, sinks=sinks)


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
def test_numbers_beyond_every_sequence_cost_and_say_nothing_more(case: Any) -> None:
    """Compiled: else they are cut before, whatever the backend."""
    says_nothing_more("triton", True, case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_the_global_softmax(dtype: torch.dtype) -> None:
    global_is_as_exact_as_windowed("triton", dtype)
