"""Matching boundaries one to one, and ranking frames, against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.evaluation.boundaries import (
    BoundaryScore,
    annotated_boundaries,
    average_precision,
    boundary_record,
    match_boundaries,
    total,
)

times = st.lists(st.integers(0, 12).map(lambda n: n / 4), max_size=6)


def most_pairs(found: list[float], true: list[float], tolerance: float) -> int:
    """The largest one-to-one matching, over every order of the found ones."""
    best = 0
    for order in itertools.permutations(found + [math.inf] * len(true), len(true)):
        best = max(best, sum(abs(a - b) <= tolerance for a, b in zip(order, true, strict=True)))
        if best == min(len(found), len(true)):
            break
    return best


@given(
    found=times.filter(lambda t: len(t) <= 4),
    true=times.filter(lambda t: len(t) <= 4),
    tolerance=st.sampled_from([0.0, 0.25, 0.5]),
)
def test_no_matching_is_larger(found, true, tolerance):
    score, which = match_boundaries(found, true, tolerance)
    assert score.matched == len(which) == most_pairs(found, true, tolerance)
    assert (score.found, score.true) == (len(found), len(true))


def test_scores_of_counts():
    score, which = match_boundaries([1.0, 1.2, 7.5, 30.0], [1.4, 7.0, 12.0])
    assert which == [0, 1]
    assert score.precision == 0.5
    assert score.recall == pytest.approx(2 / 3)
    assert score.f == pytest.approx(4 / 7)
    assert total([score, score]) == BoundaryScore(8, 6, 4)
    nothing, _ = match_boundaries([], [])
    assert (nothing.precision, nothing.recall, nothing.f) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="tolerance must be at least 0, got -1"):
        match_boundaries([1.0], [1.0], -1)
    with pytest.raises(ValueError, match="times must be finite"):
        match_boundaries([math.nan], [1.0])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_average_precision_is_its_definition(rows):
    scores, true = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if not true.any():
        assert math.isnan(average_precision(scores, true))
        return
    expected, before = 0.0, 0.0
    for level in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= level
        recall = true[taken].sum() / true.sum()
        expected += (recall - before) * true[taken].mean()
        before = recall
    assert average_precision(scores, true) == pytest.approx(expected)


def test_annotated_boundaries_need_their_share():
    labels = np.zeros((10, 8))
    labels[:2, 3:6] = 1  # two of ten begin at 3 and end before 6
    labels[9, 1:] = 1
    assert np.flatnonzero(annotated_boundaries(labels)).tolist() == [3, 6]
    assert np.flatnonzero(annotated_boundaries(labels, share=0.1)).tolist() == [1, 3, 6]
    logits = np.array([0, 0, 0, 5.0, 0, 0, 4.0, 0])
    assert boundary_record(logits, labels) == {"boundary_average_precision": 1.0, "boundary_chance": 0.25}
    assert boundary_record(logits, np.zeros((10, 8)))["boundary_average_precision"] is None
    with pytest.raises(ValueError, match=r"scores and true must be \[T\]"):
        average_precision(logits, np.ones(3, bool))
