"""The sizes that each kind of call may run with, the default first."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ...triton_kit.tuning import Config

#: Windows of more keys walk over key blocks, and their backward pass is handed the forward's results.
NARROW_KEYS = 33


class Problem(NamedTuple):
    """What of a call decides on the kernels that can serve it."""

    float32: bool
    block_d: int  # D, rounded up to a power of two
    left: int
    right: int
    shift: bool
    options: bool  # anything but a plain window needs registers of its own
    capped: bool = False  # a softcap more than others

    @property
    def narrow(self) -> bool:
        return self.left + self.right < NARROW_KEYS

    @property
    def halo(self) -> int:
        """By how many keys the rows of a tile see more than there are rows. A shifted window reaches further."""
        return (2 if self.shift else 1) * (self.left + self.right)


def single_step(config: Config, halo: int) -> int:
    """Rows that a program of one key block owns."""
    return min(config.block_m, config.block_n - halo)


def fused_step(config: Config, problem: Problem) -> int:
    return config.block_n - 2 * (problem.left + problem.right)


def _strips(block_d: int, backward: bool = False, capped: bool = False) -> list[Config]:
    """Eight elements of a row tensor a thread: of sixteen, some are spilled. Fewer of wide or capped rows backward."""
    rows = 1024 // block_d
    if backward and block_d > 128:
        sizes = [(1, 8), (1, 4), (2, 8)] if capped else [(1, 2), (1, 4), (2, 8)]
    elif backward and capped:
        sizes = [(rows // 2, 4), (rows, 8), (rows, 4)]
    else:
        sizes = [(rows, 4), (2 * rows, 8), (2 * rows, 4)] if backward else [(2 * rows, 8), (rows, 4), (2 * rows, 4)]
    return [Config("strip", m, 0, warps, 1) for m, warps in sizes]


def _wide(sizes: list[tuple[int, int, int, int]], problem: Problem, backward: bool = False) -> list[Config]:
    """Tiles, and a strip where there is no tile or none has room. The diagonals dbias sums are of square tiles."""
    tiles = [Config("tile", *size) for size in sizes]
    return tiles + _strips(problem.block_d, backward, problem.capped)[:1]


def _fits(m: int, n: int, halo: int, block_d: int) -> bool:
    """Whether a tile of one key block owns enough of its rows or keys, and registers and shared memory hold it."""
    return 2 * min(m, n - halo) >= min(m, n // 2) and n * block_d <= 128 * 128


@lru_cache(maxsize=1024)
def forward_candidates(problem: Problem) -> list[Config]:
    d, options = problem.block_d, problem.options
    if problem.narrow:
        if problem.float32:
            return _strips(d)
        sizes = [(64, 64, 4), (32, 128, 4), (64, 128, 4)] if options else [(64, 64, 4), (64, 128, 4), (128, 128, 8)]
        sizes += [(32, 64, 2), (32, 64, 4), (16, 32, 1), (16, 64, 2)]
        tiles = [
            Config("tile", m, n, 8 if m >= 32 and (d > 64 or (problem.capped and n > 64)) else warps, 1)
            for m, n, warps in sizes
            if _fits(m, n, problem.halo, d)
        ]
        # In 128 registers twice as many programs of the first fit an SM, and a third more of the second: none spills.
        held = [(128, 128, 8), (64, 128, 4)] if d == 64 and not options else []
        tiles += [Config("tile", *size, 1, 128) for size in held if _fits(*size[:2], problem.halo, d)]
        return tiles + _strips(d)[: 2 if problem.left + problem.right < 9 else 1]
    if problem.float32:
        if d <= 64:
            return _wide([(32, 32, 8, 2), (64, 32, 8, 2), (64, 32, 8, 1), (32, 32, 4, 2)], problem)
        return _wide([] if options or d > 128 else [(16, 32, 4, 1), (16, 16, 4, 1)], problem)
    if d <= 64:
        first = [(64, 64, 8, 3), (64, 32, 4, 3)] if options else [(64, 64, 4, 3), (64, 32, 4, 4)]
        first = first[::-1] if problem.capped else first
        return _wide([*first, (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2)], problem)
    if d <= 128:
        first = [(64, 32, 8, 2)] if options else [(64, 64, 8, 2), (64, 64, 4, 2)]
        return _wide([*first, (128, 64, 8, 2), (128, 128, 8, 2), (64, 32, 4, 3)], problem)
    if options:
        return _wide([(32, 64, 8, 2), (32, 32, 8, 2)] if problem.capped else [(32, 32, 8, 2)], problem)
    return _wide([(64, 32, 8, 2), (64, 64, 8, 2), (128, 32, 8, 2)], problem)


@lru_cache(maxsize=1024)
def backward_candidates(problem: Problem) -> list[Config]:
    d, options = problem.block_d, problem.options
    if problem.narrow:
        return _strips(d, True, problem.capped) if problem.float32 else _narrow_backward(problem)
    if problem.float32:
        if options or d > 128:
            return _wide([], problem, True)
        return _wide([(16, 32, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)] if d <= 64 else [(16, 16, 4, 1)], problem, True)
    if d > 128:
        return _wide([(32, 32, 8, 2 if options else 1)], problem, True)
    if d > 64:
        if options:
            first = (32, 32, 16, 2) if problem.capped else (32, 32, 8, 1)
            return _wide([first, (64, 64, 8, 2)], problem, True)
        return _wide([(64, 64, 8, 2), (64, 32, 8, 1), (128, 32, 8, 1), (32, 32, 8, 1)], problem, True)
    if options:
        return _wide([(32, 32, 8 if problem.capped else 4, 2), (64, 64, 8, 2)], problem, True)
    return _wide([(64, 32, 4, 2), (64, 64, 4, 2), (64, 32, 4, 3), (128, 64, 8, 2), (128, 32, 8, 2)], problem, True)


def _narrow_backward(problem: Problem) -> list[Config]:
    d, halo = problem.block_d, problem.left + problem.right
    found: list[Config] = []
    large: list[Config] = []  # those that spill registers: none by default

    def spills(n: int) -> bool:
        return (n * d > 64 * 128 and problem.options) or (n * d >= 64 * 128 and problem.capped)

    if d <= 128:
        sizes = [(64, 64, 4), (32, 64, 4)] if d <= 64 else [(32, 64, 4), (64, 64, 4)]
        sizes += [(16, 64, 4), (32, 128, 8), (16, 128, 8), (16, 128, 4), (64, 128, 8)]
        if problem.options:
            sizes = [(16, 64, 4), (32, 64, 4), (64, 64, 4), (16, 128, 8), (32, 128, 8)]
        for m, n, warps in sizes:
            if 3 * (n - 2 * halo) >= n and (n * d <= 64 * 128 or not problem.options):
                (large if spills(n) else found).append(Config("fused", m, n, 8 if d > 64 else warps, 1))
    if d == 64 and not problem.options and 3 * (128 - 2 * halo) >= 128:  # 8 and 40 bytes spilled, for twice the warps
        large += [Config("fused", m, 128, 8, 1, 128) for m in (16, 32)]
    for m, n, warps in ((32, 64, 4), (64, 64, 4), (32, 128, 8), (16, 64, 4)):
        if _fits(m, n, problem.halo, d):
            (large if spills(n) else found).append(Config("tile", m, n, 8 if d > 64 else warps, 1))
    return found + _strips(d, True, problem.capped)[:1] + large
