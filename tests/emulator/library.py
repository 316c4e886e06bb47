"""A library of emulated kernels: how it is loaded, what its errors say, and what of the emulator a test can set."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_int64
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

#: vts_dtype.
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


class Emulated:
    """A compiled library."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.vts_cuda_error_text.restype = ctypes.c_char_p

    def check(self, error: int) -> None:
        if error:
            raise RuntimeError(self.c.vts_cuda_error_text(c_int(error)).decode())

    def reverse(self, reverse: bool) -> None:
        """Run threads in falling instead of rising order: a kernel without races gives the same bits."""
        self.c.vts_emulator_reverse(c_int(reverse))

    def same_bits_in_any_order(self, run: Callable[[], T]) -> T:
        """What a call gives, tensors in any container: the same whichever thread runs first."""
        results = run()
        self.reverse(True)
        try:
            again = run()
        finally:
            self.reverse(False)
        assert all(map(torch.equal, tree_leaves(results), tree_leaves(again))), (
            "the order of threads changes the results"
        )
        return results

    @contextmanager
    def most_blocks(self, most: int) -> Iterator[None]:
        """Grids of so many blocks at most: what a GPU does only where there are more than 2^31 - 1."""
        self.c.vts_emulator_most_blocks(c_int64(most))
        try:
            yield
        finally:
            self.c.vts_emulator_most_blocks(c_int64(2**31 - 1))
