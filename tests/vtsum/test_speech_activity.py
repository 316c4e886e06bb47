"""Voice activity: planted speech in noise, against brute force, and what is no speech at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtsum.enhance.speech import activity
from vtsum.enhance.speech.activity import voice_activity, voiced
from vtsum.enhance.speech.sound import RATE, read_sound


def syllables(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """What makes speech speech here: a pitch that glides, formants that move, four syllables a second."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formant = 900 + 500 * np.sin(2 * np.pi * 2.1 * time + rng.uniform(0, 6))
    sound = np.zeros(len(time))
    for n in range(1, 30):
        sound += np.sin(n * phase) * np.exp(-(((n * pitch - formant) / 400) ** 2))
    sound *= np.clip(np.sin(2 * np.pi * 2 * time), 0, None) ** 2 + np.clip(-np.sin(2 * np.pi * 2 * time), 0, None) ** 2
    return (level * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def scene(*parts: float | np.ndarray) -> np.ndarray:
    """Silence of so many seconds and sounds, one after the other."""
    return np.concatenate([np.zeros(round(p * RATE), np.float32) if isinstance(p, float) else p for p in parts])


TALK = scene(2.0, syllables(3.0), 2.5, syllables(2.0, 1), 3.0)  # speech at 2..5 and 7.5..9.5
HERTZ = np.arange(3.0, 8.01, 0.5)  # what windows of 2 s can tell apart
SPOKEN = ((2.0, 5.0), (7.5, 9.5))


def is_talk(found: list[tuple[float, float]], slack: float = 0.3) -> bool:
    return len(found) == 2 and bool(np.allclose(found, SPOKEN, atol=slack))


@pytest.mark.parametrize("level", [1e-3, 0.03, 1.0])
def test_speech_in_silence_is_found_at_any_level(level):
    assert is_talk(voice_activity(level * TALK * 5))


@pytest.mark.parametrize("snr", [20, 10, 5, 0])
def test_speech_in_noise_is_found(snr):
    noise = np.random.default_rng(2).normal(0, 0.1 / 10 ** (snr / 20), len(TALK)).astype(np.float32)
    assert is_talk(voice_activity(TALK + noise))


def test_clipped_speech_is_found():
    assert is_talk(voice_activity(np.clip(TALK * 50, -1, 1)))


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_other_rates_give_the_same_times(rate):
    at = np.arange(round(len(TALK) / RATE * rate)) / rate
    assert is_talk(voice_activity(np.interp(at, np.arange(len(TALK)) / RATE, TALK).astype(np.float32), rate))


def sustained(seconds: float) -> np.ndarray:
    """Chords of organ pipes, a new one every 1.5 s."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros(len(time))
    for index in range(int(seconds / 1.5) + 1):
        part = slice(int(index * 1.5 * RATE), int((index + 1) * 1.5 * RATE))
        for note in (0, 4, 7):
            pitch = 220 * 2 ** ((note + 3 * (index % 4)) / 12)
            sound[part] += sum(np.sin(2 * np.pi * pitch * n * time[part]) / n for n in range(1, 8))
    return (0.1 * sound).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(0, np.float32),
        np.zeros(1, np.float32),
        np.zeros(10 * RATE, np.float32),
        np.full(10 * RATE, 0.5, np.float32),
        np.random.default_rng(0).normal(0, 0.3, 20 * RATE).astype(np.float32),
        np.random.default_rng(0).normal(0, 1e-4, 20 * RATE).astype(np.float32),
        np.sin(np.arange(10 * RATE) * 0.1).astype(np.float32),
        sustained(20.0),
        scene(2.0, np.random.default_rng(1).normal(0, 0.3, 480).astype(np.float32), 2.0),  # a clap
        syllables(0.02),
    ],
    ids=["no samples", "one", "silence", "direct current", "noise", "faint noise", "tone", "organ", "clap", "20 ms"],
)
def test_what_is_no_speech_is_not_found(sound):
    assert voice_activity(sound) == []


@settings(max_examples=5)
@given(st.lists(st.integers(3_000, 60_000), min_size=1, max_size=8), st.integers(0, 3))
def test_blocks_of_any_length_give_the_same(sizes, seed):
    noise = np.random.default_rng(seed).normal(0, 0.02, len(TALK)).astype(np.float32)
    sound = scene(float(seed), TALK + noise)
    blocks, at = [], 0
    while at < len(sound):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append((100.0 + at / RATE, sound[at : at + size]))
        at += size
    found = [(a + 100.0, b + 100.0) for a, b in voice_activity(sound)]
    assert np.allclose(voice_activity(blocks), found)
    pieces = list(voiced(blocks, longest=1.5))
    assert all(len(piece.samples) <= 1.5 * RATE + 1 for piece in pieces)
    for piece in pieces:  # each is the sound at its time
        first = round((piece.start - 100.0) * RATE)
        assert np.array_equal(piece.samples, sound[first : first + len(piece.samples)])
    # Together they are the stretches, but for parts at their ends in which there is nothing but noise.
    assert all(any(a - 1e-6 <= p.start < p.end <= b + 1e-6 for a, b in found) for p in pieces)
    for a, b in SPOKEN:
        a, b = a + 100.0 + seed, b + 100.0 + seed
        assert sum(max(min(b, p.end) - max(a, p.start), 0.0) for p in pieces) > b - a - 0.3


@settings(max_examples=20)
@given(st.integers(1, 700), st.integers(1, 5), st.integers(0, 100))
def test_floor_and_averages_are_those_of_plain_loops(count, bands, seed):
    level = np.random.default_rng(seed).normal(size=(count, bands))
    floor = activity._floor(level)
    for t in {0, count // 2, count - 1}:
        block = t // 25
        near = level[max(block - 20, 0) * 25 : (block + 21) * 25]
        assert np.allclose(floor[t], near.min(axis=0) + 2.5)
        assert np.allclose(activity._mean_around(level, 10)[t], level[max(t - 5, 0) : t + 5].mean(axis=0))
        assert activity._largest_around(level[:, 0], 7)[t] == level[max(t - 7, 0) : t + 8, 0].max()


@settings(max_examples=6)
@given(st.integers(50, 450), st.integers(0, 100))
def test_rhythm_is_the_sum_of_its_definition(count, seed):
    power = np.random.default_rng(seed).uniform(size=(count, 2))
    padded = np.vstack([power, np.zeros((max(200 - count, 0), 2))])
    total, windows = np.zeros(len(padded)), np.zeros(len(padded))
    for start in sorted({*range(0, len(padded) - 200, 50), len(padded) - 200}):
        part = padded[start : start + 200] * np.hanning(200)[:, None]
        mean = part.sum(axis=0)
        at = np.arange(200)
        waves = [np.abs((part * np.exp(-2j * np.pi * hertz * at / 100)[:, None]).sum(axis=0)) for hertz in HERTZ]
        share = np.sqrt((np.array(waves) ** 2).sum(axis=0)) / mean
        total[start : start + 200] += (np.sqrt(mean) * share).sum() / np.sqrt(mean).sum()
        windows[start : start + 200] += 1
    assert np.allclose(activity._rhythm(power), (total / windows)[:count])


def test_long_stretches_are_cut_where_they_are_quiet():
    talk = scene(1.0, syllables(4.0), 0.3, syllables(4.0, 1), 1.0)
    pieces = list(voiced(talk, longest=6.0))
    assert len(pieces) == 2
    assert 5.0 < pieces[0].end < 5.3
    assert pieces[0].end == pytest.approx(pieces[1].start)


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


def test_other_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"rate must be in 8000..48000 samples a second, got 96000"):
        voice_activity(np.zeros(100), 96_000)
    with pytest.raises(ValueError, match=r"longest must be at least 1 second, got 0.5"):
        list(voiced(np.zeros(100), longest=0.5))


@pytest.mark.parametrize(
    ("name", "speech", "share"),
    [
        ("speech_and_silence.mp4", (1.2, 17.4), 0.9),
        ("jfk.flac", (0.3, 10.5), 0.9),
        ("nasa_13013.mp4", (0.6, 12.0), 0.9),
        ("chaplin.mp4", (0.0, 9.6), 0.0),  # music alone
    ],
)
def test_real_clips(shared, name, speech, share):
    found = voice_activity(read_sound(shared / "media" / name))
    covered = sum(max(min(b, speech[1]) - max(a, speech[0]), 0) for a, b in found) / (speech[1] - speech[0])
    assert covered >= share
    assert sum(b - a for a, b in found) <= (covered * (speech[1] - speech[0]) + 3.0 if share else 1.0)
