"""The property tests of both ops on a GPU: the same calls that hypothesis draws for the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kernels.memory_calls import read_agrees_with_the_reference, reads
from tests.kernels.pretended_gpu import PRETENDED
from tests.kernels.test_properties import agrees_with_the_reference, calls

pytestmark = pytest.mark.gpu
#: The same examples in every run: a machine with a GPU is there for minutes.
SETTINGS = settings(
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
    max_examples=20 if PRETENDED else 150,
)
#: Each of Triton's examples compiles three kernels or four; smaller ones of a failure would do so by the hundred.
OF_TRITON = settings(SETTINGS, max_examples=6, phases=(Phase.explicit, Phase.generate))
WINDOWS = calls().filter(lambda call: call["dtype"] != torch.float64)


@SETTINGS
@given(call=WINDOWS)
def test_windows_by_cuda(cuda: None, call: dict[str, Any]) -> None:
    with torch.device("cpu"):
        agrees_with_the_reference(call, "cuda", "cuda")


@OF_TRITON
@given(call=WINDOWS)
def test_windows_by_triton(call: dict[str, Any]) -> None:
    agrees_with_the_reference(call, "triton", "cuda")


@SETTINGS
@given(call=reads())
def test_reads_by_cuda(cuda: None, call: dict[str, Any]) -> None:
    with torch.device("cpu"):
        read_agrees_with_the_reference(call, "cuda", "cuda")


@OF_TRITON
@given(call=reads(sparse=False))
def test_reads_by_triton(call: dict[str, Any]) -> None:
    read_agrees_with_the_reference(call, "triton", "cuda")


@settings(SETTINGS, max_examples=30)
@given(
    frames=st.integers(1, 90),
    shift=st.integers(1, 20),
    window=st.sampled_from([1, 3, 5, 9, 17, 65]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_padding_on_either_side_changes_nothing(
    cuda: None, frames: int, shift: int, window: int, dtype: torch.dtype, seed: int
) -> None:
    """A video between padded frames gives what it gives alone."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, 1, frames + 2 * shift, 16).to(dtype) for _ in range(3))
    mask = torch.zeros(1, frames + 2 * shift, dtype=torch.bool)
    inside = slice(shift, shift + frames)
    mask[:, inside] = True
    padded = vk.sliding_window_attention(q, k, v, window, key_padding_mask=mask, backend="cuda")[:, :, inside]
    alone = vk.sliding_window_attention(q[:, :, inside], k[:, :, inside], v[:, :, inside], window, backend="cuda")
    torch.testing.assert_close(padded, alone)


@settings(SETTINGS, max_examples=30)
@given(frames=st.integers(1, 200), slots=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_weights_sum_to_one_and_ignore_the_order_of_slots(cuda: None, frames: int, slots: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, bank = torch.randn(frames, 8), torch.randn(slots, 8)
    ones = torch.ones(slots, 1)
    out, usage = vk.memory_attention(x, bank, ones, return_usage=True, backend="cuda")
    torch.testing.assert_close(out, torch.ones(frames, 1))
    order = torch.randperm(slots)
    shuffled = vk.memory_attention(x, bank[order], ones, return_usage=True, backend="cuda")[1]
    torch.testing.assert_close(shuffled, usage[:, order], rtol=1e-4, atol=1e-5)
