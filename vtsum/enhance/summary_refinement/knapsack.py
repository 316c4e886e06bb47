"""The exact knapsack: the shots of the greatest total worth that fit a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def select_shots(scores: Sequence[float] | np.ndarray, durations: Sequence[int] | np.ndarray, budget: int) -> list[int]:
    """The exact 0/1 knapsack over float values: shots of the greatest total score whose durations fit the budget.

    Time M * budget, memory M * budget / 8 bytes. A shot of score 0 or less is never taken; among equal sums the one
    without the later shot is kept.

    Args:
        scores (array): [M], finite values of the shots.
        durations (array): [M], whole lengths (frames) of at least 0.
        budget (int): total length to fill.
    Returns:
        list[int]: indices of the chosen shots, ascending.
    Raises:
        ValueError: for unequal lengths, values that are not finite, durations that are not whole or are negative.
    Source: the keyshot protocol of Zhang et al. 2016 and Song et al. 2015; values are not rounded to integers.
    """
    values = np.asarray(scores, dtype=np.float64)
    lengths = np.asarray(durations)
    if values.ndim != 1 or values.shape != lengths.shape:
        raise ValueError(
            f"select_shots: scores and durations must be [M], got shapes {values.shape} and {lengths.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("select_shots: scores must be finite, got NaN or infinity")
    whole = lengths.astype(np.int64)
    if (whole != lengths).any() or (whole < 0).any():
        raise ValueError("select_shots: durations must be whole numbers of at least 0, got others")
    capacity = int(budget)
    able = [int(i) for i in np.flatnonzero((values > 0) & (whole <= capacity))]
    if sum(int(whole[i]) for i in able) <= capacity:
        return able
    best = np.zeros(capacity + 1)
    taken: list[np.ndarray] = []
    for i in able:
        length = int(whole[i])
        offer = best[: capacity + 1 - length] + values[i]
        better = offer > best[length:]
        taken.append(np.packbits(better))
        np.copyto(best[length:], offer, where=better)
    chosen: list[int] = []
    left = capacity
    for i, bits in zip(reversed(able), reversed(taken), strict=True):
        at = left - int(whole[i])
        if at >= 0 and bits[at >> 3] >> (7 - (at & 7)) & 1:
            chosen.append(i)
            left = at
    return chosen[::-1]
