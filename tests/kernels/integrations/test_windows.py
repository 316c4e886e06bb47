"""The window read from a mask function is the one the function describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import masking_utils as mu
from transformers.models.gemma3.modeling_gemma3 import _bidirectional_window_overlay
from vtsum_kernels.integrations.windows import FAR, window_of

FRAMES = 14


def seen_by(function: Callable[..., Any], batch: int = 2) -> torch.Tensor:
    b, i, j = (torch.arange(n) for n in (batch, FRAMES, FRAMES))
    seen = function(b[:, None, None], torch.zeros(1, 1, 1, dtype=torch.long), i[None, :, None], j[None, None, :])
    return seen.expand(batch, FRAMES, FRAMES)


POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 2], [*range(10), 0, 1, 0, 1]])
PACKED = mu.find_packed_sequence_indices(POSITIONS)


def packed(function: Callable[..., Any]) -> Callable[..., Any]:
    return mu.packed_sequence_compatibility_function(function, POSITIONS, PACKED)


@pytest.mark.parametrize(
    "function",
    [
        mu.sliding_window_causal_mask_function(1),
        mu.sliding_window_causal_mask_function(4),
        mu.sliding_window_bidirectional_mask_function(0),
        mu.sliding_window_bidirectional_mask_function(3),
        mu.or_masks(mu.sliding_window_causal_mask_function(4), _bidirectional_window_overlay(4)),
        mu.or_masks(mu.sliding_window_causal_mask_function(6), _bidirectional_window_overlay(3)),
        mu.or_masks(mu.sliding_window_causal_mask_function(3), _bidirectional_window_overlay(6)),
        mu.and_masks(mu.sliding_window_bidirectional_mask_function(5), mu.sliding_window_causal_mask_function(3)),
        mu.causal_mask_function,
        mu.bidirectional_mask_function,
        packed(mu.sliding_window_causal_mask_function(3)),
        packed(mu.causal_mask_function),
    ],
)
def test_as_the_function_says(function: Callable[..., Any]) -> None:
    window = window_of(function)
    assert window is not None
    offset = torch.arange(FRAMES)[None, :] - torch.arange(FRAMES)[:, None]
    band = ((offset >= -window.left) & (offset <= window.right)).expand(2, FRAMES, FRAMES)
    if window.sequences is not None:
        band = band & (window.sequences[:, :, None] == window.sequences[:, None, :])
    assert torch.equal(seen_by(function), band)


@pytest.mark.parametrize(
    ("function", "left", "right"),
    [
        (lambda b, h, q, k: k > q - 4, 3, FAR),
        (lambda b, h, q, k: k >= q - 4, 4, FAR),
        (lambda b, h, q, k: q - k < 4, 3, FAR),
        (lambda b, h, q, k: k - q <= 2, FAR, 2),
        (lambda b, h, q, k: q + 2 > k, FAR, 1),
        (lambda b, h, q, k: (k - q >= -3) & (k < q + 2), 3, 1),
        (lambda b, h, q, k: abs(q - k + 1) <= 3, 2, 4),
        (lambda b, h, q, k: abs(k - q + 1) < 3, 3, 1),
        (lambda b, h, q, k: (abs(q - k) <= 1) | ((k > q) & (k < q + 6)), 1, 5),
    ],
)
def test_by_what_the_function_does_and_not_by_its_name(function: Callable[..., Any], left: int, right: int) -> None:
    window = window_of(function)
    assert window is not None
    assert (window.left, window.right) == (left, right)
    offset = torch.arange(FRAMES)[None, :] - torch.arange(FRAMES)[:, None]
    band = ((offset >= -left) & (offset <= right)).expand(2, FRAMES, FRAMES)
    assert torch.equal(seen_by(function), band)


@pytest.mark.parametrize(
    "function",
    [
        mu.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.long)),
        mu.or_masks(mu.sliding_window_causal_mask_function(4), mu.blockwise_overlay(torch.zeros(2, 14))),
        mu.and_masks(mu.sliding_window_causal_mask_function(4), mu.padding_mask_function(torch.ones(2, 14))),
        mu.and_masks(packed(mu.causal_mask_function), packed(mu.causal_mask_function)),
        lambda b, h, q, k: abs(q - k) >= 2,
        lambda b, h, q, k: (k < q - 2) | (k > q + 2),
        lambda b, h, q, k: q % 3 == k % 3,
        lambda b, h, q, k: k < 5,
        lambda b, h, q, k: k >= 1,
        lambda b, h, q, k: k == q,
        lambda b, h, q, k: True,
        lambda b, h, q, k: torch.tensor(True),
        lambda b, h, q, k: (k <= q) & torch.tensor(True),
        lambda b, h, q, k: k <= q if k > q - 3 else k < q,
        lambda b, h, q, k: h < 1,
        mu.sliding_window_causal_mask_function(0),
    ],
)
def test_what_is_no_window_is_not_called_one(function: Callable[..., Any]) -> None:
    assert window_of(function) is None
