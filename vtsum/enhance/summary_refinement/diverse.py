"""Shots that are worth their time and differ from each other: the knapsack's place taken by a DPP with a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vtsum.enhance.summary_refinement.dpp import greedy_map, unit_rows

STRENGTH = 10.0  # F on TVSum is flat from 3 to 100, diversity grows


def select_diverse(
    worth: np.ndarray,
    lengths: np.ndarray,
    budget: int,
    vectors: np.ndarray,
    *,
    strength: float = STRENGTH,
    scale: float | None = None,
) -> list[int]:
    """Choose shots of great worth that do not look alike, within a budget.

        maximise log det(I + L_Y),  L_ij = strength / mean(worth) * sqrt(worth_i worth_j) * exp(-|u_i - u_j|^2 / scale)

    by the greedy search by gain per length. As strength goes to 0 this is the plain knapsack, taken greedily: the sum
    of the worths. With more strength, a shot is worth less the more it looks like those that are already in.

    Args:
        worth (array): [M], finite; a shot of 0 or less is never chosen.
        lengths (array): [M], at least 0; shots of length 0 are never chosen.
        budget (int): of the same unit.
        vectors (array): [M, C], mean features of the shots; only their directions count.
        strength (float): above 0.
        scale (float | None): squared distance of unit vectors at which likeness falls to 1/e; None: half of their mean
            squared distance to their mean.
    Returns:
        list[int]: indices of the chosen shots, ascending.
    Raises:
        ValueError: as greedy_map, and for a strength that is not above 0.
    Source: see `greedy_map`.
    """
    if not (math.isfinite(strength) and strength > 0):
        raise ValueError(f"select_diverse: strength must be a finite number above 0, got {strength}")
    values = np.asarray(worth, dtype=np.float64)
    cost = np.asarray(lengths, dtype=np.float64)
    if values.ndim != 1 or values.shape != cost.shape or not np.isfinite(values).all():
        raise ValueError(
            f"select_diverse: worth and lengths must be [M] and finite, got shapes {values.shape} and {cost.shape}"
        )
    able = np.flatnonzero((values > 0) & (cost > 0) & (cost <= budget))
    if cost[able].sum() <= budget:
        return [int(i) for i in able]
    picks = greedy_map(
        _quality(values[able], strength),
        np.asarray(vectors)[able],
        budget=budget,
        lengths=cost[able],
        similarity="gaussian",
        scale=_scale(vectors) if scale is None else scale,
    )
    return sorted(int(able[i]) for i in picks)


def novelty(
    worth: np.ndarray,
    vectors: np.ndarray,
    chosen: Sequence[int],
    *,
    strength: float = STRENGTH,
    scale: float | None = None,
) -> np.ndarray:
    """What of each shot's gain is left beside the chosen shots that are worth more: 1 all of it, 0 for a repeat.

        out[i] = log(det(I + L_{Y + i}) / det(I + L_Y)) / log(1 + L_ii)

    Y are, for a shot that was not chosen, all that were; for a chosen one those of them that are worth more.

    Args:
        worth (array), vectors (array), strength, scale: as for `select_diverse`.
        chosen (list): indices of the chosen shots.
    Returns:
        array: [M] float64, 0..1.
    """
    values = np.maximum(np.asarray(worth, dtype=np.float64), 0.0)
    able = values > 0
    out = np.ones(len(values))
    order = [int(i) for i in sorted(chosen, key=lambda i: -values[i]) if able[i]]
    if not order:
        return out
    quality = np.zeros(len(values))
    quality[able] = _quality(values[able], strength)
    own = quality**2
    like = likeness(vectors, vectors[order], _scale(vectors) if scale is None else scale)
    rows = (quality[:, None] * like * quality[order]).T
    whole = np.eye(len(order)) + rows[:, order]
    # Column i of the solved rows are the coefficients of i in the factor, one for each chosen shot in turn.
    coefficients = np.linalg.solve(np.linalg.cholesky(whole), rows) ** 2
    seen = coefficients.sum(axis=0)
    for rank, i in enumerate(order):
        seen[i] = coefficients[:rank, i].sum()
    gain = np.log(np.maximum(1.0 + own - seen, 1.0))
    return np.divide(gain, np.log1p(own), out=out, where=able).clip(0.0, 1.0)


def likeness(vectors: np.ndarray, others: np.ndarray, scale: float) -> np.ndarray:
    """exp(-|u_i - v_j|^2 / scale) of the directions u of `vectors` [M, C] and v of `others` [K, C]: [M, K]."""
    both = unit_rows(np.vstack([vectors, others]))
    u, v = both[: len(vectors)], both[len(vectors) :]
    return np.asarray(np.exp(-np.maximum(2.0 - 2.0 * (u @ v.T), 0.0) / scale))


def _quality(values: np.ndarray, strength: float) -> np.ndarray:
    return np.asarray(np.sqrt(strength * values / values.mean()))


def _scale(vectors: np.ndarray) -> float:
    """Half the mean squared distance of the unit rows to their mean; of all shots, able to be chosen or not."""
    return 0.5 * max(1.0 - float((unit_rows(vectors).mean(axis=0) ** 2).sum()), 1e-9)
