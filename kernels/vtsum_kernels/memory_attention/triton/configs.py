"""The sizes that each kernel may run with, the default first.

Chosen for an H100's 227 KiB of shared memory and 64 Ki registers a block. The defaults fit an A100 and a B200 too, and
spill registers on none of them; what is best on each of them is measured. A Config's block_m are rows; its block_n are
slots or columns of the output. float32 is multiplied in float32, without tensor cores.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ...triton_kit.launch import power_of_two
from ...triton_kit.tuning import Config

#: The widest keys and values that flash tiles hold.
MAX_DIM_FLASH = 256
#: float32 stays float32: the tensor cores' shorter formats would blur the weights.
PRECISION = "ieee"


def about(rows: int) -> str:
    """The kind of a number of rows that a choice is remembered for."""
    return f"rows~2^{max(rows - 1, 1).bit_length()}"


def block_k(dtype: torch.dtype) -> int:
    """Columns of a step along the inner size of a product: 128 bytes a row."""
    return 32 if dtype == torch.float32 else 64


def sizes_of(form: str, *sizes: tuple[int, int, int, int]) -> list[Config]:
    return [Config(form, *size) for size in sizes]


@lru_cache(maxsize=1024)
def weights_forward_candidates(dtype: torch.dtype, slots: int) -> list[Config]:
    """ "tiles": block_n holds half of the slots at least. "walk": it need not."""
    width = power_of_two(slots)
    if dtype == torch.float32:
        if width <= 128:
            rows = 4096 // max(width, 32)
            return sizes_of("tiles", (rows // 2, width, 4, 2), (rows, width, 8, 2))
        return sizes_of("walk", (32, 64, 4, 2), (64, 64, 8, 2), (64, 128, 8, 2), (32, 128, 8, 2))
    if width <= 64:
        return sizes_of("tiles", (128, width, 8, 4), (64, width, 4, 4), (128, width, 4, 4), (32, width, 4, 4))
    if width <= 128:
        return sizes_of("tiles", (128, width, 8, 3), (64, width, 4, 4), (64, width, 8, 4), (32, width, 4, 4))
    if width <= 256:
        tiles = ((64, width, 8, 3), (128, width, 8, 3), (128, 128, 8, 3), (64, width, 8, 4), (32, width, 8, 3))
        return sizes_of("tiles", *tiles)
    walks = sizes_of("walk", (128, 128, 8, 3), (128, 256, 8, 3), (64, 256, 8, 3), (64, 128, 8, 3))
    if slots % 16:  # rows of weights that start at odd places are stored an element a time, which takes registers
        walks = sizes_of("walk", (64, 64, 8, 3), (32, 128, 8, 3)) + walks
    if width <= 512:
        return sizes_of("tiles", (32, 256, 8, 2), (64, 256, 8, 2), (64, 256, 8, 3), (64, 512, 8, 3)) + walks
    return walks


@lru_cache(maxsize=1024)
def weights_backward_candidates(slots: int) -> list[Config]:
    width = power_of_two(slots)
    if width > 2048:
        return sizes_of("walk", (2, 1024, 4, 1), (1, 2048, 4, 1), (8, 512, 4, 1))
    rows = 4096 // width
    return sizes_of("single", (rows, width, 4, 1), (2 * rows, width, 8, 1), (rows // 2, width, 4, 1))


@lru_cache(maxsize=1024)
def scores_backward_candidates(dtype: torch.dtype, columns: int) -> list[Config]:
    if dtype == torch.float32:
        return sizes_of("tile", (128, 64, 8, 3), (64, 64, 8, 2), (32, 64, 4, 2))
    if columns <= 64:
        return sizes_of("tile", (128, 64, 8, 3), (64, 64, 4, 4), (128, 64, 4, 3), (32, 64, 4, 4))
    sizes = ((64, 128, 8, 3), (128, 64, 8, 4), (128, 128, 8, 3), (64, 256, 8, 3), (64, 64, 4, 4), (32, 64, 4, 4))
    return sizes_of("tile", *sizes)


@lru_cache(maxsize=1024)
def flash_forward_candidates(dtype: torch.dtype, width: int, options: bool) -> list[Config]:
    """`width`: the wider of keys and values, rounded up to a power of two. `options`: a slot bias or a query mask.

    Where a product feeds another, a warp has 16 rows to itself before sm_100: more warps do each other's work again.
    They are the default only where fewer would spill registers.
    """
    if dtype == torch.float32:
        if width > 128:
            return sizes_of("tile", (16, 32, 4, 1), (32, 32, 8, 1))
        return sizes_of("tile", *([(32, 16, 4, 1)] if width <= 64 else []), (32, 32, 4, 1), (64, 32, 8, 1))
    if width <= 64:
        sizes = [(128, 64, 8, 3), (64, 64, 4, 3), (128, 128, 8, 2), (128, 64, 4, 3), (64, 128, 4, 2)]
    elif width <= 128:
        sizes = [(128, 64, 8, 2), (64, 32, 4, 2), (64, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2)]
    else:
        return sizes_of("tile", (64, 32, 8, 2), (64, 32, 4, 2), (128, 64, 8, 2), (128, 32, 8, 2))
    return sizes_of("tile", *(sizes[1:] + sizes[:1] if options else sizes))


@lru_cache(maxsize=1024)
def usage_candidates(dtype: torch.dtype) -> list[Config]:
    if dtype == torch.float32:
        return sizes_of("tile", (16, 32, 4, 1), (32, 32, 8, 1), (64, 32, 8, 1))
    return sizes_of("tile", (64, 64, 4, 3), (64, 64, 8, 3), (128, 64, 8, 3), (64, 128, 8, 2))


#: Of backward passes over rows that leave no registers for tensor cores' tiles of 16 rows a warp.
_WIDE = ((32, 32, 8, 1), (32, 16, 8, 1), (64, 32, 8, 1), (64, 64, 8, 1), (32, 64, 8, 1))


def _flash_backward_float32(width: int, *of_128: tuple[int, int, int, int]) -> list[Config]:
    if width <= 64:
        return sizes_of("tile", (32, 32, 4, 1), (32, 32, 8, 1))
    return sizes_of("tile", *(of_128 if width <= 128 else [(32, 32, 8, 1), (16, 16, 8, 1)]))


@lru_cache(maxsize=1024)
def flash_rows_candidates(dtype: torch.dtype, width: int, options: bool) -> list[Config]:
    """`options`: a slot bias, a query mask, a gradient of usage or odd sizes, all of which take registers."""
    if dtype == torch.float32:
        return _flash_backward_float32(width, (64, 16, 8, 1), (32, 16, 4, 1), (32, 32, 8, 1))
    if width > 128:
        return sizes_of("tile", *_WIDE)
    sizes = [(64, 64, 4, 2), (64, 32, 4, 2), (128, 64, 8, 2), (128, 32, 8, 2)]
    return sizes_of("tile", *(sizes[1:] + sizes[:1] if options or width > 64 else sizes))


@lru_cache(maxsize=1024)
def flash_slots_candidates(dtype: torch.dtype, width: int, options: bool) -> list[Config]:
    """block_n slots of a program, of which a warp has 16 where registers allow it; block_m are the rows of a step."""
    if dtype == torch.float32:
        return _flash_backward_float32(width, (16, 16, 4, 1), (32, 16, 4, 1), (32, 32, 8, 1))
    if width > 128:
        return sizes_of("tile", *_WIDE)
    if width > 64 or options:
        sizes = [(32, 64, 4, 2), (32, 128, 8, 2), (32, 128, 8, 1), (32, 64, 4, 1)]
        if options:
            sizes = [(32, 64, 8, 2), *sizes] if width > 64 else sizes[1:] + sizes[:1]
        return sizes_of("tile", *sizes)
    return sizes_of("tile", (64, 64, 4, 2), (64, 128, 8, 2), (64, 64, 4, 1))
