"""Cuts of a summary: on boundaries, in pauses, without tiny gaps; and never beyond budget or shot."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.summary_refinement import Clip, align_to_shots, close_gaps, merge_short_shots, snap_to_pauses

RATE = 25


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[Clip], int]:
    """Shots, clips inside some of them, and a budget that they keep."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    edges = np.concatenate([[0], np.cumsum(rng.integers(20, 200, draw(st.integers(1, 10))))])
    shots = [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    clips = []
    for i, (start, end) in enumerate(shots):
        if rng.random() < 0.7:
            a, b = sorted(rng.choice(np.arange(start, end + 1), 2, replace=False).tolist())
            whole = (a, b) == (start, end)
            clips.append(Clip(i, a, b, "whole" if whole else "trimmed"))
    return shots, clips, sum(map(len, clips)) + draw(st.integers(0, 30))


def check(shots: list[tuple[int, int]], before: list[Clip], after: list[Clip], budget: int) -> None:
    assert [c.shot for c in after] == [c.shot for c in before]
    assert all(shots[c.shot][0] <= c.start < c.end <= shots[c.shot][1] for c in after)
    assert sum(map(len, after)) <= budget
    assert all((c.part == "whole") == ((c.start, c.end) == shots[c.shot]) for c in after)


@given(plans(), st.integers(0, 40))
def test_aligned_clips_keep_their_lengths(plan, slack):
    shots, clips, budget = plan
    aligned = align_to_shots(clips, shots, slack)
    check(shots, clips, aligned, budget)
    for old, new in zip(clips, aligned, strict=True):
        start, end = shots[new.shot]
        assert len(new) == len(old)
        assert abs(new.start - old.start) <= slack
        assert (
            start in (old.start, new.start)
            or end in (old.end, new.end)
            or min(new.start - start, end - new.end) > slack
        )


@given(plans(), st.integers(0, 60))
def test_gaps_are_closed_within_the_budget(plan, gap):
    shots, clips, budget = plan
    closed = close_gaps(clips, shots, budget, gap, shortest=10)
    check(shots, clips, closed, budget)
    for n, (a, b) in enumerate(itertools.pairwise(clips)):
        if b.shot != a.shot + 1 or b.start - a.end > gap:
            assert closed[n + 1].start - closed[n].end >= min(b.start - a.end, 1)
        elif sum(map(len, clips)) + sum(y.start - x.end for x, y in itertools.pairwise(clips)) <= budget:
            assert closed[n].end == closed[n + 1].start


def test_a_gap_is_paid_from_the_far_end_of_the_longer_clip():
    shots = [(0, 100), (100, 200), (200, 400)]
    clips = [Clip(0, 20, 95, "trimmed"), Clip(1, 105, 135, "trimmed"), Clip(2, 210, 220, "trimmed")]
    closed = close_gaps(clips, shots, 115, 12, shortest=20)
    assert [(c.start, c.end) for c in closed] == [(30, 100), (100, 135), (210, 220)]
    # The middle one of three clips that become one does not give way.
    chain = [Clip(0, 50, 95, "trimmed"), Clip(1, 105, 195, "trimmed"), Clip(2, 205, 260, "trimmed")]
    assert [(c.start, c.end) for c in close_gaps(chain, shots, 190, 12, 20)] == [(60, 100), (100, 200), (200, 250)]
    # Nothing to pay with: both clips are as short as they may be.
    assert close_gaps(clips[:2], shots, 105, 12, shortest=75) == clips[:2]
    # A wide gap stays.
    assert close_gaps(clips, shots, 400, 5, shortest=20) == clips


pauses = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 3)), max_size=12).map(lambda p: [(a, a + b) for a, b in p])


@settings(max_examples=150)
@given(plans(), pauses)
def test_cuts_in_speech_move_to_pauses(plan, quiet):
    shots, clips, budget = plan
    moved = snap_to_pauses(clips, shots, quiet, budget, RATE, shortest=10)
    check(shots, clips, moved, budget)
    assert sum(map(len, moved)) >= 0.9 * sum(map(len, clips)) - 1e-9
    for old, new in zip(clips, moved, strict=True):
        for a, b in ((old.start, new.start), (old.end, new.end)):
            assert abs(a - b) <= RATE
            assert a == b or any(start * RATE - 1e-6 <= b <= end * RATE + 1e-6 for start, end in quiet)
            # A cut that was in a pause stays where it was.
            assert a == b or not any(start * RATE <= a <= end * RATE for start, end in quiet)


def test_the_nearest_pause_that_can_be_paid_is_taken():
    shots, clip = [(0, 500)], Clip(0, 100, 200, "trimmed")
    # Nothing is left of the budget, so the start can move back to the nearer pause only after the end has moved back,
    # though a pause after it is nearer; and each keeps a margin of a tenth of a second.
    moved = snap_to_pauses([clip], shots, [(3.6, 3.8), (7.4, 7.76), (8.2, 8.6)], 100, RATE, 10)[0]
    assert (moved.start, moved.end) == (92, 191)
    moved = snap_to_pauses([clip], shots, [(3.6, 3.8), (7.4, 7.76), (8.2, 8.6)], 116, RATE, 10)[0]
    assert (moved.start, moved.end) == (92, 208)
    starts = [(3.6, 3.8)]
    assert snap_to_pauses([clip], shots, starts, 100, RATE, 10) == [clip]  # no budget to begin earlier
    assert snap_to_pauses([clip], shots, starts, 108, RATE, 10)[0].start == 92
    assert snap_to_pauses([clip], shots, [(4.3, 5.0)], 100, RATE, 10)[0].start == 110
    assert snap_to_pauses([clip], shots, [(4.3, 5.0)], 100, RATE, 95) == [clip]  # it would be too short
    assert snap_to_pauses([clip], shots, [], 500, RATE, 10) == [clip]
    assert snap_to_pauses([clip], shots, [(0.0, 20.0)], 500, RATE, 10) == [clip]  # nobody speaks at all
    assert snap_to_pauses([clip], [(95, 500)], starts, 500, RATE, 10) == [clip]  # the pause is in another shot
    assert snap_to_pauses([], [], starts, 5, RATE, 10) == []


@pytest.mark.parametrize("pause", [(2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_broken_pauses(pause):
    with pytest.raises(ValueError, match="snap_to_pauses: pauses must be finite and end after they start, got"):
        snap_to_pauses([Clip(0, 0, 10, "whole")], [(0, 10)], [pause], 10, RATE, 1)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(0, 20), st.integers(0, 999))
def test_merged_shots_are_long_enough(lengths, shortest, seed):
    ends = np.cumsum(lengths).tolist()
    shots = list(zip([0, *ends[:-1]], ends, strict=True))
    runs = merge_short_shots(shots, np.random.default_rng(seed).normal(size=(len(shots), 3)), shortest)
    assert [first for first, _ in runs] == [0, *(last for _, last in runs[:-1])]
    assert runs[-1][1] == len(shots)
    found = [shots[last - 1][1] - shots[first][0] for first, last in runs]
    assert len(runs) == 1 or min(found) >= shortest
    if min(lengths) >= shortest:
        assert len(runs) == len(shots)


def test_a_short_shot_joins_the_neighbour_that_looks_like_it():
    shots = [(0, 50), (50, 55), (55, 100)]
    assert merge_short_shots(shots, np.array([[1.0, 0], [0.1, 1], [0, 1]]), 10) == [(0, 1), (1, 3)]
    assert merge_short_shots(shots, np.array([[1.0, 0], [1, 0.1], [0, 1]]), 10) == [(0, 2), (2, 3)]
    assert merge_short_shots([], np.zeros((0, 2)), 10) == []
