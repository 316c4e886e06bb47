"""One call for every method: what each finds, its lengths, its times, and bad input."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vtsum.test_kts import segmentations
from vtsum.enhance.event_segmentation import METHODS, PictureChanges, Segment, find_shots, segment
from vtsum.enhance.event_segmentation.methods import THRESHOLD
from vtsum.errors import VTSumError


def scenes(lengths: list[int], noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=(len(lengths), 32)), lengths, axis=0) + noise * rng.normal(size=(sum(lengths), 32))


def pictures(lengths: list[int], rate: int = 25, seed: int = 0, dissolve: int = 0) -> np.ndarray:
    """Noisy still scenes of so many pictures each; the first `dissolve` of a scene fade in."""
    rng = np.random.default_rng(seed)
    grounds = rng.integers(20, 235, (len(lengths), 90, 160)).astype(np.float32)
    out = []
    for number, length in enumerate(lengths):
        for i in range(length):
            share = min((i + 1) / (dissolve + 1), 1.0) if number else 1.0
            out.append(grounds[number] * share + grounds[number - 1] * (1 - share) + rng.normal(0, 1.5, (90, 160)))
    return np.clip(out, 0, 255).astype(np.uint8)


def likely(frames: int, at: list[int]) -> np.ndarray:
    scores = np.full(frames, 0.02)
    scores[at] = 0.8
    return scores


@pytest.fixture(scope="module")
def cut_video() -> PictureChanges:
    return PictureChanges.of(pictures([110, 140, 90, 160]), 25.0)  # 20 s; cuts at 4.4, 10.0 and 13.6 s


def test_each_method_finds_what_it_looks_for(cut_video):
    x = scenes([5, 5, 4, 6])
    by_features = segment(x, "kts", duration=20.0)
    assert [s.start for s in by_features] == [0, 5, 10, 14]
    by_pictures = segment(np.zeros((20, 1)), "cuts", changes=cut_video, duration=20.0)
    assert [s.start for s in by_pictures] == [0, 5, 10, 14]
    assert [s.start_time for s in by_pictures] == pytest.approx([0, 4.4, 10.0, 13.6])
    by_head = segment(np.zeros((20, 1)), "learned", boundary_scores=likely(20, [5, 10, 14]))
    assert [s.start for s in by_head] == [0, 5, 10, 14]
    assert [s.start_time for s in by_head] == pytest.approx([0, 4.5, 9.5, 13.5])
    even = segment(np.zeros((20, 1)), "uniform")
    assert [s.start for s in even] == [0, 5, 10, 15]


def test_joint_weighs_all_evidence(cut_video):
    """Features alone see no event in noise; with the head and the pictures there are some, and the reverse."""
    noise = 1.0 + 0.3 * np.random.default_rng(1).normal(size=(20, 32))
    assert len(segment(noise, "kts")) == len(segment(noise, "joint")) == 1
    told = segment(noise, "joint", boundary_scores=likely(20, [5, 10, 14]), changes=cut_video)
    assert [s.start for s in told] == [0, 5, 10, 14]
    x = scenes([5, 5, 4, 6], noise=0.6)
    assert [s.start for s in segment(x, "joint")] == [s.start for s in segment(x, "kts")]


def test_times_are_at_the_cut_where_the_pictures_show_one(cut_video):
    found = segment(scenes([5, 3, 2, 4, 6]), "kts", changes=cut_video, duration=19.9)
    assert [s.start for s in found] == [0, 5, 8, 10, 14]
    assert [s.start_time for s in found] == pytest.approx([0, 4.4, 7.5, 10.0, 13.6])
    assert [s.end_time for s in found] == pytest.approx([4.4, 7.5, 10.0, 13.6, 19.9])


def test_ten_hours_of_dissolves_are_looked_through_soon():
    """Each is compared with those beside it: with all others it was the better part of a minute."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (12_001, 20, 20)).astype(np.float32)
    changes = PictureChanges()
    for number in range(144_000):
        scene, step = divmod(number, 12)
        share = max(step - 8, 0) / 4
        changes.note(number / 4, (scenes[scene] * (1 - share) + scenes[scene + 1] * share).astype(np.uint8))
    began = time.thread_time()
    assert len(changes.cuts()) > 12_000
    assert time.thread_time() - began < 15


def test_dissolves_are_found_and_flashes_are_not():
    video = pictures([100, 120, 100], dissolve=24)
    video[40:42] = 255
    found = PictureChanges.of(video, 25.0).cuts()
    assert [time for time, _ in found] == pytest.approx([4.5, 9.3], abs=0.3)
    assert all(strength >= 1 for _, strength in found)
    still = PictureChanges.of(pictures([200]), 25.0)
    assert still.cuts() == []
    colour = np.repeat(pictures([50, 50])[..., None], 3, axis=3)
    assert [time for time, _ in PictureChanges.of(colour, 25.0).cuts()] == pytest.approx([2.0])


def test_motion_is_no_cut():
    """A texture that slides by, ever faster, changes every picture and never suddenly."""
    rng = np.random.default_rng(0)
    across, down = np.arange(160), np.arange(90)[:, None]
    waves = rng.normal(0, 0.2, (8, 2))
    moving = [128 + 14 * sum(np.sin(w * (across + 0.01 * i * i) + v * down) for w, v in waves) for i in range(200)]
    moving = [np.clip(picture, 0, 255).astype(np.uint8) for picture in moving]
    assert PictureChanges.of(moving, 25.0).cuts() == []


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(2, 9),
    seed=st.integers(0, 10_000),
    shortest=st.integers(1, 3),
    extra=st.integers(0, 6),
    limit=st.sampled_from([3, 5, 9]),
)
def test_learned_boundaries_are_the_most_likely(frames, seed, shortest, extra, limit):
    """Brute force over all segmentations with the lengths allowed: none has a greater sum of log-odds."""
    scores = np.random.default_rng(seed).random(frames)
    longest = 2 * shortest - 1 + extra
    if frames <= shortest or math.ceil(frames / longest) > limit:
        return
    odds = np.log(scores / (1 - scores)) - math.log(THRESHOLD / (1 - THRESHOLD))
    best = max(float(odds[list(edges[1:-1])].sum()) for edges in segmentations(frames, shortest, longest, limit))
    found = segment(
        np.zeros((frames, 1)),
        "learned",
        boundary_scores=scores,
        min_length=shortest,
        max_length=longest,
        max_segments=limit,
    )
    assert len(found) <= limit
    assert all(shortest <= len(s) <= longest for s in found)
    assert float(odds[[s.start for s in found[1:]]].sum()) == pytest.approx(best, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    frames=st.integers(0, 150),
    fps=st.sampled_from([0.5, 1.0, 2.0, 12.5]),
    seed=st.integers(0, 1000),
    most=st.sampled_from([None, 40]),
)
def test_segments_tile_the_video(method, frames, fps, seed, most, cut_video):
    rng = np.random.default_rng(seed)
    duration = frames / fps + 0.3
    found = segment(
        rng.normal(size=(frames, 4)),
        method,
        fps=fps,
        duration=duration,
        max_segments=most,
        min_length=2.0,
        max_length=30.0,
        boundary_scores=rng.random(frames),
        changes=cut_video,
    )
    assert [s.start for s in found] == ([0] + [s.end for s in found])[: len(found)]
    assert sum(map(len, found)) == frames
    if frames:
        assert found[0].start_time == 0
        assert found[-1].end_time == duration
        assert all(a.end_time == b.start_time for a, b in itertools.pairwise(found))
        assert all(s.start_time <= s.end_time for s in found)
        assert most is None or len(found) <= most
        if frames > 2 * fps:
            assert all(round(2 * fps) <= len(s) <= round(30 * fps) for s in found)


@pytest.mark.parametrize("method", METHODS)
def test_borders(method, cut_video):
    for frames in (0, 1, 2):
        told = {"boundary_scores": np.full(frames, 0.9), "changes": cut_video}
        found = segment(np.ones((frames, 3)), method, **told)
        assert [(s.start, s.end) for s in found] == [(0, 1), (1, 2)][:frames] or found == [Segment(0, frames)]
    still = segment(np.full((150, 3), 0.2), method, boundary_scores=np.full(150, 0.01), changes=PictureChanges())
    assert len(still) == (30 if method == "uniform" else 3)
    unbounded = segment(
        np.full((150, 3), 0.2),
        method,
        boundary_scores=np.full(150, 0.01),
        changes=PictureChanges(),
        max_length=None,
        max_segments=1,
    )
    assert unbounded == [Segment(0, 150)]


def test_shots_of_a_summary_are_the_segments():
    x = scenes([12, 5, 30, 8])
    shots, means, scatter = find_shots(x, 1.0, method="learned", boundary_scores=likely(55, [12, 17, 47]))
    assert shots == segment(x, "learned", boundary_scores=likely(55, [12, 17, 47]))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(means[1], unit[12:17].mean(0), atol=1e-12)
    assert scatter == pytest.approx(float(((unit - unit.mean(0)) ** 2).sum(1).mean()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0.0}, "fps must be above 0, got 0.0"),
        ({"duration": math.nan}, "duration must be at least 0 seconds, got nan"),
        ({"max_segments": 0}, "max_segments must be at least 1, got 0"),
        ({"min_length": -1.0}, "min_length must be above 0 seconds, got -1.0"),
        ({"max_length": math.inf}, "max_length must be above 0 seconds, got inf"),
        ({"max_length": 5.0, "max_segments": 3}, "max_segments must be at least T / max_length = 4, got 3"),
        ({"boundary_scores": np.ones(3)}, r"boundary_scores must be \[T\] = \[20\], got \[3\]"),
        ({"boundary_scores": np.full(20, np.nan)}, "boundary_scores must be probabilities from 0 to 1"),
    ],
)
def test_messages(options, message):
    with pytest.raises(ValueError, match=message):
        segment(np.ones((20, 2)), **options)


def test_what_is_missing_or_broken_is_said():
    with pytest.raises(
        VTSumError, match="method must be one of kts, learned, joint, cuts, uniform or module:Class, got 'ktz'"
    ):
        segment(np.ones((20, 2)), "ktz")
    with pytest.raises(VTSumError, match="boundary_scores must be given for 'learned'"):
        segment(np.ones((20, 2)), "learned")
    with pytest.raises(VTSumError, match="changes must be given for 'cuts'"):
        segment(np.ones((20, 2)), "cuts")
    x = np.ones((20, 2))
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match="features must be finite, got NaN or infinity in frame 7"):
        segment(x, "uniform")
    with pytest.raises(ValueError, match=r"features must be \[T, C\], got shape \(20,\)"):
        segment(np.ones(20))


def test_features_that_hardly_differ_have_events_but_for_a_picture_that_stands():
    """An encoder's features may have one direction that outweighs all others; coding noise is as small."""
    x = np.zeros((60, 8))
    x[:, 0], x[20:, 1], x[40:, 2] = 1.0, 5e-4, 5e-4
    x += np.random.default_rng(0).normal(0, 2e-5, x.shape)
    assert [s.start for s in segment(x, "kts")] == [0, 20, 40]
    stands = PictureChanges.of(np.full((120, 20, 20), 90, np.uint8), 2.0)
    moves = PictureChanges.of(np.full((120, 20, 20), 90, np.uint8) + 20 * (np.arange(120) % 2)[:, None, None], 2.0)
    assert len(segment(x, "kts", changes=stands)) == 1
    assert len(segment(x, "kts", changes=moves)) == 3


def test_whether_hours_stand_still_is_seen_in_little_memory() -> None:
    """A copy of all pictures of ten hours, and their distances, took 200 MB."""
    changes, picture = PictureChanges(), np.random.default_rng(0).integers(0, 200, (24, 26), np.uint8)
    for number in range(8000):
        changes.note(0.25 * number, picture + number % 12)
    tracemalloc.start()
    assert changes.is_still(-1.0, 2001.0)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    changes.note(2000.0, picture + 13)
    assert changes.is_still(-1.0, 2000.0)
    assert not changes.is_still(-1.0, 2001.0)
