"""The words for which CUDA kernels serve a call of the window op."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.mark.parametrize(
    ("dtype", "dim", "window", "shift", "words"),
    [
        (torch.float32, 32, (2, 2), False, "ring kernels forward, ring kernels backward"),
        (torch.float32, 31, (2, 2), False, "general kernels forward, general kernels backward"),
        (torch.float32, 32, (2, 2), True, "general kernels forward, general kernels backward"),
        (torch.bfloat16, 32, (8, 8), False, "strip kernels forward, strip kernels backward"),
        (torch.float16, 32, (40, 40), False, "tile kernels forward, tile kernels backward"),
    ],
)
def test_form(emulated: Any, dtype: torch.dtype, dim: int, window: tuple[int, int], shift: bool, words: str) -> None:
    q = torch.randn(1, 2, 100, dim).to(dtype)
    wide = sum(window) + 1 > 33
    options = (*window, 1, shift, 0.5, 0.0, 0, wide)
    assert emulated.sliding_window_attention_form(q, q, q, None, None, None, None, *options) == words
