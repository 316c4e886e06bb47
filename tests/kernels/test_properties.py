"""Properties that hold for any shape, window and mask, with examples that hypothesis looks for."""

from __future__ import annotations

import torch
import vtsum_kernels as vk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIDE = st.integers(-1, 12)


@SETTINGS
@given(
    frames=st.integers(0, 180),
    dim=st.integers(1, 70),
    left=SIDE,
    right=SIDE,
    dilation=st.integers(1, 6),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_compiled_and_reference_agree(
    cpp: None, frames: int, dim: int, left: int, right: int, dilation: int, masked: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(1, 2, frames, dim, generator=generator).requires_grad_() for _ in range(3)]
    mask = torch.rand(1, frames, generator=generator) > 0.3 if masked else None
    along = torch.randn(1, 2, frames, dim, generator=generator)
    results = []
    for backend in ("cpp", "reference"):
        out = vk.sliding_window_attention(
            *qkv, (left, right), dilation=dilation, key_padding_mask=mask, backend=backend
        )
        results.append([out, *torch.autograd.grad(out, qkv, along)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@SETTINGS
@given(
    frames=st.integers(1, 90),
    shift=st.integers(1, 20),
    window=st.sampled_from([1, 3, 5, 9]),
    seed=st.integers(0, 2**31),
)
def test_padding_on_either_side_changes_nothing(cpp: None, frames: int, shift: int, window: int, seed: int) -> None:
    """A video between padded frames gives what it gives alone."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 1, frames + 2 * shift, 16, generator=generator) for _ in range(3))
    mask = torch.zeros(1, frames + 2 * shift, dtype=torch.bool)
    inside = slice(shift, shift + frames)
    mask[:, inside] = True
    padded = vk.sliding_window_attention(q, k, v, window, key_padding_mask=mask)[:, :, inside]
    alone = vk.sliding_window_attention(q[:, :, inside], k[:, :, inside], v[:, :, inside], window)
    torch.testing.assert_close(padded, alone)


@SETTINGS
@given(frames=st.integers(1, 200), slots=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_weights_sum_to_one_and_ignore_the_order_of_slots(cpp: None, frames: int, slots: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, bank = torch.randn(frames, 8, generator=generator), torch.randn(slots, 8, generator=generator)
    ones = torch.ones(slots, 1)
    out, usage = vk.memory_attention(x, bank, ones, return_usage=True, backend="cpp")
    torch.testing.assert_close(out, torch.ones(frames, 1))
    order = torch.randperm(slots, generator=generator)
    shuffled = vk.memory_attention(x, bank[order], ones, return_usage=True, backend="cpp")[1]
    torch.testing.assert_close(shuffled, usage[:, order], rtol=1e-4, atol=1e-5)
