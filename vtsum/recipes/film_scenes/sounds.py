"""The film's sound: quiet chords and plucked notes, and what each scene sounds like. All synthesised, mono."""

from __future__ import annotations

import math

import numpy as np

from vtsum.recipes.procedural import SOUND_RATE

_PLUCKS = (0, 4, 7, 11, 12, 7, 4, 9)  # semitones over the chord's root, in scale


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE


def _noise(seconds: float, low: float, high: float, seed: int) -> np.ndarray:
    """Noise between two frequencies, of unit variance."""
    count = round(seconds * SOUND_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    pitch = np.fft.rfftfreq(count, 1 / SOUND_RATE)
    spectrum *= 1 / (1 + (pitch / high) ** 4) * (1 - 1 / (1 + (pitch / low) ** 4))
    wave = np.fft.irfft(spectrum, count)
    return np.asarray(wave / max(float(wave.std()), 1e-9))


def _add(sound: np.ndarray, at: float, wave: np.ndarray) -> None:
    first = round(at * SOUND_RATE)
    if first < 0:
        wave, first = wave[-first:], 0
    count = min(len(wave), len(sound) - first)
    if count > 0:
        sound[first : first + count] += wave[:count]


def music(seconds: float, roots: tuple[int, ...], pace: float, seed: int) -> np.ndarray:
    """Return chords that swell on the given roots (semitones from A3), four seconds each, with plucked notes."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * SOUND_RATE))
    for bar in range(math.ceil(seconds / 4)):
        root = 220 * 2 ** (roots[bar % len(roots)] / 12)
        time = _time(4.8)
        swell = np.sin(np.pi * np.clip(time / 4.8, 0, 1)) ** 0.7
        chord = sum(
            np.sin(2 * np.pi * root * 2 ** (step / 12) * time + rng.uniform(0, 6)) / (1 + abs(step) / 12)
            for step in (-12, 0, 4, 7)
        )
        _add(out, bar * 4 - 0.4, 0.02 * np.asarray(chord) * swell)
        for beat in range(round(4 * pace)):
            if rng.random() < 0.7:
                pitch = root * 2 ** (1 + _PLUCKS[rng.integers(len(_PLUCKS))] / 12)
                note = _time(1.6)
                tone = np.sin(2 * np.pi * pitch * note) + 0.35 * np.sin(4 * np.pi * pitch * note) * np.exp(-6 * note)
                _add(out, bar * 4 + beat / pace, 0.045 * tone * np.exp(-3.2 * note) * np.minimum(1, note * 400))
    return out


def surf(seconds: float) -> np.ndarray:
    """Waves on a shore."""
    time = _time(seconds)
    return 0.016 * _noise(seconds, 150, 900, 1) * (0.45 + 0.55 * np.sin(2 * np.pi * time / 5.3) ** 2)


def gulls(seconds: float, start: float, seed: int) -> np.ndarray:
    """Cries that fall in pitch, from `start` on."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * SOUND_RATE))
    at = start
    while at < seconds - 1:
        for cry in range(int(rng.integers(2, 5))):
            time = _time(0.22)
            pitch = rng.uniform(1300, 1700) * (1 - 0.9 * time)
            phase = 2 * np.pi * np.cumsum(pitch) / SOUND_RATE
            _add(out, at + cry * 0.27, 0.022 * (np.sin(phase) + 0.4 * np.sin(2 * phase)) * np.sin(np.pi * time / 0.22))
        at += rng.uniform(1.4, 2.6)
    return out


def train(seconds: float, start: float, end: float) -> np.ndarray:
    """Puffs that come near and go, and a whistle."""
    out = np.zeros(round(seconds * SOUND_RATE))
    puff = _noise(0.22, 120, 1400, 5) * np.exp(-_time(0.22) * 16)
    for number in range(int((end - start) / 0.24)):
        at = start + number * 0.24
        near = math.sin(math.pi * (at - start) / (end - start))
        _add(out, at, 0.05 * near * (1.3 if number % 4 == 0 else 0.8) * puff)
    for at, length in ((start + 0.8, 0.35), (start + 1.3, 0.9)):
        time = _time(length)
        tone = sum(np.sin(2 * np.pi * pitch * time) for pitch in (590, 745, 890))
        _add(out, at, 0.016 * np.asarray(tone) * np.minimum(1, np.minimum(time * 20, (length - time) * 12)))
    return out


def rain(seconds: float) -> np.ndarray:
    """Steady rain with single drops."""
    out = 0.014 * _noise(seconds, 700, 6000, 9)
    rng = np.random.default_rng(10)
    for _ in range(int(seconds * 9)):
        time = _time(0.03)
        drop = np.sin(2 * np.pi * rng.uniform(1500, 3500) * time) * np.exp(-time * 160)
        _add(out, rng.uniform(0, seconds), rng.uniform(0.004, 0.018) * drop)
    return out


def bell(seconds: float, times: tuple[float, ...]) -> np.ndarray:
    """The tram's bell."""
    out = np.zeros(round(seconds * SOUND_RATE))
    time = _time(0.8)
    ring = sum(
        np.sin(2 * np.pi * pitch * time) * np.exp(-decay * time) for pitch, decay in ((1320, 6), (2110, 8), (3170, 12))
    )
    for at in times:
        _add(out, at, 0.03 * np.asarray(ring))
    return out


def wind(seconds: float) -> np.ndarray:
    """Wind over the hills."""
    time = _time(seconds)
    return 0.009 * _noise(seconds, 120, 500, 13) * (0.6 + 0.4 * np.sin(2 * np.pi * time / 6.1))


def burners(seconds: float, times: tuple[float, ...]) -> np.ndarray:
    """The balloons' burners."""
    out = np.zeros(round(seconds * SOUND_RATE))
    for number, at in enumerate(times):
        time = _time(1.3)
        _add(out, at, 0.024 * _noise(1.3, 200, 1800, 20 + number) * np.sin(np.pi * time / 1.3) ** 0.5)
    return out


def bangs(seconds: float, launches: tuple[float, ...]) -> np.ndarray:
    """Fireworks: a whistle up, a bang 0.7 s later, a crackle after it."""
    out = np.zeros(round(seconds * SOUND_RATE))
    for number, at in enumerate(launches):
        time = _time(0.6)
        _add(out, at, 0.007 * np.sin(2 * np.pi * (900 * time + 900 * time**2)) * np.sin(np.pi * time / 0.6))
        time = _time(1.2)
        _add(out, at + 0.7, 0.14 * _noise(1.2, 40, 420, 40 + number) * np.exp(-time * 6))
        crackle = _noise(1.2, 1500, 6000, 60 + number) * (np.random.default_rng(number).random(len(time)) < 0.004)
        _add(out, at + 1.0, 0.12 * np.convolve(crackle, np.exp(-_time(0.01) * 500), "same") * np.exp(-time * 2))
    return out
