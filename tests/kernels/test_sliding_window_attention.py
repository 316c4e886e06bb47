"""Sliding-window attention: the numbers, forward and all gradients, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels.window_calls import compare

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def inputs(shape: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("frames", "dim", "window", "sides"),
    [
        (70, 64, 5, (2, 2)),
        (70, 64, (-1, 3), (-1, 3)),
        (150, 16, 1, (0, 0)),
        (150, 40, 9, (4, 4)),  # a head dim that is no whole number of vectors
        (37, 7, 33, (16, 16)),
        (90, 96, (0, 4), (0, 4)),
        (90, 256, (3, 0), (3, 0)),
        (4, 32, 9, (4, 4)),  # shorter than the window
        (33, 24, (-1, -1), (-1, -1)),
        (1, 8, 5, (2, 2)),
    ],
)
def test_matches_the_definition(
    backend: str,
    dtype: torch.dtype,
    frames: int,
    dim: int,
    window: int | tuple[int, int],
    sides: tuple[int, int],
) -> None:
    compare(backend, dtype, shape=(2, 3, frames, dim), window=window, sides=sides)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("window", "sides", "dilation"), [(5, (2, 2), 3), ((1, 4), (1, 4), 2), (3, (1, 1), 100)])
def test_dilation(
    backend: str, dtype: torch.dtype, window: int | tuple[int, int], sides: tuple[int, int], dilation: int
) -> None:
    compare(backend, dtype, shape=(1, 2, 83, 32), window=window, sides=sides, dilation=dilation)


def test_causal_leaves_the_keys_after_the_query_out(backend: str) -> None:
    """A number is that of the keys seen, as in NATTEN and Mistral; of two sides the left one stays."""
    compare(backend, torch.float32, shape=(2, 2, 50, 16), window=4, sides=(3, 0), causal=True)
    compare(backend, torch.float32, shape=(2, 2, 50, 16), window=(3, 3), sides=(3, 0), causal=True)
    compare(backend, torch.float32, shape=(2, 2, 50, 16), window=(-1, 5), sides=(-1, 0), causal=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding(backend: str, dtype: torch.dtype, dilation: int) -> None:
    compare(backend, dtype, shape=(3, 2, 77, 64), dilation=dilation, padded=0.4)


@pytest.mark.parametrize("factor", [1e-4, 30.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_very_small_and_very_large_values(backend: str, dtype: torch.dtype, factor: float) -> None:
    """With factor 30 scores reach several thousand: without the row's maximum taken off first, exp overflows."""
    compare(backend, dtype, shape=(1, 2, 40, 64), factor=factor, condition=max(1.0, factor * factor))


def test_scale(backend: str) -> None:
    compare(backend, torch.float32, shape=(1, 2, 40, 32), scale=-0.7)
    compare(backend, torch.float32, shape=(1, 2, 40, 32), scale=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_any_strides(backend: str, dtype: torch.dtype) -> None:
    """Views of [B, T, 3, H, D], of a wider D, of every second frame, and an expanded batch are read in place."""
    batch, heads, frames, dim = 2, 3, 70, 16
    packed = torch.randn(batch, frames, 3, heads, dim).to(dtype)
    wide = torch.randn(batch, heads, frames, 2 * dim).to(dtype)
    twice = torch.randn(batch, heads, 2 * frames, dim).to(dtype)
    single = torch.randn(1, heads, frames, dim).to(dtype)
    sparse = torch.randn(batch, heads, frames, dim, 2).to(dtype)
    views = [
        *packed.permute(2, 0, 3, 1, 4).unbind(0),
        wide[..., 3 : 3 + dim],
        twice[:, :, ::2],
        single.expand(batch, -1, -1, -1),
        sparse[..., 1],
    ]
    plain = [view.contiguous() for view in views]
    for first in range(len(views) - 2):
        along = torch.randn(batch, frames, heads, dim).to(dtype).transpose(1, 2)
        results = []
        for source in (views, plain):
            qkv = [x.detach().requires_grad_() for x in source[first : first + 3]]
            out = vk.sliding_window_attention(*qkv, 5, backend=backend)
            results.append([out, *torch.autograd.grad(out, qkv, along)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_output_keeps_the_layout_of_the_queries(cpp: None) -> None:
    """[B, T, H, D] seen as [B, H, T, D] gives the same back, so that the reshape after it copies nothing."""
    q, k, v = torch.randn(3, 2, 30, 4, 8).transpose(2, 3).unbind(0)
    out = vk.sliding_window_attention(q, k, v, 5, backend="cpp")
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("shape", [(2, 3, 0, 8), (0, 3, 5, 8), (2, 0, 5, 8)])
def test_empty_input(backend: str, shape: tuple[int, ...]) -> None:
    qkv = inputs(shape)
    out, lse = vk.sliding_window_attention(*qkv, 5, return_lse=True, backend=backend)
    assert out.shape == shape
    assert lse.shape == shape[:3]
    for gradient in torch.autograd.grad(out.sum() + lse.sum(), qkv):
        assert gradient.shape == shape


def test_a_row_that_sees_nothing_is_zero_and_so_are_its_gradients(backend: str) -> None:
    qkv = inputs((1, 2, 40, 16))
    key_mask = torch.zeros(1, 40, dtype=torch.bool)
    key_mask[:, :10] = True
    out, lse = vk.sliding_window_attention(*qkv, 5, key_mask=key_mask, return_lse=True, backend=backend)
    assert (out[:, :, 12:] == 0).all()
    assert (lse[:, :, 12:] == -torch.inf).all()
    assert lse[:, :, :12].isfinite().all()
    dq, dk, dv = torch.autograd.grad(out.sum(), qkv)
    assert (dq[:, :, 12:] == 0).all()
    assert (dk[:, :, 10:] == 0).all()
    assert (dv[:, :, 10:] == 0).all()
    assert all(gradient.isfinite().all() for gradient in (dq, dk, dv))
    assert dv[:, :, :10].abs().sum() > 0


def test_what_padded_keys_hold_reaches_nobody(backend: str) -> None:
    qkv = [torch.randn(1, 2, 40, 16) for _ in range(3)]
    key_mask = torch.ones(1, 40, dtype=torch.bool)
    key_mask[:, 25:] = False
    clean = vk.sliding_window_attention(*qkv, 7, key_mask=key_mask, backend=backend)
    for tensor in qkv[1:]:
        tensor[:, :, 25:] = torch.nan
    spoilt = [x.requires_grad_() for x in qkv]
    out = vk.sliding_window_attention(*spoilt, 7, key_mask=key_mask, backend=backend)
    torch.testing.assert_close(out, clean, rtol=0, atol=0)
    for gradient in torch.autograd.grad(out.sum(), spoilt):
        assert gradient.isfinite().all()


def test_nan_in_a_visible_key_reaches_the_rows_that_see_it_and_no_other(backend: str) -> None:
    q, k, v = (torch.randn(1, 1, 200, 64) for _ in range(3))
    k[0, 0, 100, 3] = torch.nan
    spoilt = vk.sliding_window_attention(q, k, v, 5, backend=backend)[0, 0].isnan().all(-1)
    assert spoilt.nonzero().flatten().tolist() == [98, 99, 100, 101, 102]


def test_lengths_are_a_mask(backend: str) -> None:
    q, k, v = (torch.randn(3, 2, 20, 8) for _ in range(3))
    lengths = torch.tensor([20, 0, 7])
    mask = torch.arange(20)[None] < lengths[:, None]
    by_lengths = vk.sliding_window_attention(q, k, v, 5, key_mask=lengths, backend=backend)
    by_mask = vk.sliding_window_attention(q, k, v, 5, key_mask=mask, backend=backend)
    assert torch.equal(by_lengths, by_mask)


def test_strided_mask(cpp: None) -> None:
    q, k, v = (torch.randn(3, 2, 70, 8) for _ in range(3))
    mask = (torch.rand(70, 6) > 0.3).t()[::2]
    got = vk.sliding_window_attention(q, k, v, 5, key_mask=mask, backend="cpp")
    assert torch.equal(got, vk.sliding_window_attention(q, k, v, 5, key_mask=mask.contiguous(), backend="cpp"))


def test_the_same_bits_twice_and_with_any_number_of_threads(cpp: None) -> None:
    leaves = [*inputs((2, 2, 500, 64)), torch.randn(2, 9, requires_grad=True)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            out = vk.sliding_window_attention(*leaves[:3], 9, bias=leaves[3], backend="cpp")
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
