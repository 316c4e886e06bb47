"""The words for which CUDA kernels serve a call of the window op."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from tests.emulator.run import Bhtd, Params, library


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


@pytest.mark.parametrize(
    ("window", "sizes", "words"),
    [
        ((8, 8), {"B": 1, "H": 2**31 - 1, "T": 16}, "strip"),  # 2^31 - 1 blocks of 16 rows
        ((8, 8), {"B": 1, "H": 2**31, "T": 1}, "general"),
        ((8, 8), {"B": 1, "H": 2**31 - 1, "T": 17}, "none"),
        ((40, 40), {"B": 1, "H": 2**31 - 1, "T": 1}, "tile"),
        ((40, 40), {"B": 1, "H": 2**31, "T": 1}, "general"),
        ((40, 40), {"B": 1, "H": 1, "T": 2**29}, "tile"),
        ((40, 40), {"B": 1, "H": 1, "T": 2**29 + 1}, "general"),
        ((40, 40), {"B": 1, "H": 1, "T": 2**30 - 1}, "general"),
        ((40, 40), {"B": 1, "H": 1, "T": 2**30}, "none"),
        ((40, 40), {"B": 4, "H": 2**31 - 1, "T": 1}, "general"),  # 2^31 - 1 blocks of four rows
        ((40, 40), {"B": 4, "H": 2**31, "T": 1}, "none"),
    ],
)
def test_form_at_the_limits(emulator: None, window: tuple[int, int], sizes: dict[str, int], words: str) -> None:
    """Sizes alone: nothing is launched. A grid has at most 2^31 - 1 blocks."""
    x = torch.empty(64)
    row = Bhtd(x.data_ptr() // 16 * 16, 64, 64, 64)
    p = Params(q=row, k=row, v=row, out=row, D=64, K=sizes["H"], dilation=1, scale=1.0, dtype=2, **sizes)
    p.left, p.right = window
    form = library().c.vts_sliding_window_attention_form_cuda
    form.restype = ctypes.c_char_p
    assert form(ctypes.byref(p), False) == words.encode()
