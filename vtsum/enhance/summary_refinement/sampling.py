"""Samples of a k-DPP: random subsets of k items, the likelier the better and the more different its items are.

    P(Y) = det(L_Y) / e_k(lambda_1, ..., lambda_N)      over all Y of k items; L as for greedy_map

e_k is the elementary symmetric polynomial of L's eigenvalues lambda: the sum of the products of k different ones. A
sample is drawn in two steps: k eigenvectors, each in turn with its share of what is left of the polynomial; then k
items of the projection onto them, each with probability proportional to what its row has left beyond the items drawn
before.

Source: Kulesza and Taskar, "k-DPPs: fixed-size determinantal point processes", ICML 2011, algorithms 1 and 2. The
second step goes by a Cholesky factor, as in greedy_map, instead of an orthonormal basis: the same probabilities.
"""

from __future__ import annotations

import numpy as np

from vtsum.enhance.summary_refinement.dpp import Kernel, Similarity


def sample_kdpp(
    quality: np.ndarray,
    features: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    similarity: Similarity = "cosine",
    scale: float | None = None,
) -> list[int]:
    """Draw k items with a probability proportional to the determinant of their part of the kernel.

    Time grows with N^3 for the eigenvectors (cosines of C < N columns: with N C^2), and with N k^2.

    Args:
        quality (array), features (array), similarity, scale: [N] and [N, C], as for `greedy_map`.
        k (int): how many, 0 to the rank of the kernel.
        rng (Generator): `numpy.random.default_rng(seed)`; the same seed draws the same items.
    Returns:
        list[int]: k different indices, ascending.
    Raises:
        ValueError: as `greedy_map`, and for a k that is no whole number from 0 to the rank of the kernel.
    Source: see the module.
    """
    kernel = Kernel("sample_kdpp", quality, features, similarity, scale)
    values, vectors = kernel.eigen()
    if isinstance(k, bool) or int(k) != k or not 0 <= k <= len(values):
        raise ValueError(f"sample_kdpp: k must be a whole number from 0 to the kernel's rank {len(values)}, got {k}")
    chosen = _choose_eigenvectors(values, int(k), rng)
    return sorted(_sample_projection(vectors[:, chosen], rng))


def _choose_eigenvectors(values: np.ndarray, k: int, rng: np.random.Generator) -> list[int]:
    """k of the positive eigenvalues, with a probability proportional to their product."""
    logs = np.log(values)
    # table[n, l]: logarithm of the polynomial of degree l of the first n eigenvalues; sums would overflow.
    table = np.full((len(values) + 1, k + 1), -np.inf)
    table[:, 0] = 0.0
    for n, log in enumerate(logs, 1):
        table[n, 1:] = np.logaddexp(table[n - 1, 1:], log + table[n - 1, :-1])
    chosen: list[int] = []
    for n in range(len(values), 0, -1):
        wanted = k - len(chosen)
        if wanted == 0:
            break
        if np.log(1.0 - rng.random()) < logs[n - 1] + table[n - 1, wanted - 1] - table[n, wanted]:
            chosen.append(n - 1)
    return chosen


def _sample_projection(vectors: np.ndarray, rng: np.random.Generator) -> list[int]:
    """As many items as there are columns of the orthonormal [N, k], by the chain rule."""
    left = (vectors**2).sum(axis=1)
    factor = np.empty(vectors.shape[::-1])
    items: list[int] = []
    for n in range(vectors.shape[1]):
        item = int(rng.choice(len(left), p=left / left.sum()))
        row = vectors @ vectors[item] - factor[:n, item] @ factor[:n]
        factor[n] = row / np.sqrt(left[item])
        left = np.maximum(left - factor[n] ** 2, 0.0)
        items.append(item)
        left[items] = 0.0
    return items
