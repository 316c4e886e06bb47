"""Selection of different shots: against brute force, beside the knapsack, and what is left of a shot's worth."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vtsum.test_refinement_dpp import kernel as definition
from tests.vtsum.test_refinement_dpp import log_det as determinant
from vtsum.enhance.summary_refinement import likeness, novelty, plan_clips, select_diverse


def kernel(worth: np.ndarray, vectors: np.ndarray, strength: float, scale: float) -> np.ndarray:
    return definition(np.sqrt(strength / worth.mean() * worth), vectors, scale)


log_det = partial(determinant, shift=1.0)


shots = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 9)).map(
    lambda drawn: (
        np.random.default_rng(drawn[0]).uniform(0.1, 1.0, drawn[1]),
        np.random.default_rng(drawn[0]).integers(1, 9, drawn[1]),
        np.random.default_rng(drawn[0]).normal(size=(drawn[1], 3)),
    )
)


@settings(max_examples=100)
@given(shots, st.integers(1, 40), st.sampled_from([0.01, 1.0, 10.0, 100.0]))
def test_near_the_best_of_all_subsets_and_within_the_budget(drawn, budget, strength):
    worth, lengths, vectors = drawn
    chosen = select_diverse(worth, lengths, budget, vectors, strength=strength, scale=0.5)
    assert chosen == sorted(set(chosen))
    assert lengths[chosen].sum() <= budget
    able = lengths <= budget
    if not able.any():
        assert chosen == []
        return
    matrix = kernel(worth * (1.0 if able.all() else worth.mean() / worth[able].mean()), vectors, strength, 0.5)
    if not able.all():
        matrix = np.zeros((len(worth),) * 2)
        matrix[np.ix_(able, able)] = kernel(worth[able], vectors[able], strength, 0.5)
    best = max(
        log_det(matrix, list(subset))
        for n in range(len(worth) + 1)
        for subset in itertools.combinations(range(len(worth)), n)
        if lengths[list(subset)].sum() <= budget
    )
    assert log_det(matrix, chosen) >= (1 - 1 / math.e) / 2 * best - 1e-9


def test_a_repeat_gives_way_to_something_else():
    vectors = np.array([[1.0, 0], [1.0, 0.02], [0, 1.0]])
    worth, lengths = np.array([1.0, 0.95, 0.6]), np.array([10, 10, 10])
    assert select_diverse(worth, lengths, 20, vectors) == [0, 2]
    assert select_diverse(worth, lengths, 20, vectors, strength=1e-3) == [0, 1]
    assert select_diverse(worth, lengths, 30, vectors) == [0, 1, 2]
    assert select_diverse(np.array([1.0, 0, -1]), lengths, 30, vectors) == [0]
    assert select_diverse(np.ones(3), np.array([0, 40, 5]), 30, vectors) == [2]
    assert select_diverse(np.zeros(0), np.zeros(0), 30, np.zeros((0, 2))) == []


def test_shots_that_all_look_alike_are_chosen_by_worth():
    worth = np.array([0.2, 0.9, 0.5, 0.7])
    assert select_diverse(worth, np.full(4, 5), 10, np.ones((4, 3))) == [1, 3]


@given(shots, st.data())
def test_novelty_is_what_the_determinant_gains(drawn, data):
    worth, _, vectors = drawn
    chosen = data.draw(st.lists(st.integers(0, len(worth) - 1), unique=True, max_size=5))
    found = novelty(worth, vectors, chosen, strength=3.0, scale=0.4)
    matrix = kernel(worth, vectors, 3.0, 0.4)
    for i in range(len(worth)):
        beside = [j for j in chosen if worth[j] > worth[i]] if i in chosen else chosen
        gain = log_det(matrix, [*beside, i]) - log_det(matrix, beside)
        assert found[i] == pytest.approx(gain / math.log1p(matrix[i, i]), abs=1e-7)


def test_likeness_is_one_for_copies_of_any_length():
    like = likeness(np.array([[2.0, 0], [0, 3.0], [0, 0]]), np.array([[5.0, 0]]), 0.5)
    np.testing.assert_allclose(like[:, 0], [1.0, math.exp(-4), math.exp(-4)], atol=1e-12)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.floats(0.02, 1.0), st.integers(0, 999))
def test_plans_of_different_shots_keep_the_budget_and_use_it(lengths, share, seed):
    rng = np.random.default_rng(seed)
    ends = 25 * np.cumsum(lengths)
    spans = [(int(e - 25 * n), int(e)) for n, e in zip(lengths, ends, strict=True)]
    scores, vectors = rng.random(len(lengths)), rng.normal(size=(len(lengths), 4))
    budget = max(1, round(share * ends[-1]))
    clips = plan_clips(
        spans, scores, np.repeat(scores, lengths), np.arange(ends[-1] // 25 + 1) * 25, budget, 25, vectors
    )
    used = sum(map(len, clips))
    assert all(spans[c.shot][0] <= c.start < c.end <= spans[c.shot][1] for c in clips)
    assert used <= budget
    assert used >= 0.8 * budget or budget - used < 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.0}, "strength must be a finite number above 0, got 0.0"),
        ({"worth": np.ones(2)}, r"worth and lengths must be \[M\] and finite, got shapes \(2,\) and \(3,\)"),
        ({"worth": np.array([1, np.nan, 1])}, r"worth and lengths must be \[M\] and finite"),
    ],
)
def test_messages(change, message):
    arguments = {"worth": np.ones(3), "lengths": np.full(3, 2), "budget": 4, "vectors": np.eye(3), **change}
    with pytest.raises(ValueError, match=f"select_diverse: {message}"):
        select_diverse(**arguments)
