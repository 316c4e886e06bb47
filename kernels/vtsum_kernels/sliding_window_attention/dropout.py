"""Which weights dropout keeps: Philox4x32-10, so that every backend draws the same ones from the same seed.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def draw_seed(device: torch.device) -> Tensor:
    """One int64 from torch's generator: torch.manual_seed repeats it, and checkpointing restores it."""
    return torch.randint(2**62, (1,), dtype=torch.int64, device=device)


def drop_below(p: float) -> int:
    """Random words below this are dropped."""
    return min(int(p * 2**32), _WORD)


def frame_number(frames: Tensor, row_offset: int) -> Tensor:
    """The counter's word for a row or a key: its number in the whole sequence, in which frame 0 is `row_offset`."""
    return (frames + row_offset) & _WORD


def _product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low words of the 64-bit product of 32-bit words, which int64 itself could not hold unsigned."""
    low_half, high_half = a & 0xFFFF, a >> 16
    low = low_half * b
    high = high_half * b + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(seed: Tensor, counter: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Word 0 of Philox4x32-10 with the seed's low and high half as key.

    Args:
        seed (Tensor): int64 [1].
        counter (tuple[Tensor, Tensor, Tensor]): words 0 to 2 (word 3 is 0), int64 in [0, 2**32), of shapes that
            broadcast together.
    Returns:
        Tensor: int64 in [0, 2**32), of the common shape.
    """
    key0, key1 = seed & _WORD, (seed >> 32) & _WORD
    c0, c1, c2 = torch.broadcast_tensors(*counter)
    c3 = torch.zeros_like(c0)
    for _ in range(ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + _WEYL[0]) & _WORD, (key1 + _WEYL[1]) & _WORD
    return c0
