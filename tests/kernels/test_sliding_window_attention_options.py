"""Sliding-window attention's options, alone and together: all numbers and gradients against the definition."""

from __future__ import annotations

import itertools

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.sliding_window_attention.dropout import philox

from tests.kernels.window_calls import compare, global_is_as_exact_as_windowed

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 2), (3, 1)])
def test_several_query_heads_share_a_key_head(backend: str, dtype: torch.dtype, heads: int, key_heads: int) -> None:
    compare(backend, dtype, shape=(2, heads, 70, 32), key_heads=key_heads, padded=0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", ["window", "global"])
@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
def test_where_shares_of_a_key_head_are_rounded(name: str, normalize: str, dtype: torch.dtype) -> None:
    """Shares that nearly cancel: added in float32 they are rounded once; rounded each, they keep the largest's."""
    q, k, v, dout = (torch.randn(1, heads, 40, 16).to(dtype) for heads in (2, 1, 1, 2))
    q[:, 1] = q[:, 0]
    dout[:, 1] = (0.01 * dout[:, 1].float() - dout[:, 0].float()).to(dtype)

    def gradients(kind: torch.dtype, heads: int, by: str) -> tuple[Tensor, ...]:
        leaves = [x.to(kind).expand(1, heads, -1, -1).clone().requires_grad_() for x in (k, v)]
        out = vk.sliding_window_attention(q.to(kind), *leaves, 5, normalize=normalize, backend=by)
        return torch.autograd.grad(out, leaves, dout.to(kind))

    eps = torch.finfo(dtype).eps
    for got, shares in zip(gradients(dtype, 1, name), gradients(torch.float64, 2, "reference"), strict=True):
        exact = shares.sum(1, keepdim=True)
        once, each = eps / 2 * exact.abs(), eps / 2 * shares.abs().sum(1, keepdim=True)
        error = (got.double() - exact).abs() - torch.finfo(dtype).tiny - 1e-5
        if name == "cpp" and normalize == "window":
            assert (error <= once + each).all()
            assert not (error <= once).all()
        else:
            assert (error <= once).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("sides", "dilation"), [((2, 2), 1), ((3, 1), 2), ((0, 6), 1), ((9, 9), 1)])
def test_relative_bias(backend: str, dtype: torch.dtype, sides: tuple[int, int], dilation: int) -> None:
    compare(backend, dtype, sides=sides, dilation=dilation, with_bias=True, padded=0.1)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("frames", "sides", "dilation"),
    [
        (10, (2, 2), 1),
        (150, (2, 2), 1),  # several strips: those inside the sequence are as with truncated windows
        (150, (4, 1), 1),
        (83, (3, 3), 3),
        (83, (0, 5), 1),
        (5, (2, 2), 1),  # just one window
        (4, (2, 2), 1),  # shorter than a window: every row sees all
        (11, (1, 1), 5),
        (1, (2, 2), 1),
    ],
)
def test_shifted_borders(backend: str, frames: int, sides: tuple[int, int], dilation: int, with_bias: bool) -> None:
    compare(
        backend,
        torch.float32,
        shape=(1, 2, frames, 16),
        sides=sides,
        dilation=dilation,
        border="shift",
        with_bias=with_bias,
    )


def test_the_first_rows_of_a_shifted_window_see_the_same_keys(backend: str) -> None:
    """T = 10, w = 5: rows 0, 1 and 2 all see the keys 0 to 4."""
    seen = []
    for j in range(10):
        v = torch.zeros(1, 1, 10, 8)
        v[:, :, j] = 1
        q = torch.zeros(1, 1, 10, 8)
        out = vk.sliding_window_attention(q, q, v, 5, border="shift", backend=backend)[0, 0, :, 0]
        seen.append((out > 0).nonzero().flatten().tolist())
    assert [j for j in range(10) if 0 in seen[j]] == [0, 1, 2, 3, 4]
    assert all((i in seen[j]) == (j < 5) for i in (0, 1, 2) for j in range(10))
    assert [j for j in range(10) if 9 in seen[j]] == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("ends", "dilation", "border"),
    [
        ([0, 20, 90], 1, "truncate"),
        ([0, 1, 1, 4, 90], 1, "truncate"),  # a sequence of one frame, and one of none
        ([0, 13, 60, 90], 3, "truncate"),
        ([0, 3, 50, 90], 1, "shift"),
        ([0, 30, 90], 2, "shift"),
        ([0, 90], 1, "truncate"),
    ],
)
def test_packed_sequences(backend: str, dtype: torch.dtype, ends: list[int], dilation: int, border: str) -> None:
    compare(backend, dtype, shape=(1, 2, 90, 32), ends=ends, dilation=dilation, border=border, padded=0.1)


def test_packed_sequences_are_as_each_alone(backend: str) -> None:
    q, k, v = (torch.randn(100, 2, 16) for _ in range(3))
    ends = [0, 30, 31, 100]
    out = vk.sliding_window_attention(q, k, v, 7, cu_seqlens=torch.tensor(ends, dtype=torch.int32), backend=backend)
    for first, last in itertools.pairwise(ends):
        alone = [x[first:last].transpose(0, 1)[None] for x in (q, k, v)]
        wanted = vk.sliding_window_attention(*alone, 7, backend=backend)[0].transpose(0, 1)
        torch.testing.assert_close(out[first:last], wanted)


def test_no_sequence_at_all(backend: str) -> None:
    q = torch.zeros(0, 2, 8, requires_grad=True)
    out, lse = vk.sliding_window_attention(q, q, q, 5, cu_seqlens=torch.tensor([0]), return_lse=True, backend=backend)
    assert out.shape == (0, 2, 8)
    assert lse.shape == (2, 0)
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dropout_keeps_what_the_seed_says(backend: str, dtype: torch.dtype) -> None:
    compare(backend, dtype, shape=(2, 2, 24, 16), dropout_p=0.3)
    compare(backend, dtype, shape=(1, 2, 24, 16), dropout_p=0.5, ends=[0, 9, 24], dilation=2, with_bias=True)


def test_dropout_drops_its_share_and_repeats(backend: str) -> None:
    q, v = torch.zeros(1, 8, 2000, 8), torch.ones(1, 8, 2000, 8)

    def call(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return vk.sliding_window_attention(q, q, v, 1, dropout_p=0.25, backend=backend)[..., 0]

    once = call(1)
    assert torch.equal(once, call(1))
    assert not torch.equal(once, call(2))
    torch.testing.assert_close(once.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (once == 0).float().mean().item() == pytest.approx(0.25, abs=0.015)  # four standard deviations


def test_philox_gives_the_known_answers() -> None:
    """Words 0 of the known-answer tests that the generator was published with (Random123, philox4x32-10)."""
    zeros = philox(torch.tensor([0]), (torch.tensor(0), torch.tensor(0), torch.tensor(0)))
    assert zeros.item() == 0x6627E8D5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_global_softmax(backend: str, dtype: torch.dtype, with_bias: bool) -> None:
    compare(backend, dtype, sides=(3, 1), normalize="global", padded=0.2, with_bias=with_bias)
    compare(
        backend, dtype, shape=(1, 4, 60, 16), key_heads=2, ends=[0, 13, 60], normalize="global", with_bias=with_bias
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_the_global_softmax_are_rounded_once(backend: str, dtype: torch.dtype) -> None:
    """The band's part of dq and that of the whole sequence are each beyond float16, and nearly cancel."""
    q = 6.0 * torch.nn.functional.normalize(torch.randn(1, 2, 64, 16), dim=-1)  # every row's best key is its own
    v, dout = 2000.0 + torch.randn(1, 2, 64, 16), torch.full((1, 2, 64, 16), 10.0)

    def dq(dtype: torch.dtype) -> Tensor:
        inputs = [x.to(rounded).to(dtype).requires_grad_() for x in (q, q, v)]
        out = vk.sliding_window_attention(*inputs, 5, scale=0.25, normalize="global", backend=backend)
        return torch.autograd.grad(out, inputs, dout.to(dtype))[0].double()

    rounded = dtype
    exact = dq(torch.float32 if backend in ("cuda", "triton") else torch.float64)
    assert exact.abs().max() < torch.finfo(torch.float16).max
    error = (dq(dtype) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 0.5 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_the_global_softmax_are_as_exact_as_the_windows(dtype: torch.dtype, backend: str) -> None:
    global_is_as_exact_as_windowed(backend, dtype)


def test_global_softmax_of_several_blocks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtsum_kernels.sliding_window_attention import global_softmax

    monkeypatch.setattr(global_softmax, "_BLOCK", 1000)
    compare(backend, torch.float32, normalize="global", dilation=2, border="shift", with_bias=True, padded=0.1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("border", ["truncate", "shift"])
def test_all_together(backend: str, dtype: torch.dtype, border: str) -> None:
    compare(
        backend,
        dtype,
        shape=(1, 4, 60, 24),
        key_heads=2,
        sides=(3, 2),
        dilation=2,
        border=border,
        ends=[0, 7, 40, 60],
        padded=0.2,
        with_bias=True,
        dropout_p=0.2,
    )
