"""Repeats: shots that look like a better one."""

from __future__ import annotations

import math

import numpy as np


def discount_repeats(
    scores: np.ndarray, vectors: np.ndarray, scatter: float, strength: float = 0.8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower the scores of shots that look like a better one, so that a summary shows different things.

        out[i] = scores[i] * (1 - strength * max_j exp(-2 |v_i - v_j|^2 / scatter))   over j with a higher score

    Args:
        scores (array): [M], at least 0.
        vectors (array): [M, C], mean features of the shots.
        scatter (float): the mean squared distance of the video's frames to their mean; the measure of "alike".
        strength (float): 0..1; how much of its score an exact repeat loses.
    Returns:
        (array, array, array): [M] discounted scores, [M] likeness 0..1 to the most similar better shot, [M] its index
            (-1 for the best shot).
    """
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    like = np.zeros(len(scores))
    twin = np.full(len(scores), -1)
    for rank in range(1, len(order)):
        i, before = order[rank], order[:rank]
        distance = ((vectors[before] - vectors[i]) ** 2).sum(axis=1)
        nearest = int(np.argmin(distance))
        like[i] = math.exp(-2.0 * float(distance[nearest]) / max(scatter, 1e-12))
        twin[i] = before[nearest]
    return scores * (1.0 - strength * like), like, twin
