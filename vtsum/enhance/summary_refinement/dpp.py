"""Greedy search for the best subset of a determinantal point process (DPP): what is good, and not twice the same.

A DPP gives each subset Y a weight det(L_Y), where L_Y are the rows and columns of Y in the kernel

    L_ij = quality_i * quality_j * S_ij,        S_ij the likeness of i and j: 1 for i = j, positive semidefinite

log det(L_Y) = 2 sum_Y log quality_i + log det(S_Y) grows with the quality of what is taken and falls where two of it
are alike. The best subset (MAP) is NP-hard to find; the greedy search that adds the item of the greatest gain is what
the field uses. The gain of an item is the logarithm of a pivot of L's Cholesky factor, so all gains are kept up to date
by one row of the factor a pick: O(N k) a pick instead of the O(N k^3) of N determinants.

With a budget the search goes by gain per length, over log det(I + L_Y): the logarithm of the sum of det(L_S) over all
subsets S of Y, that is of the probability that Y holds. It is monotone and submodular, and 0 for the empty set, so that
the better of this search and of the best single item is within (1 - 1/e) / 2 of the best subset that fits. For small
qualities it is nearly the sum of the squared qualities: the plain knapsack. The larger they are, the more diversity
counts.

Source: Kulesza and Taskar, "Determinantal point processes for machine learning", 2012; Chen, Zhang, Zhou, "Fast greedy
MAP inference for determinantal point processes to improve recommendation diversity", NeurIPS 2018, algorithm 1; the
budget: Leskovec et al., "Cost-effective outbreak detection in networks", KDD 2007, theorem 3.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Similarity = Literal["cosine", "gaussian"]

_AHEAD = 48  # rows of the kernel computed by one matrix product: those of the greatest gains are likely picked soon
_KEPT = 4 * _AHEAD  # rows of the kernel held at a time
_MOST_QUALITY = 1e100  # its square is a number
_EXHAUSTED = 1e-10  # share of its own weight below which an item adds nothing but rounding


class Kernel:
    """The kernel of a DPP, its rows computed when wanted: memory N * C, not N * N.

    Attributes:
        diagonal (array): [N], L_ii.
    """

    def __init__(
        self, name: str, quality: np.ndarray, features: np.ndarray, similarity: Similarity, scale: float | None
    ) -> None:
        weights = np.asarray(quality, dtype=np.float64)
        x = np.asarray(features)
        if x.ndim != 2:
            raise ValueError(f"{name}: features must be [N, C], got shape {x.shape}")
        if weights.shape != x.shape[:1]:
            raise ValueError(f"{name}: quality must be [{len(x)}], got shape {weights.shape}")
        if not np.isfinite(x).all():
            bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise ValueError(f"{name}: features must be finite, got NaN or infinity in row {bad}")
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            bad = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
            raise ValueError(f"{name}: quality must be finite and at least 0, got {weights[bad]} at {bad}")
        if weights.max(initial=0.0) > _MOST_QUALITY:
            raise ValueError(f"{name}: quality must be at most {_MOST_QUALITY:g}, got {weights.max():g}")
        if similarity not in ("cosine", "gaussian"):
            raise ValueError(f"{name}: similarity must be cosine or gaussian, got {similarity!r}")
        if scale is not None and similarity == "cosine":
            raise ValueError(f"{name}: scale must be left out for cosine similarity, got {scale}")
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{name}: scale must be a finite number above 0, got {scale}")
        self._unit = unit_rows(x)
        self._quality = weights
        self._similarity = similarity
        if scale is None and len(x):
            # 1 - |mean|^2 is the mean squared distance of unit rows to their mean.
            scale = 0.5 * max(1.0 - float((self._unit.mean(axis=0) ** 2).sum()), 1e-9)
        self._scale = scale or 1.0
        self._rows: dict[int, np.ndarray] = {}
        self.diagonal = weights**2

    def __len__(self) -> int:
        return len(self._quality)

    def block(self, rows: np.ndarray) -> np.ndarray:
        """The rows L[rows]: [len(rows), N]."""
        like = self._unit[rows] @ self._unit.T
        if self._similarity == "gaussian":
            like -= 1.0
            np.minimum(like, 0.0, out=like)
            like *= 2.0 / self._scale
            np.exp(like, out=like)
        like[np.arange(len(rows)), rows] = 1.0
        like *= self._quality[rows][:, None]
        like *= self._quality
        return like

    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """The positive eigenvalues of L [R], ascending, and their unit eigenvectors [N, R]; R is the rank of L."""
        if not len(self):
            return np.zeros(0), np.zeros((0, 0))
        dual = self._similarity == "cosine" and self._unit.shape[1] < len(self)
        rows = self._quality[:, None] * self._unit
        values, vectors = np.linalg.eigh(rows.T @ rows if dual else self.block(np.arange(len(self))))
        positive = values > max(float(values[-1]), 0.0) * len(self) * np.finfo(np.float64).eps
        values, vectors = values[positive], vectors[:, positive]
        return values, rows @ vectors / np.sqrt(values) if dual else vectors

    def row(self, item: int, gains: np.ndarray, more: int) -> np.ndarray:
        """The row L[item]; on the way, and at little cost, those of up to `more` further items of the greatest gain."""
        if (found := self._rows.get(item)) is not None:
            return found
        count = min(_AHEAD, more + 1, len(gains))
        wanted = np.argpartition(-gains, count - 1)[:count] if count < len(gains) else np.arange(len(gains))
        wanted = np.array([item, *(i for i in wanted.tolist() if i != item and i not in self._rows)])
        if len(self._rows) + len(wanted) > _KEPT:
            self._rows.clear()
        self._rows.update(zip(wanted.tolist(), self.block(wanted), strict=True))
        return self._rows[item]


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64, whatever their scale; rows of zeros get a direction of their own, all the same one."""
    x = np.asarray(features, dtype=np.float64)
    largest = np.abs(x).max(axis=1, initial=0.0, keepdims=True)
    x = x / np.where(largest > 0, largest, 1.0)  # squares of very large and very small values stay in range
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    empty = norms == 0
    x = x / np.where(empty, 1.0, norms)
    return np.hstack([x, empty.astype(np.float64)]) if empty.any() else x


def greedy_map(
    quality: np.ndarray,
    features: np.ndarray,
    *,
    k: int | None = None,
    budget: float | None = None,
    lengths: np.ndarray | None = None,
    similarity: Similarity = "cosine",
    scale: float | None = None,
) -> list[int]:
    """Pick items of high quality that differ from each other: the greedy MAP of a DPP.

        without a budget:  add argmax_i det(L_{Y + i})                                   until k are picked
        with a budget:     add argmax_i log(det(I + L_{Y + i}) / det(I + L_Y)) / lengths_i   while one fits

    The picks are those of the greedy search that computes every determinant anew; among equals the first item.
    Time grows with N * picks^2, memory with N * picks.

    Args:
        quality (array): [N], finite and at least 0; an item of quality 0 is never picked.
        features (array): [N, C], finite; only their directions count. A row of zeros is unlike all others.
        k (int | None): at most so many picks. None without a budget: as long as the determinant grows.
        budget (float | None): the most that the lengths of the picks may add up to. The picks are then the better of
            the search by gain per length and of the same search begun with the best single item.
        lengths (array | None): [N], finite and above 0; seconds, frames, words. Given exactly with a budget.
        similarity ("cosine" | "gaussian"): cosine of the features, or exp(-|u_i - u_j|^2 / scale) of unit rows u.
            Cosines of C columns let at most C items be picked without a budget; the Gaussian has no such limit.
        scale (float | None): of the Gaussian; None: half the mean squared distance of the unit rows to their mean.
    Returns:
        list[int]: indices in the order in which they were picked: the best first. Fewer than k where nothing else adds
            to the determinant (an item that is a copy of a picked one adds nothing), none for N = 0.
    Raises:
        ValueError: wrong shapes, values that are not finite or too small, lengths without a budget or the reverse.
    Source: see the module.
    """
    kernel = Kernel("greedy_map", quality, features, similarity, scale)
    count = len(kernel)
    if k is not None and (isinstance(k, bool) or int(k) != k or k < 0):
        raise ValueError(f"greedy_map: k must be a whole number of at least 0, got {k}")
    if (budget is None) != (lengths is None):
        raise ValueError("greedy_map: budget and lengths must be given together, got only one of them")
    most = count if k is None else min(int(k), count)
    if budget is None or lengths is None:
        return _search(kernel, most, 0.0 if k is not None else 1.0)[0]
    cost = np.asarray(lengths, dtype=np.float64)
    if cost.shape != (count,):
        raise ValueError(f"greedy_map: lengths must be [{count}], got shape {cost.shape}")
    if not (np.isfinite(cost).all() and (cost > 0).all()):
        raise ValueError("greedy_map: lengths must be finite and above 0, got others")
    if not (math.isfinite(budget) and budget >= 0):
        raise ValueError(f"greedy_map: budget must be a finite number of at least 0, got {budget}")
    picks, worth = _search_budget(kernel, most, cost, float(budget), None)
    single = np.where(cost <= budget, kernel.diagonal, 0.0)
    if most and single.size and math.log1p(float(single.max())) > worth:
        picks, worth = _search_budget(kernel, most, cost, float(budget), int(np.argmax(single)))
    return picks


class _Factor:
    """The Cholesky factor of shift * I + L over the picks, a row a pick, and every item's pivot if it came next."""

    def __init__(self, kernel: Kernel, shift: float) -> None:
        self._kernel = kernel
        self._shift = shift
        self._rows = np.empty((min(64, max(len(kernel), 1)), len(kernel)))
        self._count = 0
        self.pivots = shift + kernel.diagonal
        self._least = _EXHAUSTED * self.pivots

    def add(self, item: int, gains: np.ndarray, more: int) -> None:
        """Pick an item. `gains` and `more` tell which rows of the kernel are likely to be wanted next."""
        done = self._rows[: self._count]
        root = math.sqrt(float(self.pivots[item]))
        row = self._kernel.row(item, gains, more) - done[:, item] @ done
        row /= root
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = row
        self._count += 1
        self.pivots -= row * row
        self.pivots[self.pivots < self._least] = 0.0
        self.pivots[item] = 0.0
        np.maximum(self.pivots, self._shift, out=self.pivots)


def _search(kernel: Kernel, most: int, least: float) -> tuple[list[int], float]:
    """Items of the greatest pivot while it is above `least`, and the logarithm of their determinant."""
    factor = _Factor(kernel, 0.0)
    picks: list[int] = []
    worth = 0.0
    while len(picks) < most:
        item = int(np.argmax(factor.pivots))
        pivot = float(factor.pivots[item])
        if pivot <= least:
            break
        picks.append(item)
        worth += math.log(pivot)
        if len(picks) < most:
            factor.add(item, factor.pivots, most - len(picks))
    return picks, worth


def _search_budget(
    kernel: Kernel, most: int, cost: np.ndarray, budget: float, first: int | None
) -> tuple[list[int], float]:
    """Items of the greatest gain per cost that still fit, beginning with `first`, and the sum of their gains."""
    factor = _Factor(kernel, 1.0)
    picks: list[int] = []
    worth, left = 0.0, budget
    free = np.ones(len(kernel), dtype=bool)
    while len(picks) < most:
        fits = free & (cost <= left)
        rates = np.zeros(len(kernel))
        np.log(factor.pivots, out=rates, where=fits)
        rates /= cost
        item = int(np.argmax(rates)) if first is None or picks else first
        if rates[item] <= 0:
            break
        picks.append(item)
        free[item] = False
        worth += float(rates[item] * cost[item])
        left -= float(cost[item])
        if len(picks) < most:
            factor.add(item, rates, min(most - len(picks), int(left // cost.min())))
    return picks, worth
