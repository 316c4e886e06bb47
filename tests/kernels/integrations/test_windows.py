"""The window read from a mask function is the one the function describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import masking_utils as mu
from transformers.models.gemma3.modeling_gemma3 import _bidirectional_window_overlay
from vtsum_kernels.integrations.windows import window_of

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


def changed(meaning: Callable[[int, int, int], bool]) -> Callable[..., Any]:
    """A part of the name that transformers gives to sliding_window_overlay's, with another meaning."""

    def inner_mask(batch_idx: int, head_idx: int, q_idx: int, kv_idx: int) -> bool:
        return meaning(q_idx, kv_idx, sliding_window)

    sliding_window = 4
    inner_mask.__qualname__ = "sliding_window_overlay.<locals>.inner_mask"
    return inner_mask


def test_a_part_that_changed_its_meaning_is_not_trusted() -> None:
    assert window_of(changed(lambda q, k, w: k > q - w)) is not None
    assert window_of(changed(lambda q, k, w: k >= q - w)) is None
    assert window_of(changed(lambda q, k, w: k > q - w + 1)) is None
    assert window_of(changed(lambda q, k, w: abs(k - q) < w)) is None


@pytest.mark.parametrize(
    "function",
    [
        mu.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.long)),
        mu.or_masks(mu.sliding_window_causal_mask_function(4), mu.blockwise_overlay(torch.zeros(2, 14))),
        mu.and_masks(mu.sliding_window_causal_mask_function(4), mu.padding_mask_function(torch.ones(2, 14))),
        mu.and_masks(packed(mu.causal_mask_function), packed(mu.causal_mask_function)),
        lambda b, h, q, k: k <= q,
        mu.sliding_window_causal_mask_function(0),
    ],
)
def test_what_is_no_window_is_not_called_one(function: Callable[..., Any]) -> None:
    assert window_of(function) is None
