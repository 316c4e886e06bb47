"""Voice activity: speech in silence and noise, in blocks of any length, and what is no speech at all."""

from __future__ import annotations

import itertools
import wave
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.speech import activity, transcribe
from vtsum.enhance.speech.activity import voice_activity, voiced
from vtsum.enhance.speech.sound import RATE, read_sound
from vtsum.errors import VTSumError

pytest.importorskip("faster_whisper")
pytest.importorskip("onnxruntime")


@cache
def spoken(path: Path, start: float, end: float) -> np.ndarray:
    sound = np.concatenate([block for _, block in read_sound(path)])
    return sound[round(start * RATE) : round(end * RATE)]


@pytest.fixture(scope="module")
def talk(shared: Path) -> np.ndarray:
    """Speech at 2..5.5 s and at 8.5..10.9 s."""
    nasa = shared / "media" / "nasa_13013.mp4"
    silence = np.zeros(3 * RATE, np.float32)
    return np.concatenate([silence[RATE:], spoken(nasa, 8.5, 12.0), silence, spoken(nasa, 5.1, 7.5), silence])


def covered(found: list[tuple[float, float]], start: float, end: float) -> float:
    return sum(max(min(b, end) - max(a, start), 0.0) for a, b in found) / (end - start)


def is_talk(found: list[tuple[float, float]], share: float = 0.85) -> bool:
    outside = sum(b - a for a, b in found) - sum(covered(found, *at) * (at[1] - at[0]) for at in SPOKEN)
    return all(covered(found, *at) >= share for at in SPOKEN) and outside < 0.5


SPOKEN = ((2.0, 5.5), (8.5, 10.9))


@pytest.mark.parametrize("level", [0.01, 0.2, 1.0])
def test_speech_in_silence_is_found_at_any_level(talk, level):
    assert is_talk(voice_activity(level * talk))


@pytest.mark.parametrize("snr", [20, 10, 5])
def test_speech_in_noise_is_found(talk, snr):
    loud = np.sqrt(np.mean(talk[2 * RATE : 5 * RATE] ** 2))
    noise = np.random.default_rng(2).normal(0, loud / 10 ** (snr / 20), len(talk)).astype(np.float32)
    assert is_talk(voice_activity(talk + noise), 0.7)


def test_clipped_speech_is_found(talk):
    assert is_talk(voice_activity(np.clip(talk * 50, -1, 1)))


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(0, np.float32),
        np.zeros(1, np.float32),
        np.zeros(10 * RATE, np.float32),
        np.full(10 * RATE, 0.5, np.float32),
        np.random.default_rng(0).normal(0, 0.3, 70 * RATE).astype(np.float32),
        np.random.default_rng(0).normal(0, 1e-4, 20 * RATE).astype(np.float32),
        np.sin(np.arange(10 * RATE) * 0.1).astype(np.float32),
    ],
    ids=["no samples", "one", "silence", "direct current", "noise", "faint noise", "tone"],
)
def test_what_is_no_speech_is_not_found(sound):
    assert voice_activity(sound) == []


@settings(max_examples=5, deadline=None)
@given(sizes=st.lists(st.integers(3_000, 2_000_000), min_size=1, max_size=8), lead=st.integers(0, 55))
def test_blocks_of_any_length_give_the_same(talk, sizes, lead):
    """Over several of the pieces that are looked at together, wherever their ends fall."""
    sound = np.concatenate([np.zeros(lead * RATE, np.float32), *[talk] * 8])
    blocks, at = [], 0
    while at < len(sound):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append((100.0 + at / RATE, sound[at : at + size]))
        at += size
    found = voice_activity(sound)
    assert np.allclose(voice_activity(blocks), np.array(found) + 100.0)
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(found))
    for turn in range(8):
        begin = lead + turn * len(talk) / RATE
        assert is_talk([(a - begin, b - begin) for a, b in found if begin <= a < begin + len(talk) / RATE])
    for piece in voiced(blocks):  # each is the sound at its time
        first = round((piece.start - 100.0) * RATE)
        assert np.array_equal(piece.samples, sound[first : first + len(piece.samples)])


def test_a_recogniser_gets_sound_around_what_is_said(talk):
    first, second = talk[RATE : 6 * RATE], talk[8 * RATE : 12 * RATE]
    sound = np.concatenate([first[: round(4.6 * RATE)], second[round(0.4 * RATE) :]])  # a quarter of a second between
    found, pieces = voice_activity(sound), list(voiced(sound))
    assert (len(found), len(pieces)) == (2, 1)
    assert pieces[0].start == pytest.approx(found[0][0] - 0.17, abs=0.01)
    assert pieces[0].end == pytest.approx(found[1][1] + 0.17, abs=0.01)


def test_long_stretches_are_cut(shared):
    sound = np.concatenate([spoken(shared / "media" / "nasa_13013.mp4", 0.9, 4.9)] * 30)  # two minutes without a breath
    pieces = list(voiced(sound, longest=6.0))
    assert all(len(piece.samples) <= 6.0 * RATE for piece in pieces)
    assert covered([(p.start, p.end) for p in pieces], 0.0, 120.0) > 0.9
    assert all(p.end <= q.start + 1e-9 for p, q in itertools.pairwise(pieces))
    assert any(p.end - p.start > 4.5 for p in pieces)


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.array([0.0, np.nan]), "must be finite, got NaN"),
        (np.array([0.0, np.inf], np.float32), "must be finite"),
        (np.zeros((2, 100), np.float32), r"must be floating-point \[n\], got float32 \[2, 100\]"),
        (np.zeros(100, np.int16), r"must be floating-point \[n\], got int16"),
        ([(0.0, np.zeros(1600, np.float32)), (0.5, np.zeros(1600, np.float32))], "blocks must follow each other"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(sound, message):
    with pytest.raises(ValueError, match=message):
        voice_activity(sound)


def test_a_longest_stretch_under_a_second_is_refused():
    with pytest.raises(ValueError, match=r"longest must be at least 1 second, got 0.5"):
        voiced(np.zeros(100), longest=0.5)


@pytest.mark.parametrize("missing", ["faster_whisper", "onnxruntime"])
def test_without_its_packages_it_says_so_and_text_without_times_is_spread_all_over(monkeypatch, tmp_path, missing):
    find = activity.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(20 * RATE))
    with pytest.raises(VTSumError, match=rf"voice_activity: {missing.replace('_', '-')} must be .*vtsum\[speech\]"):
        voice_activity(np.zeros(RATE, np.float32))
    (tmp_path / "talk.txt").write_text("one two three four five")
    said = transcribe(tmp_path / "sound.wav", transcript=tmp_path / "talk.txt")
    assert said.words[-1].end == pytest.approx(10.0)
    assert said.warnings == (
        "talk.txt has no times: its words are spread over the whole video; "
        "pip install 'vtsum[speech]' finds those with voice",
    )


@pytest.mark.parametrize(
    ("name", "speech", "share"),
    [
        ("speech_and_silence.mp4", (1.2, 17.4), 0.85),
        ("jfk.flac", (0.3, 10.5), 0.65),  # of its orator's pauses nothing is taken
        ("nasa_13013.mp4", (0.6, 12.0), 0.9),
        ("chaplin.mp4", (0.0, 9.6), 0.0),  # music alone
    ],
)
def test_real_clips(shared, name, speech, share):
    found = voice_activity(read_sound(shared / "media" / name))
    inside = covered(found, *speech)
    assert inside >= share
    assert sum(b - a for a, b in found) <= (inside * (speech[1] - speech[0]) + 1.5 if share else 0.0)
