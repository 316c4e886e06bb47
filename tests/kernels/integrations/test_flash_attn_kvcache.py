"""flash_attn_with_kvcache against dense attention to each entry's keys alone, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels.integrations.flash_attn import flash_attn_with_kvcache

from tests.kernels.integrations.dense import attention, close, rows_and_keys

ROOM = 30


def dense(
    q: Tensor, k: Tensor, v: Tensor, window: tuple[int, int], causal: bool, pad: int = 0, softcap: float = 0.0
) -> tuple[Tensor, Tensor]:
    """One entry: q [Tq, H, D], k and v [n, K, D] of which the first `pad` are none."""
    i, j = rows_and_keys(len(q), len(k))
    distance = j - (i + len(k) - len(q))
    seen = (j >= pad).expand(len(q), -1).clone()
    if window[0] >= 0:
        seen &= distance >= -window[0]
    if window[1] >= 0:
        seen &= distance <= window[1]
    if causal:
        seen &= distance <= 0
    out, lse = attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), seen, softcap=softcap)
    return out[0].transpose(0, 1), lse[0]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("seqlens", [None, 17, 3, [17, 17, 17], [9, 30, 2], [0, 5, 29]], ids=str)
@pytest.mark.parametrize("window", [(-1, -1), (4, 0), (6, 2), (50, -1)])
@pytest.mark.parametrize("queries", [1, 5])
def test_against_dense(seqlens: Any, window: tuple[int, int], queries: int) -> None:
    torch.manual_seed(queries)
    q, k, v = randn(3, queries, 4, 6), randn(3, ROOM, 2, 6), randn(3, ROOM, 2, 6)
    given = torch.tensor(seqlens, dtype=torch.int32) if isinstance(seqlens, list) else seqlens
    lengths = seqlens if isinstance(seqlens, list) else [ROOM if seqlens is None else seqlens] * 3
    for causal in (False, True):
        for pads in (None, [2, 0, 7]):
            options = {} if pads is None else {"cache_leftpad": torch.tensor(pads, dtype=torch.int32)}
            for stale in (k, v):  # what lies behind the keys is not read
                for b, n in enumerate(lengths):
                    stale[b, n:] = torch.nan
            out, lse = flash_attn_with_kvcache(
                q, k, v, cache_seqlens=given, causal=causal, window_size=window, return_softmax_lse=True, **options
            )
            for b, n in enumerate(lengths):
                wanted = dense(q[b], k[b, :n], v[b, :n], window, causal, 0 if pads is None else pads[b])
                close(f"out {b}", out[b], wanted[0], 1e-12)
                close(f"lse {b}", lse[b], wanted[1], 1e-12)


@pytest.mark.parametrize("seqlens", [4, [4, 0]], ids=str)
@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize("new", [1, 3])
def test_new_keys_are_written_behind_the_cached(seqlens: Any, by_index: bool, new: int) -> None:
    """As a decoder calls it, three times; other entries and frames of the cache stay as they are."""
    torch.manual_seed(0)
    entries = [3, 1] if by_index else [0, 1]
    caches = [randn(4 if by_index else 2, ROOM, 2, 6) for _ in "kv"]
    kept = [x.clone() for x in caches]
    lengths = seqlens if isinstance(seqlens, list) else [seqlens] * 2
    options = {"cache_batch_idx": torch.tensor(entries, dtype=torch.int32)} if by_index else {}
    for _ in range(3):
        q, k, v = randn(2, new, 4, 6), randn(2, new, 2, 6), randn(2, new, 2, 6)
        given = torch.tensor(lengths, dtype=torch.int32) if isinstance(seqlens, list) else lengths[0]
        out = flash_attn_with_kvcache(
            q, *caches, k, v, cache_seqlens=given, causal=True, window_size=(3, -1), **options
        )
        for b, entry in enumerate(entries):
            for cache, x in zip(kept, (k, v), strict=True):
                cache[entry, lengths[b] : lengths[b] + new] = x[b]
        lengths = [n + new for n in lengths]
        for got, wanted in zip(caches, kept, strict=True):
            assert torch.equal(got, wanted)
        for b, entry in enumerate(entries):
            keys, values = (x[entry, : lengths[b]] for x in kept)
            close(f"out {b}", out[b], dense(q[b], keys, values, (3, -1), True)[0], 1e-12)


@pytest.mark.parametrize("seqlens", [17, [9, 30]], ids=str)
def test_softcap(seqlens: Any) -> None:
    q, k, v = randn(2, 3, 4, 6), randn(2, ROOM, 2, 6), randn(2, ROOM, 2, 6)
    given = torch.tensor(seqlens, dtype=torch.int32) if isinstance(seqlens, list) else seqlens
    out = flash_attn_with_kvcache(q, k, v, cache_seqlens=given, causal=True, window_size=(6, 0), softcap=0.8)
    for b, n in enumerate(seqlens if isinstance(seqlens, list) else [seqlens] * 2):
        wanted, _ = dense(q[b], k[b, :n], v[b, :n], (6, 0), True, softcap=0.8)
        close(f"out {b}", out[b], wanted, 1e-12)


def test_only_the_window_is_read() -> None:
    """Of a long cache, also where lengths differ: products of each query with each of its keys, and no more."""
    from torch.utils.flop_counter import FlopCounterMode

    q, cache = torch.randn(2, 2, 4, 16), torch.randn(2, 4096, 4, 16)
    for lengths in (4000, torch.tensor([4000, 3000])):
        with FlopCounterMode(display=False) as counter:
            flash_attn_with_kvcache(q, cache, cache, cache_seqlens=lengths, causal=True, window_size=(127, 0))
        assert 0 < counter.get_total_flops() <= 2 * 2 * 2 * 4 * 2 * (127 + 2) * 16


def test_lengths_that_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where they would be waited for."""
    from vtsum_kernels.integrations import flash_attn_kvcache

    q, cache, new = randn(2, 1, 2, 4), randn(2, ROOM, 2, 4), randn(2, 1, 2, 4)
    lengths = torch.tensor([5, 5])
    wanted = flash_attn_with_kvcache(
        q, cache.clone(), cache.clone(), new, new, cache_seqlens=lengths, window_size=(2, 0)
    )
    monkeypatch.setattr(flash_attn_kvcache, "values_are_free", lambda x: False)
    got = flash_attn_with_kvcache(q, cache.clone(), cache.clone(), new, new, cache_seqlens=lengths, window_size=(2, 0))
    close("out", got, wanted, 1e-12)


def test_no_gradients() -> None:
    q, cache = torch.randn(1, 1, 2, 8, requires_grad=True), torch.randn(1, 6, 2, 8, requires_grad=True)
    assert not flash_attn_with_kvcache(q, cache, cache).requires_grad


Q, CACHE, NEW = torch.zeros(2, 1, 4, 8), torch.zeros(2, 6, 2, 8), torch.zeros(2, 1, 2, 8)
ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"rotary_cos": ONE}, NotImplementedError, "rotary_cos must be None, got Tensor; rotate q and k beforehand"),
        ({"rotary_sin": ONE}, NotImplementedError, "rotary_sin must be None, got Tensor"),
        (
            {"block_table": ONE},
            NotImplementedError,
            "block_table must be None, got Tensor; a paged cache is not served",
        ),
        ({"alibi_slopes": ONE}, NotImplementedError, "alibi_slopes must be None, got Tensor"),
        ({"softcap": -30.0}, ValueError, "softcap must be between 1e-30 and 1e30, or None or 0.0"),
        ({"num_splits": 4}, NotImplementedError, "num_splits must be 0 or 1, got 4"),
        ({"window_size": 5}, TypeError, r"window_size must be \(left, right\), got int"),
        (
            {"cache_seqlens": 7},
            ValueError,
            r"cache_seqlens must be such that the cache's 6 frames hold all keys, got 7",
        ),
        ({"cache_seqlens": -1}, ValueError, "cache_seqlens must be at least 0, got -1"),
        ({"cache_seqlens": 2.0}, TypeError, "cache_seqlens must be a torch.Tensor, got float"),
        ({"cache_seqlens": torch.zeros(2)}, TypeError, "cache_seqlens must be int32 or int64, got torch.float32"),
        ({"cache_seqlens": torch.tensor([1])}, ValueError, r"cache_seqlens must be of shape \[B\] = \[2\], got \[1\]"),
        ({"k": NEW, "v": NEW}, ValueError, "cache_seqlens must be given where k and v are"),
        ({"k": NEW, "cache_seqlens": 2}, TypeError, "v must be a torch.Tensor, got NoneType"),
        (
            {"k": NEW, "v": NEW, "cache_seqlens": torch.tensor([2, 6])},
            ValueError,
            r"cache_seqlens must be such that the cache's 6 frames hold all keys, got 6 \+ 1",
        ),
        (
            {"k": NEW, "v": NEW[:, :, :1], "cache_seqlens": 2},
            ValueError,
            r"v must be of shape \[B, Tnew, K, D\] = \[2, 1, 2, 8\], got \[2, 1, 1, 8\]",
        ),
        ({"v_cache": CACHE[:, :5]}, ValueError, r"v_cache must be of shape k_cache's \[C, S, K, D\]"),
        (
            {"k_cache": CACHE[:1], "v_cache": CACHE[:1]},
            ValueError,
            "k_cache must be of q's B = 2 entries where cache_batch_idx is None, got 1",
        ),
        ({"cache_batch_idx": ONE}, TypeError, "cache_batch_idx must be int32 or int64, got torch.float32"),
        ({"cache_batch_idx": torch.tensor([0])}, ValueError, r"cache_batch_idx must be of shape \[B\] = \[2\]"),
    ],
)
def test_errors(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    before = CACHE.clone()
    with pytest.raises(error, match=f"^flash_attn_with_kvcache: {message}"):
        flash_attn_with_kvcache(**{"q": Q, "k_cache": CACHE, "v_cache": CACHE, **asked})
    assert torch.equal(CACHE, before)
