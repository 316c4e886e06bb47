"""The sizes that each kind of call may run with, the default first."""

from __future__ import annotations

from typing import NamedTuple

from .triton_tuning import Config

#: Windows of more keys walk over key blocks, and their backward pass is handed the forward's results.
NARROW_KEYS = 33


class Problem(NamedTuple):
    """What of a call decides on the kernels that can serve it."""

    float32: bool
    block_d: int  # D, rounded up to a power of two
    left: int
    right: int
    shift: bool
    bias: bool

    @property
    def narrow(self) -> bool:
        return self.left + self.right < NARROW_KEYS

    @property
    def halo(self) -> int:
        """By how many keys the rows of a tile see more than there are rows. A shifted window reaches further."""
        return (2 if self.shift else 1) * (self.left + self.right)


def _strips(block_d: int) -> list[Config]:
    rows = (2048 if block_d <= 128 else 1024) // block_d
    return [Config("strip", rows, 0, 4, 1), Config("strip", max(rows // 2, 1), 0, 2, 1)]


def _power_above(n: int) -> int:
    return 1 << max(n - 1, 15).bit_length()


def single_step(config: Config, halo: int) -> int:
    """Rows that a program of one key block owns."""
    return min(config.block_m, config.block_n - halo)


def fused_step(config: Config, problem: Problem) -> int:
    return config.block_n - 2 * (problem.left + problem.right)


def _elements(problem: Problem) -> int:
    """Elements of a row of keys that a tile of one block may have, by what fits into registers and shared memory."""
    return 128 * 128 if problem.block_d <= 128 else 64 * 256


def forward_candidates(problem: Problem) -> list[Config]:
    d = problem.block_d
    if not problem.narrow:
        if problem.float32:
            m, n = (32, 32) if d > 64 else (64, 32)
            return [Config("tile", m, n, 4, 2), Config("tile", m, n, 8, 2), Config("tile", 2 * m, n, 8, 2)]
        if d > 128:
            sizes = [(64, 32, 8, 2), (64, 64, 8, 2), (128, 32, 8, 2)]
        elif d > 64:
            sizes = [(64, 64, 4, 2), (128, 64, 8, 2), (128, 128, 8, 2), (64, 32, 4, 3)]
        else:
            sizes = [(64, 64, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 32, 4, 4)]
        return [Config("tile", *size) for size in sizes]
    if problem.float32:
        return _strips(d)
    tiles = []
    for m, n, warps in ((64, 64, 4), (64, 128, 4), (32, 64, 2), (32, 64, 4), (16, 32, 1), (16, 64, 2), (128, 128, 8)):
        step = min(m, n - problem.halo)
        if 2 * step >= min(m, n // 2) and n * d <= _elements(problem):
            tiles.append(Config("tile", m, n, 8 if d > 128 and m >= 64 else warps, 1))
    return tiles + (_strips(d) if problem.left + problem.right < 9 else _strips(d)[:1])


def backward_candidates(problem: Problem) -> list[Config]:
    d = problem.block_d
    if not problem.narrow:
        if problem.float32:
            sizes = [(32, 32, 4, 1), (32, 32, 8, 1)] if d > 64 else [(32, 32, 4, 2), (64, 64, 8, 1)]
        elif d > 128:
            sizes = [(32, 32, 4, 1), (32, 32, 8, 1), (64, 64, 8, 1), (64, 32, 8, 1)]
        elif d > 64:
            sizes = [(64, 64, 8, 1), (64, 32, 4, 2), (64, 64, 8, 2), (128, 32, 8, 2), (128, 64, 8, 1)]
        else:
            sizes = [(64, 64, 4, 2), (64, 32, 4, 3), (128, 64, 8, 2), (128, 32, 8, 2), (128, 128, 8, 1)]
        # The diagonals that dbias sums are those of square blocks.
        return [Config("tile", *size) for size in sizes if size[0] == size[1] or not problem.bias]
    if problem.float32:
        return _strips(d)
    halo = problem.left + problem.right
    found = []
    for m, n, warps in ((64, 64, 4), (64, 128, 8), (32, 64, 4), (16, 64, 4), (32, 128, 8), (32, 128, 4)):
        if d <= 128 and 4 * (n - 2 * halo) >= n:
            found.append(Config("fused", m, n, 8 if d > 64 else warps, 1))
    for m, n, warps in ((32, 64, 4), (64, 64, 4), (64, 128, 8), (16, 64, 4)):
        if 2 * min(m, n - problem.halo) >= min(m, n // 2) and n * d <= _elements(problem):
            found.append(Config("tile", m, n, 8 if d > 128 and m >= 32 else warps, 1))
    return found + _strips(d)[:1]
