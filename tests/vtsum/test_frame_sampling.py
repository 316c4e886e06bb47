"""Frame sampling alone: choices against brute force, streams against whole videos, values between, thumbnails."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.frame_sampling import METHODS, EvenChooser, FrameChooser, choose_frames, spread, thumbnail_features
from vtsum.enhance.frame_sampling.coverage import TIME_PRICE, cover, least_count


def distances(x: np.ndarray, time_price: float = TIME_PRICE) -> np.ndarray:
    """d of the module's docstring for all pairs, straight from its words: [T, T]."""
    d = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    steps = [d[i, i + 1] for i in range(len(x) - 1)]
    price = max(time_price * float(np.mean(steps)), 1e-12) if steps else 0.0
    apart = np.abs(np.arange(len(x))[:, None] - np.arange(len(x))[None])
    return d + price * apart


def cost(d: np.ndarray, chosen: list[int]) -> float:
    """What is minimised."""
    total = 0.0
    for t in range(len(d)):
        before, after = [c for c in chosen if c <= t][-1:], [c for c in chosen if c >= t][:1]
        total += min(d[t, c] for c in before + after)
    return total


def allowed(chosen: list[int], frames: int, longest: int) -> bool:
    marked = np.zeros(frames, bool)
    marked[chosen] = True
    return all(marked[i : i + longest].any() for i in range(frames - longest + 1))


videos = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).normal(size=(np.random.default_rng(seed).integers(1, 11), 2)).round(1)
)


@settings(max_examples=80)
@given(x=videos, longest=st.integers(1, 6), anchored=st.booleans(), data=st.data())
def test_coverage_is_the_least_of_all_choices(x, longest, anchored, data):
    frames, fixed = len(x), [0] if anchored else []
    count = data.draw(st.integers(least_count(frames, longest, anchored), frames - len(fixed)))
    d = distances(x)
    choices = [
        fixed + list(more)
        for more in itertools.combinations(range(len(fixed), frames), count)
        if allowed(fixed + list(more), frames, longest)
    ]
    if not fixed and count == 0:
        assert len(cover(x, 0, longest)) == 0  # fewer frames than `longest`: nothing need be chosen
        return
    least = min(cost(d, chosen) for chosen in choices)
    chosen = fixed + [int(i) for i in cover(x, count, longest, anchored=anchored)]
    assert chosen in choices
    assert cost(d, chosen) == pytest.approx(least, abs=1e-9)


@settings(max_examples=40)
@given(x=videos, longest=st.integers(1, 6), anchored=st.booleans())
def test_fewer_choices_than_the_least_are_refused(x, longest, anchored):
    frames = len(x)
    least = least_count(frames, longest, anchored)
    first = [0] if anchored else []
    rest = range(len(first), frames)
    assert any(allowed(first + list(c), frames, longest) for c in itertools.combinations(rest, least))
    if least:
        assert not any(allowed(first + list(c), frames, longest) for c in itertools.combinations(rest, least - 1))
        with pytest.raises(ValueError, match=f"cover: count must be {least} to "):
            cover(x, least - 1, longest, anchored=anchored)


def lively(frames: int, channels: int = 16, seed: int = 0) -> np.ndarray:
    """Still for most of the time, with lively stretches and cuts."""
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(frames) < 0.02, 5.0, np.where(np.arange(frames) // 40 % 4 == 3, 0.5, 0.02))
    return np.cumsum(rng.normal(size=(frames, channels)) * step[:, None], axis=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 40, 333])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.6, 1.0])
def test_as_many_as_asked_for(method, frames, share):
    x = lively(frames)
    chosen = choose_frames(x, share=share, method=method)
    assert len(chosen) == math.ceil(share * frames - 1e-9)
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert chosen[0] >= 0
    assert chosen[-1] < frames
    assert np.array_equal(chosen, choose_frames(x, count=len(chosen), method=method))
    assert np.array_equal(chosen, choose_frames(x * 2, share=share, method=method))


def test_a_quarter_is_the_usual_share_and_no_more_than_all_are_chosen():
    x = lively(50)
    assert np.array_equal(choose_frames(x), choose_frames(x, share=0.25, method="coverage"))
    assert np.array_equal(choose_frames(x, count=99), np.arange(50))
    assert choose_frames(np.zeros((0, 3))).tolist() == []
    assert choose_frames(np.zeros((1, 3))).tolist() == [0]


def test_uniform_is_even():
    assert choose_frames(np.zeros((20, 1)), count=5, method="uniform").tolist() == [2, 6, 10, 14, 18]
    gaps = np.diff(choose_frames(np.zeros((997, 1)), share=0.17, method="uniform"))
    assert gaps.max() - gaps.min() <= 1


def test_top_k_takes_the_greatest_changes_wherever_they_are():
    x = np.zeros((30, 2))
    x[10:] += 3
    x[11:] += 1
    x[25:] -= 2
    assert choose_frames(x, count=3, method="top-k").tolist() == [10, 11, 25]
    assert choose_frames(x, count=29, method="top-k").tolist() == list(range(1, 30))


def test_coverage_goes_where_the_picture_changes_and_leaves_no_stretch_out():
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros((100, 4)), np.cumsum(rng.normal(size=(50, 4)), axis=0), np.zeros((50, 4))])
    chosen = choose_frames(x, share=0.25)
    assert ((chosen >= 100) & (chosen < 150)).mean() > 0.5
    edges = [-1, *chosen.tolist(), 200]
    assert max(b - a for a, b in itertools.pairwise(edges)) <= 16
    reach = [np.abs(x - x[c]).sum(axis=1) for c in chosen]
    even = [np.abs(x - x[c]).sum(axis=1) for c in choose_frames(x, share=0.25, method="uniform")]
    assert np.min(reach, axis=0).mean() < 0.6 * np.min(even, axis=0).mean()


def test_a_still_video_is_covered_evenly():
    gaps = np.diff(choose_frames(np.full((400, 3), 0.7), share=0.25))
    assert gaps.min() >= 3
    assert gaps.max() <= 5


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    frames=st.integers(1, 700),
    share=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    at_least=st.sampled_from([1, 40]),
    batch=st.integers(1, 200),
    even=st.booleans(),
)
def test_a_stream_gives_the_same_choices_however_it_is_dealt_out(seed, frames, share, at_least, batch, even):
    x = lively(frames, channels=3, seed=seed)
    kind = EvenChooser if even else FrameChooser
    chooser, chosen = kind(share, at_least=at_least), []
    for at in range(0, frames, batch):
        before = chooser.settled
        new = chooser.see(x[at : at + batch])
        assert all(before <= i < chooser.settled for i in new)
        chosen += new
        if not even:
            assert chooser.seen - chooser.settled <= chooser.window
    last = chooser.finish()
    assert all(i >= chosen[-1] + 1 for i in last[:1] if chosen)
    chosen += last
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < frames
    once = kind(share, at_least=at_least)
    assert chosen == once.see(x) + once.finish()
    wanted = max(math.ceil(share * frames - 1e-9), min(at_least, frames))
    assert abs(len(chosen) - wanted) <= int(even)
    if not even:
        assert allowed(chosen, frames, chooser.longest)


def test_a_stream_is_covered_nearly_as_well_as_the_whole_video():
    x = lively(800, seed=5)
    d = distances(x)
    whole = cost(d, choose_frames(x, share=0.25).tolist())
    chooser = FrameChooser(0.25)
    assert cost(d, chooser.see(x) + chooser.finish()) < 1.25 * whole
    assert cost(d, choose_frames(x, share=0.25, method="uniform").tolist()) > 1.3 * whole


def test_a_long_video_is_covered_in_windows_in_little_time():
    x = lively(36_000, channels=4)
    began = time.process_time()
    chosen = choose_frames(x, share=0.25)
    assert time.process_time() - began < 60
    assert len(chosen) == 9000
    assert allowed(chosen.tolist(), 36_000, 16)


@pytest.mark.parametrize(("frames", "count"), [(3000, 1), (3000, 20), (9000, 3), (9000, 100)])
def test_few_of_many(frames, count):
    x = lively(frames, channels=4)
    chosen = choose_frames(x, count=count)
    assert len(set(chosen.tolist())) == count
    assert allowed(chosen.tolist(), frames, math.ceil(4 * frames / count) + 300)
    d = [np.abs(x - x[c]).sum(axis=1) for c in chosen]
    even = [np.abs(x - x[c]).sum(axis=1) for c in choose_frames(x, count=count, method="uniform")]
    assert np.min(d, axis=0).mean() <= 1.02 * np.min(even, axis=0).mean()


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.zeros(5), {}, r"features must be \[T, C\], got shape \(5,\)"),
        (np.array([[0.0], [np.nan]]), {}, "features must be finite, got NaN or infinity in frame 1"),
        (
            np.array([[0.0], [0.0], [np.inf]]),
            {"method": "uniform"},
            "features must be finite, got NaN or infinity in frame 2",
        ),
        (np.zeros((3, 1)), {"method": "best"}, "method must be one of uniform, top-k, coverage, got 'best'"),
        (np.zeros((3, 1)), {"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        (np.zeros((3, 1)), {"share": math.nan}, "share must be above 0 and at most 1, got nan"),
        (np.zeros((3, 1)), {"count": 0}, "count must be at least 1, got 0"),
        (np.zeros((3, 1)), {"share": 0.5, "count": 1}, "share and count must not both be given, got 0.5 and 1"),
    ],
)
def test_messages(features, options, message):
    with pytest.raises(ValueError, match=f"choose_frames: {message}"):
        choose_frames(features, **options)


def test_messages_of_streams():
    with pytest.raises(ValueError, match=r"EvenChooser: share must be above 0 and at most 1, got 1\.5"):
        EvenChooser(1.5)
    for share in (0.009, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"FrameChooser: share must be 0\.01 to 1, got {share}"):
            FrameChooser(share)
    with pytest.raises(ValueError, match="window must be at least 64 frames here, got 63"):
        FrameChooser(0.25, window=63)
    chooser = FrameChooser(0.25)
    chooser.see(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"as wide as before, got shape \(3, 4\)"):
        chooser.see(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="NaN or infinity in frame 4"):
        chooser.see(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    assert FrameChooser(0.25).finish() == []
    assert EvenChooser(0.25).finish() == []


def test_values_between_go_by_time():
    out = spread(np.array([[0.0, 8.0], [4.0, 0.0]], np.float32), np.array([1, 5]), 7)
    assert out.dtype == np.float32
    assert out[:, 0].tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert out[:, 1].tolist() == [8, 8, 6, 4, 2, 0, 0]
    assert spread(np.array([3]), np.array([2]), 4).tolist() == [3.0, 3.0, 3.0, 3.0]
    assert spread(np.zeros((0, 3)), np.zeros(0, int), 0).shape == (0, 3)


def test_values_between_keep_a_cut_where_the_pictures_have_it():
    pictures = np.array([[0.0]] * 5 + [[9.0]] * 4)
    out = spread(np.array([1.0, 2.0]), np.array([0, 8]), 9, like=pictures)
    assert out.tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert spread(np.array([1.0, 2.0]), np.array([0, 4]), 5, like=np.ones((5, 2))).tolist() == [1, 1.25, 1.5, 1.75, 2]


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 30), known=st.booleans())
def test_values_between_lie_between(seed, frames, known):
    rng = np.random.default_rng(seed)
    picks = np.flatnonzero(rng.random(frames) < 0.4) if frames > 1 else np.array([0])
    picks = picks if len(picks) else np.array([frames // 2])
    values = rng.normal(size=(len(picks), 2))
    out = spread(values, picks, frames, like=rng.normal(size=(frames, 3)) if known else None)
    assert np.array_equal(out[picks], values)
    for t in range(frames):
        a = values[max(np.searchsorted(picks, t, side="right") - 1, 0)]
        b = values[min(np.searchsorted(picks, t), len(picks) - 1)]
        assert (np.minimum(a, b) - 1e-12 <= out[t]).all()
        assert (out[t] <= np.maximum(a, b) + 1e-12).all()


@pytest.mark.parametrize(
    ("values", "picks", "frames", "like", "message"),
    [
        (np.zeros(2), np.zeros(3, int), 5, None, r"values must be \[P, ...\] and picks \[P\]"),
        (np.zeros(0), np.zeros(0, int), 5, None, "picks must be at least one of 5 frames, got 0"),
        (np.zeros(2), np.array([1, 1]), 5, None, "picks must rise within 0 to 4"),
        (np.zeros(2), np.array([1, 5]), 5, None, "picks must rise within 0 to 4"),
        (np.zeros(2), np.array([1, 3]), 5, np.zeros((4, 2)), r"like must be \[5, C\], got shape \(4, 2\)"),
    ],
)
def test_messages_of_spread(values, picks, frames, like, message):
    with pytest.raises(ValueError, match=f"spread: {message}"):
        spread(values, picks, frames, like)


def test_thumbnails_tell_pictures_apart():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 8, 3)), 16, axis=1), 16, axis=2).astype(float)
    noisy = np.clip(np.repeat(scenes, 2, axis=0) + rng.normal(0, 8, (12, 128, 128, 3)), 0, 255).astype(np.uint8)
    x = thumbnail_features(noisy)
    apart = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    same = np.array([apart[2 * i, 2 * i + 1] for i in range(6)])
    np.fill_diagonal(apart, np.inf)
    for i in range(6):
        apart[2 * i, 2 * i + 1] = apart[2 * i + 1, 2 * i] = np.inf
    assert same.max() < 0.1 * apart.min()


def test_a_picture_is_described_by_its_colours_and_edges():
    red = np.zeros((1, 64, 96, 3), np.uint8)
    red[..., 0] = 255
    x = thumbnail_features(red)[0]
    layout, colours, edges = x[:192].reshape(8, 8, 3), x[192:256], x[256:].reshape(4, 4, 2)
    assert (layout[..., 0] > 0).all()
    assert (layout[..., 1:] == 0).all()
    assert colours.argmax() == 3 * 16
    assert colours.sum() == 1
    assert not edges.any()
    red[0, :, 48:] = 0
    edges = thumbnail_features(red)[0][256:].reshape(4, 4, 2)
    assert (edges[:, 2, 0] > 0).all()
    assert edges.sum() == edges[:, 2, 0].sum()
    assert thumbnail_features(red[:, :, ::-1])[0][256:].sum() > 0


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (32, 32), (31, 33), (384, 384)])
def test_pictures_of_any_size(size):
    rng = np.random.default_rng(0)
    x = thumbnail_features(rng.integers(0, 256, (3, *size, 3), dtype=np.uint8))
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert len({row.tobytes() for row in x}) == 3
    assert thumbnail_features(np.zeros((0, *size, 3), np.uint8)).shape == (0, x.shape[1])


def test_messages_of_thumbnails():
    with pytest.raises(TypeError, match="images must be uint8, got float64"):
        thumbnail_features(np.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"images must be \[N, H, W, 3\], got shape \(8, 8, 3\)"):
        thumbnail_features(np.zeros((8, 8, 3), np.uint8))
