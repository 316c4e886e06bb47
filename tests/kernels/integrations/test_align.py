"""Queries and keys of different lengths on one line of frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels import sliding_window_attention
from vtsum_kernels.integrations import align
from vtsum_kernels.integrations.align import aligned_attention

from tests.kernels.integrations.dense import attention, close, random, rows_and_keys, same

WINDOWS = [(2, 1), (0, 0), (3, 0), (-1, 0), (2, -1), (-1, -1), (40, 40)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 9), (4, 9), (9, 4), (7, 1)])
def test_against_dense(queries: int, keys: int, window: tuple[int, int]) -> None:
    left, right = window
    for offset in (keys - queries, 0, -3, 6, 30, -30):
        q, k, v = random((2, 4, queries, 6), (2, 2, keys, 6), (2, 2, keys, 6), seed=queries + keys)
        valid = torch.rand(2, keys, generator=torch.Generator().manual_seed(3)) > 0.3
        i, j = rows_and_keys(queries, keys)
        seen = torch.ones(queries, keys, dtype=torch.bool)
        if left >= 0:
            seen &= j >= i + offset - left
        if right >= 0:
            seen &= j <= i + offset + right
        for mask in (None, valid):
            visible = seen[None, None] if mask is None else seen & mask[:, None, None, :]
            wanted = attention(q, k, v, visible)
            got = aligned_attention(q, k, v, window, offset=offset, key_mask=mask, return_lse=True)
            name = f"offset {offset}, padded {mask is not None}"
            same(name, got, wanted, (q, k, v), 1e-12)


@pytest.mark.parametrize("width", [3, 11])
def test_values_of_another_width(width: int) -> None:
    q, k, v = random((1, 2, 6, 7), (1, 2, 8, 7), (1, 2, 8, width), seed=0)
    i, j = rows_and_keys(6, 8)
    wanted, _ = attention(q, k, v, (j - i - 2).abs() <= 1)
    got = aligned_attention(q, k, v, (1, 1), offset=2)
    same("", [got], [wanted], (q, k, v), 1e-12)


@pytest.mark.parametrize(("offset", "window", "frames"), [(9_996, (8, 0), (4, 12)), (500, (2, 2), (6, 8))])
def test_work_does_not_grow_with_keys_that_nobody_sees(
    offset: int, window: tuple[int, int], frames: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """frames: the queries and keys that the op is called with; 4 of these queries were asked for."""
    asked = []

    def op(q: Tensor, k: Tensor, *rest: Any, **options: Any) -> Any:
        asked.append((q.shape[2], k.shape[2]))
        return sliding_window_attention(q, k, *rest, **options)

    monkeypatch.setattr(align, "sliding_window_attention", op)
    q, k, v = random((1, 1, 4, 4), (1, 1, 10_000, 4), (1, 1, 10_000, 4), seed=1)
    aligned_attention(q, k, v, window, offset=offset)
    assert asked == [frames]


def test_keys_that_nobody_sees_are_not_read() -> None:
    q, k, v = random((1, 1, 3, 4), (1, 1, 12, 4), (1, 1, 12, 4), seed=2)
    spoilt = [x.detach().clone() for x in (k, v)]
    for x in spoilt:
        x[:, :, :4] = torch.nan
    got = aligned_attention(q, *spoilt, (3, 0), offset=7)
    close("out", got, aligned_attention(q, k, v, (3, 0), offset=7), 0.0)
