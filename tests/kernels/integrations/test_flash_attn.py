"""flash-attn's calls against dense attention written from its documentation, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels.integrations.flash_attn import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
)

from tests.kernels.comparisons import gradients, hold
from tests.kernels.integrations.dense import attention, random, rows_and_keys, same

WINDOWS: list[tuple[int, int]] = [(-1, -1), (2, 1), (0, 0), (3, -1), (-1, 2), (50, 50)]
LENGTHS = [(7, 7), (4, 9), (9, 4), (1, 6)]


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softmax_scale: float | None = None,
    alibi_slopes: Tensor | None = None,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """[B, T, H, D]; query i sees j from i + Tk - Tq - left to i + Tk - Tq + right, and to i + Tk - Tq if causal."""
    queries, keys = q.shape[1], k.shape[1]
    i, j = rows_and_keys(queries, keys)
    distance = j - (i + keys - queries)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if window_size[0] >= 0:
        seen &= distance >= -window_size[0]
    if window_size[1] >= 0:
        seen &= distance <= window_size[1]
    if causal:
        seen &= distance <= 0
    bias: Tensor | float = 0.0
    if alibi_slopes is not None:
        bias = -alibi_slopes.reshape(-1, q.shape[2], 1, 1).to(q.dtype) * distance.abs()
    out, lse = attention(*(x.transpose(1, 2) for x in (q, k, v)), seen, scale=softmax_scale, bias=bias, softcap=softcap)
    return out.transpose(1, 2), lse


@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_softcap(queries: int, keys: int, alibi: bool) -> None:
    """What alibi adds is not capped."""
    inputs = q, k, v = tuple(random((2, queries, 4, 6), (2, keys, 2, 6), (2, keys, 2, 6), seed=keys))
    asked: dict[str, Any] = {"window_size": (3, 1), "softmax_scale": 0.7, "softcap": 0.8}
    if alibi:
        asked["alibi_slopes"] = torch.tensor([0.5, 0.25, 0.1, 0.7])
    out, lse, _ = flash_attn_func(q, k, v, return_attn_probs=True, **asked)
    same("", (out, lse), dense(q, k, v, **asked), inputs)
    sequences = [torch.tensor([0, n, 2 * n], dtype=torch.int32) for n in (queries, keys)]
    rows = [x.flatten(0, 1) for x in inputs]
    packed_out = flash_attn_varlen_func(*rows, *sequences, queries, keys, **asked)
    torch.testing.assert_close(packed_out, out.flatten(0, 1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window_size", WINDOWS)
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_windows(queries: int, keys: int, window_size: tuple[int, int], causal: bool) -> None:
    inputs = q, k, v = tuple(random((2, queries, 4, 6), (2, keys, 2, 6), (2, keys, 2, 6), seed=queries))
    out, lse, nothing = flash_attn_func(q, k, v, causal=causal, window_size=window_size, return_attn_probs=True)
    assert nothing is None
    same("", (out, lse), dense(q, k, v, causal=causal, window_size=window_size), inputs)
    assert torch.equal(out, flash_attn_func(q, k, v, 0.0, None, causal, window_size))


@pytest.mark.parametrize("slopes", [(4,), (2, 4)])
@pytest.mark.parametrize("window_size", [(-1, -1), (2, 1), (50, 0)])
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_alibi(queries: int, keys: int, window_size: tuple[int, int], slopes: tuple[int, ...]) -> None:
    inputs = q, k, v = tuple(random((2, queries, 4, 6), (2, keys, 2, 6), (2, keys, 2, 6), seed=keys))
    steep = torch.rand(slopes, generator=torch.Generator().manual_seed(8)) + 0.1
    for causal in (False, True):
        asked: dict[str, Any] = {"causal": causal, "window_size": window_size, "alibi_slopes": steep}
        out, lse, _ = flash_attn_func(q, k, v, softmax_scale=0.3, return_attn_probs=True, **asked)
        same(f"causal {causal}", (out, lse), dense(q, k, v, softmax_scale=0.3, **asked), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    exact = random((2, 40, 4, 16), (2, 40, 2, 16), (2, 40, 2, 16), seed=0)
    low = [x.detach().to(dtype).requires_grad_() for x in exact]
    exact = [x.detach().double().requires_grad_() for x in low]
    results = [
        [found, *gradients([found], inputs, 1)]
        for found, inputs in (
            (flash_attn_func(*low, causal=True, window_size=(8, 0)), low),
            (dense(*exact, causal=True, window_size=(8, 0))[0], exact),
            (dense(*low, causal=True, window_size=(8, 0))[0], low),
        )
    ]
    for name, got, oracle, eager in zip(("out", "dq", "dk", "dv"), *results, strict=True):
        assert got.dtype == dtype
        hold(name, got, oracle, eager)


def packed(lengths: list[int], heads: int, seed: int) -> Tensor:
    return random((sum(lengths), heads, 6), seed=seed)[0]


def bounds(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window_size", WINDOWS)
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("of_keys", [[5, 1, 0, 9], [8, 3, 4, 2]], ids=["as many keys", "other lengths"])
def test_packed(window_size: tuple[int, int], causal: bool, alibi: bool, of_keys: list[int]) -> None:
    of_queries = [5, 1, 0, 9]
    inputs = q, k, v = packed(of_queries, 4, 1), packed(of_keys, 2, 2), packed(of_keys, 2, 3)
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.7]) if alibi else None
    asked: dict[str, Any] = {"causal": causal, "window_size": window_size, "alibi_slopes": slopes}
    lengths = (bounds(of_queries), bounds(of_keys), max(of_queries), max(of_keys))
    out, lse, nothing = flash_attn_varlen_func(q, k, v, *lengths, return_attn_probs=True, **asked)
    assert nothing is None
    parts = [
        dense(*(x[None] for x in part), **asked)
        for part in zip(q.split(of_queries), k.split(of_keys), v.split(of_keys), strict=True)
    ]
    wanted = torch.cat([part[0][0] for part in parts]), torch.cat([part[1][0] for part in parts], 1)
    same("", (out, lse), wanted, inputs)


def test_the_same_sequences_given_once() -> None:
    lengths, q = bounds([4, 6]), packed([4, 6], 2, 0)
    once = flash_attn_varlen_func(q, q, q, lengths, lengths, 6, 6, window_size=(2, 2))
    assert torch.equal(once, flash_attn_varlen_func(q, q, q, lengths, lengths.clone(), 6, 6, window_size=(2, 2)))


def test_packed_tensors() -> None:
    """The forms that take q, k and v, or k and v, in one tensor: as those that take each, gradients and all."""
    q, k, v = random((2, 8, 4, 6), (2, 8, 4, 6), (2, 8, 4, 6), seed=5)
    fewer = q[:, 5:]
    asked: dict[str, Any] = {
        "softmax_scale": 0.3,
        "causal": True,
        "window_size": (3, 2),
        "alibi_slopes": torch.tensor([0.5, 0.2, 0.1, 0.3]),
        "return_attn_probs": True,
    }
    of_keys, of_queries, of_fewer = (bounds(x) for x in ([5, 11], [5, 11], [2, 4]))
    flat = [x.flatten(0, 1) for x in (q, k, v, fewer)]
    pairs = [
        (flash_attn_qkvpacked_func(torch.stack((q, k, v), 2), **asked), flash_attn_func(q, k, v, **asked)),
        (flash_attn_kvpacked_func(fewer, torch.stack((k, v), 2), **asked), flash_attn_func(fewer, k, v, **asked)),
        (
            flash_attn_varlen_qkvpacked_func(torch.stack(flat[:3], 1), of_keys, 11, **asked),
            flash_attn_varlen_func(*flat[:3], of_queries, of_keys, 11, 11, **asked),
        ),
        (
            flash_attn_varlen_kvpacked_func(flat[3], torch.stack(flat[1:3], 1), of_fewer, of_keys, 4, 11, **asked),
            flash_attn_varlen_func(flat[3], *flat[1:3], of_fewer, of_keys, 4, 11, **asked),
        ),
    ]
    for n, (got, wanted) in enumerate(pairs):
        same(str(n), got[:2], wanted[:2], (q, k, v), 1e-12)
        assert got[2] is None
    torch.manual_seed(1)
    dropped = flash_attn_qkvpacked_func(torch.stack((q, k, v), 2), 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropped, flash_attn_func(q, k, v, 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: flash_attn_qkvpacked_func(X),
            r"flash_attn_qkvpacked_func: qkv must be of shape \[B, T, 3, H, D\], got",
        ),
        (
            lambda: flash_attn_kvpacked_func(X, X),
            r"flash_attn_kvpacked_func: kv must be of shape \[B, T, 2, K, D\], got",
        ),
        (
            lambda: flash_attn_varlen_qkvpacked_func(X[:, :2], CU, 4),
            r"flash_attn_varlen_qkvpacked_func: qkv must be of shape \[total, 3, H, D\], got \[2, 2, 4, 8\]",
        ),
        (
            lambda: flash_attn_varlen_kvpacked_func(P, P, CU, CU, 4, 4),
            r"flash_attn_varlen_kvpacked_func: kv must be of shape \[total, 2, K, D\], got \[6, 4, 8\]",
        ),
    ],
)
def test_errors_of_packed_tensors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_dropout() -> None:
    q, k, v = (x.detach() for x in random((1, 8, 2, 4), (1, 8, 2, 4), (1, 8, 2, 4), seed=0))
    lengths = bounds([8])
    calls = {
        "batch": lambda p: flash_attn_func(q, k, v, p, window_size=(2, 2)),
        "packed": lambda p: flash_attn_varlen_func(q[0], k[0], v[0], lengths, lengths, 8, 8, p, window_size=(2, 2)),
    }
    for name, call in calls.items():
        torch.manual_seed(3)
        first, exact = call(0.25), call(0.0)
        draws = torch.stack([call(0.25) for _ in range(600)])
        torch.manual_seed(3)
        assert torch.equal(first, call(0.25)), name
        sigma = draws.std(0) / draws.shape[0] ** 0.5
        assert ((draws.mean(0) - exact).abs() <= 5 * sigma + 1e-9).all(), name
        assert sigma.max() > 0, name


X = torch.zeros(2, 3, 4, 8)
P = torch.zeros(6, 4, 8)
CU = torch.tensor([0, 2, 6], dtype=torch.int32)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"softcap": -30.0}, ValueError, "softcap must be between 1e-30 and 1e30, or None or 0.0"),
        (
            {"dropout_p": 0.1, "return_attn_probs": True},
            NotImplementedError,
            "return_attn_probs must be False where dro",
        ),
        ({"window_size": 5}, TypeError, r"window_size must be \(left, right\), got int"),
        ({"window_size": (-2, 0)}, ValueError, r"window_size must be \(left, right\) with each side at least 0"),
        ({"alibi_slopes": torch.zeros(3)}, ValueError, r"alibi_slopes must be of shape \[H\] = \[4\]"),
        ({"alibi_slopes": 0.5}, TypeError, "alibi_slopes must be a torch.Tensor, got float"),
    ],
)
@pytest.mark.parametrize("name", ["flash_attn_func", "flash_attn_varlen_func"])
def test_errors(name: str, asked: dict[str, Any], error: type[Exception], message: str) -> None:
    call = {
        "flash_attn_func": lambda: flash_attn_func(X, X, X, **asked),
        "flash_attn_varlen_func": lambda: flash_attn_varlen_func(P, P, P, CU, CU, 4, 4, **asked),
    }[name]
    with pytest.raises(error, match=rf"^{name}: {message}"):
        call()


def test_errors_of_one_call() -> None:
    with pytest.raises(ValueError, match=r"^flash_attn_func: k must be of shape \[B, T, H, D\], got \[3, 4, 8\]"):
        flash_attn_func(X, X[0], X)
    with pytest.raises(
        ValueError, match=r"^flash_attn_varlen_func: q must be of shape \[total, H, D\], got \[2, 3, 4, 8\]"
    ):
        flash_attn_varlen_func(X, P, P, CU, CU, 4, 4)
    with pytest.raises(NotImplementedError, match=r"^flash_attn_varlen_func: block_table must be None, got a tensor"):
        flash_attn_varlen_func(P, P, P, CU, CU, 4, 4, block_table=CU)
    with pytest.raises(NotImplementedError, match=r"^flash_attn_varlen_func: alibi_slopes must be \[H\], got \[2, 4\]"):
        flash_attn_varlen_func(P, P, P, CU, CU, 4, 4, alibi_slopes=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"cu_seqlens_k must be of cu_seqlens_q's shape \[3\], got \[2\]"):
        flash_attn_varlen_func(P, P, P, CU, CU[:2], 4, 4)
    with pytest.raises(ValueError, match=r"cu_seqlens_k must be rising from 0 to 6, got \[0, 2, 5\]"):
        flash_attn_varlen_func(P, P, P, CU, torch.tensor([0, 2, 5]), 4, 4)
