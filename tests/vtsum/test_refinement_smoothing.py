"""Smoothing: total variation against its optimality conditions, the Gaussian against its definition."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.enhance.summary_refinement import smooth_scores

scores = st.lists(st.floats(-3, 3, allow_nan=False), min_size=1, max_size=40).map(np.array)


@given(scores, st.floats(0, 3))
def test_total_variation_is_optimal(y, strength):
    """The dual certificate: u with x = y - D'u, |u| <= strength, and u = strength * sign(step) at every step of x."""
    x = smooth_scores(y, "tv", strength)
    u = np.cumsum(x - y)
    assert u[-1] == pytest.approx(0.0, abs=1e-8)
    assert np.abs(u[:-1]).max(initial=0.0) <= strength + 1e-8
    steps = np.diff(x)
    moving = np.abs(steps) > 1e-7
    np.testing.assert_allclose(u[:-1][moving], strength * np.sign(steps[moving]), atol=1e-7)


@given(scores, st.floats(0.1, 30))
def test_gaussian_is_its_definition(y, sigma):
    distance = np.subtract.outer(np.arange(len(y)), np.arange(len(y)))
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    np.testing.assert_allclose(smooth_scores(y, "gaussian", sigma), weights @ y / weights.sum(axis=1), atol=1e-4)


@given(scores, st.sampled_from(["tv", "gaussian"]), st.floats(0, 50))
def test_scores_stay_in_their_range(y, method, strength):
    x = smooth_scores(y, method, strength)
    assert x.shape == y.shape
    assert y.min() <= x.min() <= x.max() <= y.max()
    if method == "tv":
        assert np.abs(np.diff(x)).sum() <= np.abs(np.diff(y)).sum() + 1e-9
        assert x.mean() == pytest.approx(y.mean(), abs=1e-9)


def test_total_variation_keeps_a_step_and_a_gaussian_rounds_it():
    rng = np.random.default_rng(0)
    step = np.repeat([0.2, 0.8], 50)
    noisy = step + 0.05 * rng.normal(size=100)
    flat, round_ = smooth_scores(noisy, "tv", 0.3), smooth_scores(noisy, "gaussian", 4.0)
    assert np.abs(flat - step).max() < 0.1
    assert flat[50] - flat[49] > 0.45 > 0.2 > round_[50] - round_[49]
    assert np.std(flat[:50]) < 0.03 < np.std(noisy[:50])


def test_a_peak_loses_twice_the_strength_over_its_length():
    y = np.zeros(30)
    y[10:14] = 1.0
    x = smooth_scores(y, "tv", 0.5)
    assert x[12] == pytest.approx(1 - 2 * 0.5 / 4)
    # All of it goes where the strength is large.
    assert np.ptp(smooth_scores(y, "tv", 100.0)) < 1e-12


@pytest.mark.parametrize("method", ["tv", "gaussian"])
def test_borders(method):
    assert smooth_scores(np.zeros(0), method).shape == (0,)
    assert smooth_scores(np.array([0.7]), method).tolist() == [0.7]
    assert smooth_scores(np.full(9, 0.3), method).tolist() == [0.3] * 9
    y = np.array([0.1, 0.9])
    assert smooth_scores(y, method, 0.0).tolist() == [0.1, 0.9]
    assert np.ptp(smooth_scores(y, method)) < 0.8
    assert y.tolist() == [0.1, 0.9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 2)),), r"scores must be \[T\], got shape \(2, 2\)"),
        ((np.array([0.1, np.nan]),), "scores must be finite, got nan at frame 1"),
        ((np.zeros(3), "median"), "method must be tv or gaussian, got 'median'"),
        ((np.zeros(3), "tv", -1.0), "strength must be a finite number of at least 0, got -1.0"),
        ((np.zeros(3), "tv", math.inf), "strength must be a finite number of at least 0, got inf"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(ValueError, match=f"smooth_scores: {message}"):
        smooth_scores(*arguments)


def test_ten_hours_of_frames_take_a_moment():
    y = np.random.default_rng(0).normal(size=36_000)
    began = time.process_time()
    smooth_scores(y, "tv", 3.0)
    assert time.process_time() - began < 2.0
