"""Where a summary shows a stretch of the source: the page and summary.txt say the same of it."""

from __future__ import annotations

import pytest

from vtsum.summary.moments import Clips, Moment, moments_of


def shot(start: float, end: float, begins: float, ends: float) -> dict:
    clip = {"start": start, "end": end, "summary_start": begins, "summary_end": ends, "keyframe": None}
    return {"start": start - 1, "end": end + 1, "clip": clip | {"keyframe_time": start}}


SHOTS = [shot(10, 14, 0, 4), {"start": 15, "end": 19, "clip": None}, shot(20, 22, 4, 6), shot(22, 26, 6, 10.1)]


@pytest.mark.parametrize(
    ("start", "end", "at", "summary"),
    [
        (11, 13, 11, 1),  # inside: from its own beginning
        (9, 12, 10, 0),  # half of it and more: from where the clip begins
        (8, 11, None, None),  # less than half
        (13, 16, None, None),
        (21, 24, 21, 5),  # over a cut, which the summary shows as well
        (0, 5, None, None),
        (14, 16, None, None),
        (30, 40, None, None),
        (13.9, 20.1, None, None),
    ],
)
def test_a_stretch(start, end, at, summary):
    assert Clips(SHOTS).moment(start, end) == Moment(start, end, at, summary)


@pytest.mark.parametrize(
    ("point", "at"), [(10, 10), (13.999, 13.999), (14, None), (17, None), (22, 22), (25, 25), (26, None)]
)
def test_a_point_lies_in_the_clip_that_begins_with_it(point, at):
    assert Clips(SHOTS).moment(point).at == at
    assert Clips([]).moment(point).at is None


def test_a_clip_of_another_length_in_the_summary_keeps_its_proportions():
    assert Clips(SHOTS).moment(24, 25).summary == pytest.approx(6 + 4.1 / 2)


def test_a_sentence_on_pictures_has_the_times_of_what_its_describer_looked_at():
    clips = Clips(SHOTS)
    seen = {"origin": "seen", "times": [{"start": 9, "end": 15}, {"start": 15, "end": 19}], "shots": [0, 1]}
    assert moments_of(seen, SHOTS, clips) == [Moment(10, 14, 10, 0), Moment(15, 19)]
    heard = {"origin": "heard", "times": [{"start": 9, "end": 15}], "shots": [0]}
    assert moments_of(heard, SHOTS, clips) == [Moment(9, 15, 10, 0)]


def test_writing_that_stands_is_shown_by_a_glance_at_it():
    clips = Clips(SHOTS)
    assert clips.moment(0, 10.5, stands=True) == Moment(0, 10.5, 10, 0)
    assert clips.moment(0, 10.4, stands=True) == Moment(0, 10.4)
    assert clips.moment(13.5, 14.5, stands=True) == Moment(13.5, 14.5, 13.5, 3.5)  # half of what is shorter
    read = {"origin": "read", "times": [{"start": 0, "end": 11}], "shots": [0]}
    assert moments_of(read, SHOTS, clips) == [Moment(0, 11, 10, 0)]
    assert moments_of(read | {"origin": "heard"}, SHOTS, clips) == [Moment(0, 11)]


def test_the_first_clip_of_a_chapter():
    assert Clips(SHOTS).first_in(14, 30) == Moment(20, 22, 20, 4)
    assert Clips(SHOTS).first_in(23, 30) is None
