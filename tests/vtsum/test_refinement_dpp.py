"""Greedy MAP of a DPP against the search that computes every determinant anew, and k-DPP samples against theory."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.summary_refinement import greedy_map, sample_kdpp


def kernel(quality: np.ndarray, features: np.ndarray, scale: float | None = None) -> np.ndarray:
    """L by its definition, from differences; scale None: cosines."""
    u = features / np.linalg.norm(features, axis=1, keepdims=True)
    like = u @ u.T if scale is None else np.exp(-((u[:, None] - u[None]) ** 2).sum(-1) / scale)
    return quality[:, None] * like * quality[None]


def log_det(matrix: np.ndarray, picks: list[int], shift: float = 0.0) -> float:
    if not picks:
        return 0.0
    sign, value = np.linalg.slogdet(matrix[np.ix_(picks, picks)] + shift * np.eye(len(picks)))
    return float(value) if sign > 0 else -math.inf


def naive(matrix: np.ndarray, k: int) -> tuple[list[int], float]:
    """The naive greedy's k picks, and by how much its closest decision was decided."""
    picks: list[int] = []
    margin = math.inf
    for _ in range(k):
        worth = [log_det(matrix, [*picks, i]) if i not in picks else -math.inf for i in range(len(matrix))]
        first, second = np.sort(worth)[::-1][:2]
        margin = min(margin, first - second)
        picks.append(int(np.argmax(worth)))
    return picks, margin


def naive_budget(matrix: np.ndarray, lengths: np.ndarray, budget: float, first: int | None = None) -> list[int]:
    picks = [] if first is None else [first]
    while True:
        left = budget - lengths[picks].sum()
        here = log_det(matrix, picks, 1.0)
        rates = [
            (log_det(matrix, [*picks, i], 1.0) - here) / lengths[i] if i not in picks and lengths[i] <= left else 0.0
            for i in range(len(matrix))
        ]
        if max(rates, default=0.0) <= 1e-9:
            return picks
        picks.append(int(np.argmax(rates)))


@st.composite
def items(draw: st.DrawFn, most: int = 14, columns: int = 20) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, most))
    centres = rng.normal(size=(draw(st.integers(1, 6)), columns))
    features = centres[rng.integers(0, len(centres), count)] + draw(st.floats(0.05, 2.0)) * rng.normal(
        size=(count, columns)
    )
    return rng.uniform(0.1, draw(st.floats(0.2, 5.0)), count), features, rng


@settings(max_examples=150)
@given(items(), st.sampled_from([None, 0.1, 0.7]), st.data())
def test_picks_are_the_naive_greedys(drawn, scale, data):
    quality, features, _ = drawn
    k = data.draw(st.integers(1, len(quality) - 1))
    similarity = "cosine" if scale is None else "gaussian"
    picks = greedy_map(quality, features, k=k, similarity=similarity, scale=scale)
    matrix = kernel(quality, features, scale)
    expected, margin = naive(matrix, k)
    if margin > 1e-7:
        assert picks == expected
    else:
        assert log_det(matrix, picks) == pytest.approx(log_det(matrix, expected), abs=1e-5)


@settings(max_examples=60)
@given(items())
def test_without_k_or_budget_the_determinant_grows_to_its_end(drawn):
    quality, features, _ = drawn
    picks = greedy_map(quality, features)
    matrix = kernel(quality, features)
    grown = [log_det(matrix, picks[:n]) for n in range(len(picks) + 1)]
    assert all(after > before for before, after in itertools.pairwise(grown))
    others = [i for i in range(len(quality)) if i not in picks]
    assert all(log_det(matrix, [*picks, i]) <= grown[-1] + 1e-9 for i in others)


@settings(max_examples=100)
@given(items(most=9), st.floats(0.05, 1.1), st.sampled_from([None, 0.4]))
def test_budget_is_kept_and_the_naive_searchs_picks_are_made(drawn, share, scale):
    quality, features, rng = drawn
    lengths = rng.integers(2, 16, len(quality)) / 4  # quarters: their sums are exact
    budget = math.floor(share * lengths.sum() * 4) / 4
    similarity = "cosine" if scale is None else "gaussian"
    picks = greedy_map(quality, features, budget=budget, lengths=lengths, similarity=similarity, scale=scale)
    assert len(set(picks)) == len(picks)
    assert lengths[picks].sum() <= budget
    matrix = kernel(quality, features, scale)
    worth = {
        subset: log_det(matrix, list(subset), 1.0)
        for n in range(len(quality) + 1)
        for subset in itertools.combinations(range(len(quality)), n)
        if lengths[list(subset)].sum() <= budget
    }
    best = max(worth.values())
    found = log_det(matrix, picks, 1.0)
    assert found >= (1 - 1 / math.e) / 2 * best - 1e-9
    plain = naive_budget(matrix, lengths, budget)
    fits = [i for i in range(len(quality)) if lengths[i] <= budget]
    if fits:
        single = max(fits, key=lambda i: matrix[i, i])
        if worth[(single,)] > log_det(matrix, plain, 1.0) + 1e-9:
            plain = naive_budget(matrix, lengths, budget, single)
    assert found == pytest.approx(log_det(matrix, plain, 1.0), abs=1e-7)


def test_one_great_item_beats_many_small_ones_of_a_better_rate():
    quality = np.array([1.0, 0.9, 40.0])
    features = np.eye(3)
    assert greedy_map(quality, features, budget=10.0, lengths=np.array([0.5, 0.5, 10.0])) == [2]
    assert greedy_map(quality, features, budget=11.0, lengths=np.array([0.5, 0.5, 10.0])) == [0, 1, 2]


def test_small_qualities_are_the_plain_knapsack_and_large_ones_care_for_diversity():
    features = np.array([[1, 0.0], [1, 0.05], [0, 1]])
    quality = np.array([1.0, 0.95, 0.5])
    options = {"budget": 2.0, "lengths": np.ones(3)}
    assert greedy_map(0.01 * quality, features, **options) == [0, 1]
    assert greedy_map(10 * quality, features, **options) == [0, 2]


def test_k_together_with_a_budget():
    quality = np.array([3.0, 2.0, 1.0, 0.0])
    assert greedy_map(quality, np.eye(4), k=2, budget=10.0, lengths=np.ones(4)) == [0, 1]
    assert greedy_map(quality, np.eye(4), budget=10.0, lengths=np.ones(4)) == [0, 1, 2]


def test_copies_add_nothing():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(5, 30)), 4, axis=0)
    for similarity in ("cosine", "gaussian"):
        picks = greedy_map(np.ones(20), 7.0 * features, k=12, similarity=similarity)
        assert len(picks) == 5
        assert {i // 4 for i in picks} == set(range(5))
    assert greedy_map(np.ones(6), np.ones((6, 3)), k=4) == [0]
    assert greedy_map(np.ones(6), np.ones((6, 3)), k=4, similarity="gaussian") == [0]


def test_a_cosine_of_few_columns_ends_and_a_gaussian_goes_on():
    features = np.random.default_rng(0).normal(size=(40, 5))
    assert len(greedy_map(np.ones(40), features, k=20)) == 5
    assert len(greedy_map(np.ones(40), features, k=20, similarity="gaussian")) == 20


def test_borders():
    assert greedy_map(np.zeros(0), np.zeros((0, 4)), k=3) == []
    assert greedy_map(np.zeros(0), np.zeros((0, 4)), budget=1.0, lengths=np.zeros(0)) == []
    assert greedy_map(np.ones(1), np.ones((1, 4)), k=3) == [0]
    assert greedy_map(np.ones(1), np.ones((1, 4)), k=0) == []
    assert greedy_map(np.zeros(3), np.eye(3), k=2) == []
    assert greedy_map(np.ones(3), np.eye(3), budget=0.5, lengths=np.ones(3)) == []
    # Rows of zeros are like each other and like nothing else.
    assert greedy_map(np.ones(4), np.array([[1.0, 0], [0, 0], [1, 0], [0, 0]]), k=4) == [0, 1]


@pytest.mark.parametrize("scale", [1e-200, 1e-5, 1e200])
def test_only_directions_of_features_count(scale):
    rng = np.random.default_rng(3)
    quality, features = rng.random(30), rng.normal(size=(30, 12))
    assert greedy_map(quality, scale * features, k=8) == greedy_map(quality, features, k=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones(3)}, r"features must be \[N, C\], got shape \(3,\)"),
        ({"quality": np.ones(2)}, r"quality must be \[3\], got shape \(2,\)"),
        (
            {"features": np.array([[1, 0], [np.nan, 0], [0, 1]])},
            "features must be finite, got NaN or infinity in row 1",
        ),
        ({"quality": np.array([1, -2.0, 1])}, "quality must be finite and at least 0, got -2.0 at 1"),
        ({"quality": np.array([1, 1, np.nan])}, "quality must be finite and at least 0, got nan at 2"),
        ({"quality": np.array([1, 1, 1e200])}, r"quality must be at most 1e\+100, got 1e\+200"),
        ({"similarity": "dot"}, "similarity must be cosine or gaussian, got 'dot'"),
        ({"scale": 1.0}, "scale must be left out for cosine similarity"),
        ({"scale": 0.0, "similarity": "gaussian"}, "scale must be a finite number above 0, got 0.0"),
        ({"k": -1}, "k must be a whole number of at least 0, got -1"),
        ({"k": 1.5}, "k must be a whole number of at least 0, got 1.5"),
        ({"budget": 1.0}, "budget and lengths must be given together"),
        ({"lengths": np.ones(3)}, "budget and lengths must be given together"),
        ({"budget": 1.0, "lengths": np.ones(2)}, r"lengths must be \[3\], got shape \(2,\)"),
        ({"budget": 1.0, "lengths": np.array([1.0, 0, 1])}, "lengths must be finite and above 0"),
        ({"budget": math.nan, "lengths": np.ones(3)}, "budget must be a finite number of at least 0, got nan"),
    ],
)
def test_messages(change, message):
    arguments = {"quality": np.ones(3), "features": np.eye(3)[:, :2] + 0.1, **change}
    with pytest.raises(ValueError, match=f"greedy_map: {message}"):
        greedy_map(**arguments)


def test_an_hour_of_video_takes_a_moment():
    """540 of 3,600: the benchmark says how long it takes; here, that no pick costs a pass over N x N."""
    rng = np.random.default_rng(0)
    quality, features = rng.uniform(0.5, 1.5, 3600), rng.normal(size=(3600, 128)).cumsum(axis=0)
    began = time.process_time()
    picks = greedy_map(quality, features, k=540, similarity="gaussian")
    assert time.process_time() - began < 5.0
    assert len(set(picks)) == 540


@pytest.mark.parametrize("columns", [3, 9])
def test_samples_have_the_probabilities_of_their_determinants(columns):
    """Chi-squared over all subsets; the kernel of 3 columns goes by the dual, that of 9 by itself."""
    rng = np.random.default_rng(1)
    quality, features, k, draws = rng.uniform(0.5, 2.0, 6), rng.normal(size=(6, columns)), 3, 4000
    matrix = kernel(quality, features)
    subsets = list(itertools.combinations(range(6), k))
    weights = np.array([np.linalg.det(matrix[np.ix_(s, s)]) for s in subsets])
    expected = draws * weights / weights.sum()
    counts = dict.fromkeys(subsets, 0)
    for _ in range(draws):
        counts[tuple(sample_kdpp(quality, features, k, rng))] += 1
    seen = np.array([counts[s] for s in subsets])
    often = expected >= 5
    statistic = float((((seen - expected) ** 2) / expected)[often].sum())
    assert statistic < often.sum() + 4 * math.sqrt(2 * often.sum())
    assert seen[~often].sum() <= expected[~often].sum() + 5 * math.sqrt(expected[~often].sum() + 1)


@settings(max_examples=60)
@given(items(), st.sampled_from([None, 0.3]), st.data())
def test_samples_are_k_different_items_of_a_positive_determinant(drawn, scale, data):
    quality, features, rng = drawn
    k = data.draw(st.integers(0, len(quality)))
    similarity = "cosine" if scale is None else "gaussian"
    picks = sample_kdpp(quality, features, k, rng, similarity=similarity, scale=scale)
    assert picks == sorted(set(picks))
    assert len(picks) == k
    assert log_det(kernel(quality, features, scale), picks) > -math.inf


def test_samples_repeat_with_their_seed_and_take_no_copies():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(5, 30)), 4, axis=0)
    drawn = [sample_kdpp(np.ones(20), features, 5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all({i // 4 for i in picks} == set(range(5)) for picks in drawn)
    with pytest.raises(ValueError, match="sample_kdpp: k must be a whole number from 0 to the kernel's rank 5, got 6"):
        sample_kdpp(np.ones(20), features, 6, rng)
    assert sample_kdpp(np.ones(0), np.ones((0, 3)), 0, rng) == []
    with pytest.raises(ValueError, match="sample_kdpp: features must be finite"):
        sample_kdpp(np.ones(2), np.array([[1.0], [np.inf]]), 1, rng)


def test_samples_of_many_items_do_not_overflow():
    rng = np.random.default_rng(0)
    picks = sample_kdpp(np.full(300, 1e6), rng.normal(size=(300, 400)), 120, rng, similarity="gaussian")
    assert len(set(picks)) == 120
