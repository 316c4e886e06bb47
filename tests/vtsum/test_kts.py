"""Kernel temporal segmentation against brute force, and at its borders."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.event_segmentation import Segment, kts
from vtsum.enhance.event_segmentation.dynamic_programming import LeastCostPaths
from vtsum.enhance.event_segmentation.kernel import _band_costs


def objective(x: np.ndarray, edges: tuple[int, ...], penalty: float, prices: np.ndarray | None = None) -> float:
    scatter = sum(float(((x[a:b] - x[a:b].mean(0)) ** 2).sum()) for a, b in itertools.pairwise(edges))
    if prices is not None:
        scatter += float(prices[list(edges[1:-1])].sum())
    points = len(edges) - 2
    return scatter + (penalty * points / 2 * (math.log(len(x) / points) + 1) if points else 0.0)


def segmentations(frames: int, min_length: int, max_length: int, limit: int) -> Iterator[tuple[int, ...]]:
    """The edges of every segmentation with the lengths and the number allowed."""
    for count in range(min(limit, frames)):
        for inner in itertools.combinations(range(1, frames), count):
            edges = (0, *inner, frames)
            if all(min_length <= b - a <= max_length for a, b in itertools.pairwise(edges)):
                yield edges


def brute_force(
    x: np.ndarray, min_length: int, max_length: int, max_segments: int, penalty: float, prices: np.ndarray | None = None
) -> float:
    every = segmentations(len(x), min_length, max_length, max_segments)
    return min((objective(x, edges, penalty, prices) for edges in every), default=math.inf)


@settings(max_examples=240, deadline=None)
@given(
    frames=st.integers(2, 10),
    seed=st.integers(0, 10_000),
    min_length=st.integers(1, 3),
    extra=st.integers(0, 7),
    penalty=st.sampled_from([0.0, 0.05, 0.3, 1.0, 4.0]),
    limit=st.integers(2, 10),
    priced=st.booleans(),
)
def test_equals_brute_force(frames, seed, min_length, extra, penalty, limit, priced):
    """Also with evidence for and against each change point, and a bound on their number that the penalty alone would
    break."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(frames, 3)) + np.repeat(rng.normal(size=(4, 3)) * 2 * (not priced), 3, axis=0)[:frames]
    prices = rng.normal(size=frames) * 2 if priced else None
    max_length = 2 * min_length - 1 + extra
    if frames < min_length or math.ceil(frames / max_length) > limit:
        return
    found = kts(x, max_segments=limit, min_length=min_length, max_length=max_length, penalty=penalty, prices=prices)
    edges = (0, *(s.end for s in found))
    assert edges[-1] == frames
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert len(found) <= limit
    assert all(min_length <= len(s) <= max_length for s in found)
    assert objective(x, edges, penalty, prices) == pytest.approx(
        brute_force(x, min_length, max_length, limit, penalty, prices), abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.1, 0.4, 1.0, 3.0]), min_length=st.integers(1, 4))
def test_constant_fees_find_what_counting_finds(seed, penalty, min_length):
    """The search over constant fees against the recursion that counts change points: 60 frames, many corners."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(12, 4)), 5, axis=0) * rng.random() + rng.normal(size=(60, 4)) * rng.random()
    found = kts(x, min_length=min_length, max_length=25, penalty=penalty)
    paths = LeastCostPaths(_band_costs(x, min_length, 25), min_length)

    def fee(points: float) -> float:
        return penalty * points / 2 * (math.log(60 / points) + 1) if points else 0.0

    counted = paths.best_of_few(fee, paths.most)
    edges = (0, *(s.end for s in found))
    assert objective(x, edges, penalty) == pytest.approx(objective(x, counted.edges, penalty), abs=1e-9)


def test_planted_boundaries_are_found_exactly():
    rng = np.random.default_rng(0)
    lengths = [7, 31, 4, 18, 55, 9]
    centres = rng.normal(size=(len(lengths), 64))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    x = np.repeat(centres, lengths, axis=0) + 0.02 * rng.normal(size=(sum(lengths), 64))
    assert [s.end for s in kts(x)] == list(np.cumsum(lengths))
    assert [s.end for s in kts(x.astype(np.float32), max_length=60)] == list(np.cumsum(lengths))


def test_band_longer_than_one_block():
    """Boundaries on both sides of the blocks in which the costs are computed."""
    rng = np.random.default_rng(1)
    lengths = [250, 13, 240, 30, 200]
    x = np.repeat(rng.normal(size=(5, 8)), lengths, axis=0) + 0.1 * rng.normal(size=(sum(lengths), 8))
    assert [s.end for s in kts(x, max_length=300, penalty=2.0)] == list(np.cumsum(lengths))


def test_borders():
    assert kts(np.zeros((0, 4))) == []
    assert kts(np.ones((1, 4))) == [Segment(0, 1)]
    assert kts(np.ones((3, 4)), min_length=5) == [Segment(0, 3)]
    assert kts(np.full((50, 4), 0.3)) == [Segment(0, 50)]
    assert all(len(s) <= 20 for s in kts(np.full((50, 4), 0.3), max_length=20))
    assert kts(np.random.default_rng(0).normal(size=(40, 4)), max_segments=1) == [Segment(0, 40)]


def test_far_from_the_origin():
    """A common offset of 1e4 takes no digits away."""
    rng = np.random.default_rng(2)
    x = np.repeat(rng.normal(size=(4, 16)), 25, axis=0) + 0.05 * rng.normal(size=(100, 16))
    assert kts(x) == kts(x + 1e4)


def test_noise_is_one_segment():
    """Frames that scatter by less than the penalty around one mean are one event."""
    x = 0.5 * np.random.default_rng(3).normal(size=(300, 128)) / math.sqrt(128)
    assert kts(x) == [Segment(0, 300)]
    assert len(kts(x, penalty=0.01)) == 300


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.ones(3), {}, r"kts: features must be \[T, C\], got shape \(3,\)"),
        (np.array([[1.0], [np.nan]]), {}, "kts: features must be finite, got NaN or infinity in frame 1"),
        (np.ones((5, 2)), {"min_length": 0}, "kts: min_length must be at least 1, got 0"),
        (np.ones((5, 2)), {"min_length": 3, "max_length": 4}, "max_length must be at least 2 \\* min_length - 1 = 5"),
        (np.ones((5, 2)), {"max_segments": 2, "max_length": 2}, "max_segments must be at least T / max_length = 3"),
        (np.ones((5, 2)), {"penalty": -1.0}, "penalty must be a finite number of at least 0, got -1.0"),
        (np.ones((5, 2)), {"max_segments": 0}, "max_segments must be at least T / max_length = 1, got 0"),
        (np.ones((5, 2)), {"prices": np.ones(4)}, r"prices must be \[T\] = \[5\], got \[4\]"),
        (np.ones((2, 2)), {"prices": np.array([0.0, np.nan])}, "prices must be finite, got NaN or infinity"),
    ],
)
def test_messages(features, options, message):
    with pytest.raises(ValueError, match=message):
        kts(features, **options)


def test_ten_hours_at_one_frame_a_second_are_quick_and_small():
    """36,000 frames, a minute at most a segment; 3,600 in a tenth of the time."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=(3600, 64)), 10, axis=0) + 0.3 * rng.normal(size=(36000, 64))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    tracemalloc.start()
    began = time.process_time()
    found = kts(x[:3600], max_length=60)
    took = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [s.end for s in found] == list(range(10, 3601, 10))
    assert took < 2, f"{took:.2f} s of CPU for 3,600 frames"  # under 0.1 s on a quiet machine
    assert peak < 30e6, f"{peak / 1e6:.0f} MB; a full Gram matrix alone would take 104 MB"
    began = time.process_time()
    found = kts(x, max_length=60)
    took = time.process_time() - began
    assert [s.end for s in found] == list(range(10, 36001, 10))
    assert took < 30, f"{took:.1f} s of CPU for 36,000 frames"  # about 1 s on a quiet machine
