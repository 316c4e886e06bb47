"""Budgets, the exact knapsack and the plan of clips."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.summary_refinement import best_window, discount_repeats, parse_budget, plan_clips, select_shots
from vtsum.errors import VTSumError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15%", 30.0),
        ("100%", 200.0),
        (" 7.5 % ", 15.0),
        ("30s", 30.0),
        ("30 seconds", 30.0),
        (".5s", 0.5),
        ("2min", 120.0),
        ("1.5m", 90.0),
        ("1:30", 90.0),
        ("0:01:30.5", 90.5),
        ("12frames", 6.0),
        ("1frame", 0.5),
        ("200.3s", 200.0),
    ],
)
def test_budget_in_seconds(text, seconds):
    assert parse_budget(text).seconds(200.0, fps=2.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        *(
            (t, "a share")
            for t in ("", "abc", "-5%", "-30s", "15", "nan%", "infs", "1e3s", "12.5frames", "1:75", "3 apples")
        ),
        *((t, "above zero") for t in ("0%", "0s", "0frames", "0:00")),
        ("101%", "at most 100%"),
    ],
)
def test_nonsense_budgets(text, rule):
    with pytest.raises(VTSumError, match=rule) as error:
        parse_budget(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_budget_longer_than_the_video():
    with pytest.raises(VTSumError, match=r"at most the length of the video, 20\.0 s, got '1:00' \(60 s\)"):
        parse_budget("1:00").seconds(20.0, fps=1.0)


@settings(max_examples=200, deadline=None)
@given(
    items=st.lists(st.tuples(st.floats(-1, 5, allow_nan=False), st.integers(0, 12)), max_size=8),
    budget=st.integers(0, 40),
)
def test_knapsack_equals_brute_force(items, budget):
    scores = [score for score, _ in items]
    lengths = [length for _, length in items]
    chosen = select_shots(scores, lengths, budget)
    assert chosen == sorted(set(chosen))
    assert sum(lengths[i] for i in chosen) <= budget
    best = max(
        sum(scores[i] for i in subset)
        for count in range(len(items) + 1)
        for subset in itertools.combinations(range(len(items)), count)
        if sum(lengths[i] for i in subset) <= budget
    )
    assert sum(scores[i] for i in chosen) == pytest.approx(best, abs=1e-12)
    assert all(scores[i] > 0 for i in chosen)


def test_knapsack_does_not_round_its_values():
    """Integer values (the field's int(1000 x)) tie here and take the first shot."""
    assert select_shots([0.50001, 0.50002], [5, 5], 5) == [1]


def test_knapsack_of_two_hours():
    rng = np.random.default_rng(0)
    lengths = rng.integers(60, 400, 1000)
    tracemalloc.start()
    chosen = select_shots(rng.random(1000) * lengths, lengths, 32_400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 32_380 <= lengths[chosen].sum() <= 32_400
    assert peak < 16e6


@pytest.mark.parametrize(
    ("scores", "lengths", "message"),
    [
        ([1.0], [1, 2], "must be \\[M\\]"),
        ([float("nan")], [1], "must be finite"),
        ([1.0], [1.5], "whole numbers"),
        ([1.0], [-1], "whole numbers"),
    ],
)
def test_knapsack_messages(scores, lengths, message):
    with pytest.raises(ValueError, match=message):
        select_shots(scores, lengths, 3)


def test_window_sits_on_the_peak():
    saliency = np.array([0.1, 0.1, 0.9, 0.8, 0.1, 0.1])
    edges = np.arange(7) * 10
    assert best_window(saliency, edges, 0, 60, 20) == (20, 40)
    assert best_window(saliency, edges, 0, 60, 100) == (0, 60)
    assert best_window(saliency, edges, 0, 60, 6) == (22, 28)  # centred in the peak's turn
    assert best_window(np.ones(6), edges, 30, 60, 10) == (30, 40)
    assert best_window(saliency, edges, 35, 60, 10)[0] == 35


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 9999), length=st.integers(1, 40))
def test_window_equals_brute_force(seed, length):
    rng = np.random.default_rng(seed)
    edges = np.concatenate([[0], np.cumsum(rng.integers(1, 12, 8))])
    saliency = rng.random(8)
    ticks = np.repeat(saliency, np.diff(edges))
    start, end = sorted(int(v) for v in rng.choice(edges[-1] + 1, 2, replace=False))
    length = min(length, end - start)
    a, b = best_window(saliency, edges, start, end, length)
    assert start <= a < b <= end
    assert b - a == length
    best = max(ticks[s : s + length].sum() for s in range(start, end - length + 1))
    assert ticks[a:b].sum() == pytest.approx(best)


def test_repeats_lose_their_score():
    vectors = np.array([[1.0, 0], [1.0, 0.01], [0, 1.0], [-1.0, 0]])
    scores, like, twin = discount_repeats(np.array([0.9, 0.8, 0.5, 0.4]), vectors, scatter=0.5)
    assert scores[0] == 0.9
    assert like[0] == 0
    assert twin[0] == -1
    assert like[1] > 0.99
    assert twin[1] == 0
    assert scores[1] < 0.2
    assert like[2] < 0.01
    assert scores[2] == pytest.approx(0.5, rel=0.01)


def plan(shot_seconds, scores, budget_seconds, fps=25):
    """A plan for shots of whole seconds, with one sampled frame a second of the shot's saliency."""
    ends = np.cumsum(shot_seconds)
    shots = [(int(e - s) * fps, int(e) * fps) for s, e in zip(shot_seconds, ends, strict=True)]
    saliency = np.repeat(scores, shot_seconds)
    edges = np.arange(int(ends[-1]) + 1) * fps
    clips = plan_clips(shots, np.array(scores), saliency, edges, round(budget_seconds * fps), fps)
    for clip in clips:
        assert shots[clip.shot][0] <= clip.start < clip.end <= shots[clip.shot][1]
    assert [c.shot for c in clips] == sorted({c.shot for c in clips})
    return clips


def total(clips, fps=25):
    return sum(len(c) for c in clips) / fps


def test_several_shots_get_in_and_the_budget_is_used():
    clips = plan([40, 30, 50, 20, 60], [0.9, 0.8, 0.7, 0.6, 0.1], 30)
    assert total(clips) == 30
    assert {c.shot for c in clips} >= {0, 1, 2, 3}


def test_one_endless_shot_is_trimmed_around_its_peak():
    saliency = np.full(600, 0.2)
    saliency[300:310] = 0.9
    clips = plan_clips([(0, 15000)], np.array([0.2]), saliency, np.arange(601) * 25, 750, 25)
    assert len(clips) == 1
    assert len(clips[0]) == 750
    assert clips[0].start <= 300 * 25
    assert clips[0].end >= 310 * 25
    assert clips[0].part == "trimmed"


def test_no_shot_fits():
    clips = plan([5, 8, 6], [0.2, 0.9, 0.3], 0.5)
    assert [c.shot for c in clips] == [1]
    assert total(clips) == pytest.approx(0.5, abs=0.05)


def test_everything():
    clips = plan([5, 80, 6], [0.2, 0.9, 0.3], 91)
    assert total(clips) == 91
    assert all(c.part == "whole" for c in clips)


def test_single_frame():
    assert [len(c) for c in plan_clips([(0, 1)], np.array([0.0]), np.array([0.5]), np.array([0, 1]), 1, 25)] == [1]


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), share=st.floats(0.02, 1.0), seed=st.integers(0, 999)
)
def test_never_above_the_budget_and_most_of_it_used(lengths, share, seed):
    scores = np.random.default_rng(seed).random(len(lengths))
    budget = max(1 / 25, round(share * sum(lengths) * 25) / 25)
    used = total(plan(lengths, scores, budget))
    assert used <= budget + 1e-9
    assert used >= 0.8 * budget or budget - used < 1.0


def test_a_budget_for_one_clip_is_not_wasted_on_a_shot_too_short():
    shots, edges = [(0, 25), (25, 75), (75, 100)], np.arange(5) * 25
    saliency = np.array([0.9, 0.4, 0.5, 0.1])
    scores = np.array([1.0, 0.5, 0.2])
    assert [(c.shot, len(c)) for c in plan_clips(shots, scores, saliency, edges, 38, 25)] == [(1, 38)]
    assert [(c.shot, len(c)) for c in plan_clips(shots, scores, saliency, edges, 26, 25)] == [(0, 25)]
    # Where no shot is long enough, the best one that there is comes out.
    assert plan_clips([(0, 20), (20, 40)], scores[:2], saliency[:2], edges[:3], 38, 25)[0].shot == 0
