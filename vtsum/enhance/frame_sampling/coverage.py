"""The frames of a video that stand best for all the others: a k-median along time, exact, by dynamic programming.

    minimise  sum_t  min( d(t, before(t)), d(t, after(t)) )        over `count` chosen frames

before(t) and after(t) are the chosen frames next to t in time: only between those is a frame interpolated, so only to
those is it compared. d is the squared distance of two frames' features, plus a small price on their distance in time.
Of any `longest` neighbouring frames at least one is chosen.

Source: facility location as in Lin and Bilmes, "A class of submodular functions for document summarization", ACL 2011,
section 3, restricted to neighbours in time. In general it is NP-hard and solved greedily; along a line the cost is a
sum over pairs of consecutive choices, and Bellman's recursion finds the minimum.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

TIME_PRICE = 0.1
"""Of one step in time, as a share of the mean squared distance of neighbouring frames. It spreads choices evenly where
the picture stands still."""


def banded_distances(features: np.ndarray, reach: int, time_price: float = TIME_PRICE) -> np.ndarray:
    """d(i, i + s) for s = 0..reach: [T, reach + 1] float64, infinite where i + s is beyond the end.

    Args:
        features: [T, C], finite. reach: frames. time_price: see TIME_PRICE.
    """
    x = np.asarray(features, dtype=np.float64)
    frames = len(x)
    d = np.full((frames, reach + 1), np.inf)
    d[:, 0] = 0.0
    for s in range(1, min(reach, frames - 1) + 1):
        step = x[s:] - x[:-s]
        d[:-s, s] = np.einsum("tc,tc->t", step, step)
    usual = float(d[:-1, 1].mean()) if frames > 1 and reach else 0.0
    # Where nothing changes at all the price alone decides, whatever it is.
    d += max(time_price * usual, 1e-12) * np.arange(reach + 1)
    return d


def between_costs(d: np.ndarray) -> np.ndarray:
    """Of each two consecutive choices i and i + g: the frames between them, each to the nearer one.

    Args:
        d: [T, L + 1] of banded_distances.
    Returns:
        [T, L + 1] float64: entry [i, g]; 0 for g = 1, infinite for g = 0 and where i + g is beyond the end.
    """
    frames, longest = len(d), d.shape[1] - 1
    cost = np.full_like(d, np.inf)
    for g in range(1, min(longest, frames - 1) + 1):
        starts = frames - g
        total = np.zeros(starts)
        for s in range(1, g):
            total += np.minimum(d[:starts, s], d[s : s + starts, g - s])
        cost[:starts, g] = total
    return cost


def least_count(frames: int, longest: int, anchored: bool = False) -> int:
    """The fewest choices that leave no `longest` neighbouring frames without one.

    anchored: the first frame counts as chosen before and comes on top.
    """
    return (frames - 1) // longest if anchored else frames // longest


def cover(
    features: np.ndarray, count: int, longest: int, *, anchored: bool = False, time_price: float = TIME_PRICE
) -> np.ndarray:
    """The `count` frames that stand best for all.

    Time O(T (L^2 + L C + count L)), memory O(T (L + count)).

    Args:
        features: [T, C], finite, T >= 1.
        count: least_count(T, longest, anchored) <= count <= T (T - 1 where anchored).
        longest: of so many neighbouring frames at least one is chosen.
        anchored: the first frame was chosen before; it is not counted and not returned.
        time_price: see TIME_PRICE.
    Returns:
        int64 [count], rising. Among equal sums the one whose last choices lie later.
    Raises:
        ValueError: for a count that cannot be.
    """
    frames = len(features)
    least, most = least_count(frames, longest, anchored), frames - int(anchored)
    if longest < 1 or not least <= count <= most:
        raise ValueError(
            f"cover: count must be {least} to {most} for {frames} frames and longest {longest}, got {count}"
        )
    if count == 0:
        return np.zeros(0, np.int64)
    longest = min(longest, frames)
    d = banded_distances(features, longest, time_price)
    between = between_costs(d)
    rows = np.arange(frames)
    # arriving[j, c]: cost of the frames between j - (L - c) and j.
    arriving = np.full((frames, longest), np.inf)
    for g in range(1, min(longest, frames - 1) + 1):
        arriving[g:, longest - g] = between[: frames - g, g]
    # best[L + j]: least cost of all frames up to j, j being the last of the choices so far; infinite padding in front.
    best = np.full(longest + frames, np.inf)
    if anchored:
        best[longest] = 0.0
    else:
        for j in range(min(longest, frames)):
            best[longest + j] = sum(d[t, j - t] for t in range(j))
    came_from: list[np.ndarray] = []
    for _ in range(count if anchored else count - 1):
        offers = arriving + sliding_window_view(best[:-1], longest)
        back = np.argmin(offers, axis=1)
        best[longest:] = offers[rows, back]
        came_from.append((longest - back).astype(np.int32))
    for i in range(max(frames - longest, 0), frames):
        best[longest + i] += d[i, : frames - i].sum()
    best[longest : max(longest, frames)] = np.inf  # too far from the end
    picks = [int(np.argmin(best[longest:]))]
    for steps in reversed(came_from):
        picks.append(picks[-1] - int(steps[picks[-1]]))
    picks.reverse()
    return np.array(picks[int(anchored) :], dtype=np.int64)
