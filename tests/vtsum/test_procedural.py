"""Clips drawn by program hold what they say; the demonstration film is what its constants say."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum.recipes.film as film
from vtsum.errors import VTSumError
from vtsum.recipes.procedural import EVENT_KINDS, Canvas, Event, Scene, five_events, make_clip
from vtsum.video import FrameSampler, probe

FILM = Path(film.__file__).resolve().parents[1] / "assets" / "film.mp4"


def samples(path: Path, fps: float, size: tuple[int, int] = (64, 36)) -> tuple[np.ndarray, np.ndarray]:
    frames = list(FrameSampler(path, fps=fps, size=size))
    return np.array([frame.time for frame in frames]), np.stack([frame.image for frame in frames]).astype(float)


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_five_events_are_where_they_are_said_to_be(tmp_path):
    truth = make_clip(tmp_path / "clip.mp4", five_events(30.0, 2.0), size=(160, 90), fps=12)
    assert [event.kind for event in truth.events] == list(EVENT_KINDS)
    assert truth.cuts == [6, 12, 18, 24]
    assert truth.duration == 30
    assert all(end - start == pytest.approx(2) for start, end in ((e.start, e.end) for e in truth.events))
    times, images = samples(truth.path, 4.0)
    inside = np.array([any(e.start + 0.1 <= t < e.end - 0.1 for e in truth.events) for t in times])
    outside = np.array([not any(e.start - 0.1 <= t < e.end + 0.1 for e in truth.events) for t in times])
    spread = images.max(axis=3).reshape(len(images), -1) - images.min(axis=3).reshape(len(images), -1)
    colorful = np.percentile(spread, 97, axis=1)
    lively = np.abs(np.diff(images, axis=0, prepend=images[:1])).mean(axis=(1, 2, 3))
    assert np.median(lively[inside]) > 10 * np.median(lively[outside])
    assert np.median(colorful[inside]) > 1.5 * colorful[outside].max()
    sound = np.abs(sound_of(truth.path))
    loud = np.array([sound[int(t * 44100) : int((t + 0.25) * 44100)].mean() for t in times])
    assert loud[inside].min() > 3 * loud[outside & np.roll(outside, -1)].max()


def test_cuts_and_dissolves(tmp_path):
    scenes = [Scene(2.0), Scene(2.0), Scene(3.0, fade=1.0)]
    truth = make_clip(tmp_path / "clip.mp4", scenes, size=(96, 54), fps=10, audio=False, seed=3)
    assert truth.cuts == [2.0, 4.5]
    assert truth.events == []
    _, images = samples(truth.path, 10.0)
    change = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    assert change.argmax() == 19
    assert change[19] > 5 * np.delete(change, 19).max()
    assert (change[40:50] > 2 * change[25:38].max()).sum() >= 7
    assert not probe(truth.path).has_audio


def test_the_same_seed_gives_the_same_clip(tmp_path):
    scenes = [Scene(1.0, (Event("balls", 0.2, 0.5),))]
    data = [
        make_clip(tmp_path / f"{n}.mp4", scenes, size=(96, 54), fps=10, seed=seed).path.read_bytes()
        for n, seed in enumerate((1, 1, 2))
    ]
    assert data[0] == data[1] != data[2]


def test_mistakes(tmp_path):
    out = tmp_path / "clip.mp4"
    for scenes, size, words in (
        ([], (96, 54), "at least one Scene"),
        ([Scene(1.0)], (95, 54), "size must be even"),
        ([Scene(1.0, fade=2.0)], (96, 54), "longer than its fade"),
        ([Scene(1.0, (Event("dragon", 0, 1),))], (96, 54), "kind must be one of"),
        ([Scene(1.0, (Event("balls", 0.5, 1),))], (96, 54), "must lie within scene"),
    ):
        with pytest.raises(VTSumError, match=words):
            make_clip(out, scenes, size=size)
    with pytest.raises(VTSumError, match="duration / 10"):
        five_events(10, 2)
    assert list(tmp_path.iterdir()) == []


def test_shapes_cover_their_area():
    canvas = Canvas(200, 100)
    canvas.disc(1.0, 0.5, 0.3, (1, 1, 1))
    assert canvas.pixels[..., 0].sum() / 100**2 == pytest.approx(np.pi * 0.09, rel=0.01)
    canvas = Canvas(200, 100)
    canvas.polygon([(0.5, 0.2), (1.5, 0.2), (1.5, 0.8), (1.0, 0.5), (0.5, 0.8)], (1, 1, 1))
    assert canvas.pixels[..., 1].sum() / 100**2 == pytest.approx(0.6 - 0.15, rel=0.02)
    canvas = Canvas(200, 100)
    canvas.line(0.5, 0.5, 1.5, 0.5, 0.1, (1, 1, 1))
    assert canvas.pixels[..., 2].sum() / 100**2 == pytest.approx(0.1 + np.pi * 0.05**2, rel=0.02)


def test_the_shipped_film():
    assert FILM.stat().st_size <= 2_000_000
    info = probe(FILM)
    assert (info.width, info.height) == film.SIZE
    assert info.fps == film.RATE
    assert info.has_audio
    assert info.duration == pytest.approx(film.HARBOUR.duration, abs=0.05)
    times, images = samples(FILM, 4.0)
    change = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    hard = [part.start for part in film.HARBOUR.parts[1:] if not part.dissolve]
    assert sorted(times[1:][np.argsort(change)[-len(hard) :]]) == pytest.approx(hard)
    edges = [time for writing in film.HARBOUR.writing for time in (writing.start, writing.end)]
    # Writing that comes or goes is no movement of the scene.
    moved = [(t, c) for t, c in zip(times[1:], change, strict=True) if all(abs(t - edge) > 0.7 for edge in edges)]
    for part in film.HARBOUR.parts:  # lively stretches move more than the quiet ones of their own scene
        inside = [c for t, c in moved if part.start + 1 < t < part.start + part.duration - 1]
        quiet = [c for t, c in moved if part.start + 1.2 < t < (part.lively or (part.start + 7,))[0] - 0.5]
        if part.lively:
            assert np.mean(inside) > 1.15 * np.mean(quiet), part.name
        else:
            assert np.mean(inside) < 0.5 * np.mean(change)


def test_the_narration_is_heard_where_it_is_said_to_be():
    assert all(a.end < b.start for a, b in zip(film.HARBOUR.narration, film.HARBOUR.narration[1:], strict=False))
    assert all(
        any(p.start <= s.start and s.end < p.start + p.duration for p in film.HARBOUR.parts)
        for s in film.HARBOUR.narration
    )
    sound = sound_of(FILM)
    assert len(sound) / 44100 == pytest.approx(film.HARBOUR.duration, abs=0.1)
    level = np.array([np.sqrt((sound[n : n + 4410] ** 2).mean()) for n in range(0, len(sound) - 4410, 4410)])
    times = np.arange(len(level)) / 10
    spoken = np.array([any(s.start < t < s.end - 0.1 for s in film.HARBOUR.narration) for t in times])
    assert np.median(level[spoken]) > 2 * np.median(level[~spoken])


def test_making_the_film_needs_espeak(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert film.main([str(tmp_path / "out.mp4")]) == 2
    assert "espeak-ng must be installed" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_narration_lasts_as_recorded(needs_program):
    needs_program("espeak-ng")
    for sentence in (film.HARBOUR.narration[0], film.HARBOUR.narration[-1]):
        assert len(film.speak(sentence.text)) / 44100 == pytest.approx(sentence.end - sentence.start, abs=0.5)


def test_every_scene_draws_the_same_picture_twice():
    """The film does not depend on what was drawn before."""
    drawn = [next(itertools.islice(film.frames(), 20, None)) for _ in range(2)]
    assert np.array_equal(*drawn)
    assert drawn[0].shape == (360, 640, 3)
    assert drawn[0].std() > 20
