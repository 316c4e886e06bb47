"""Voice activity: where in a sound somebody may be speaking.

Sound is looked at in frames of 32 ms, one every 10 ms, in 16 bands between 100 and 7000 Hz spaced as on the mel scale.

1. Noise. In each band, S(t, b) is the power averaged over 100 ms, in dB, and the floor N(t, b) its minimum over the
   10 s around t, plus the 2.5 dB by which the minimum of a steady noise lies under its mean. Speech leaves every band
   alone for a moment within seconds, so the floor follows the noise, not the voice.
2. Divergence. D(t) = mean_b max(S(t, b) - N(t, b), 0), in dB. A frame is active where D exceeds a quarter of its
   largest value within 2.5 s, but no less than 2 and no more than 8 dB: the cleaner the sound, the more is asked for.
3. Rhythm. Syllables follow each other about four times a second. Over windows of 2 s,
   M = sum_b w_b |modulation of band b's power above the floor at 3 to 8 Hz| / its mean, w_b ~ sqrt(its mean), is 0.7
   to 1.6 for speech, at 5 dB in noise too, and under 0.65 for sustained music; frames where the mean over the windows
   that hold them is under 0.68 are not speech.
4. Stretches. Gaps under 0.35 s are closed, stretches under 0.2 s dropped, as are those without a pitch between 70 and
   400 Hz (claps, steps); 0.15 s are added at both ends, as soft consonants lie under the threshold.

Steady noise and silence of any level give nothing. Percussion, animals and a crowd's babble can pass for speech: what
is said there is for the recogniser to judge.

Sources: 1 after Martin, "Noise power spectral density estimation based on optimal smoothing and minimum statistics",
2001; 2 after Ramirez et al., "Efficient voice activity detection algorithms using long-term speech information", 2004;
3 after Scheirer and Slaney, "Construction and evaluation of a robust multifeature speech/music discriminator", 1997.
The constants were set on espeak-ng narrations with noise and on a few real clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vtsum.enhance.speech.sound import RATE

HOP = 0.01  # seconds between frames
GAP, SHORTEST, PAD = 0.35, 0.2, 0.15  # seconds: gaps closed, stretches dropped, sound added at both ends
LONGEST = 12.0  # seconds of a stretch given to a recogniser
_WINDOW = 0.032
_BANDS = 16
_SMOOTH = 10  # frames
_BLOCK = 25  # frames whose minimum is taken at once
_CHUNK, _CONTEXT = 500, 500  # frames decided at once, and frames around them that are looked at
_BIAS = 2.5  # dB
_QUIET = 4e-8  # -74 dB below full scale: what is softer is no speech
_DIVERGENCE = (0.25, 2.0, 8.0)
_REACH = 250  # frames
_RHYTHM = 0.68
_RHYTHM_WINDOW, _RHYTHM_STEP = 200, 50  # frames
_PITCH = 0.6  # of the autocorrelation; white noise stays under 0.4
_PITCHED = 0.1  # share of a stretch's frames


@dataclass(frozen=True)
class Stretch:
    """Sound in which somebody may be speaking: its start in seconds, and float32 [n] at 16 kHz."""

    start: float
    samples: np.ndarray

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / RATE


def voice_activity(
    sound: np.ndarray | Iterable[tuple[float, np.ndarray]], rate: int = RATE
) -> list[tuple[float, float]]:
    """Where somebody may be speaking (how: see this module).

    Args:
        sound: float samples [n], full scale 1.0; or blocks (start in seconds, samples) that follow each other, as
            `read_sound` yields them. What comes out does not depend on how long the blocks are.
        rate (int): samples a second, 8000 to 48000.
    Returns:
        list[tuple[float, float]]: (start, end) in seconds, in order, apart from each other, within the sound; empty for
        silence, steady noise and sound shorter than 0.2 s.
    Raises:
        ValueError: samples that are not finite numbers in one dimension, blocks that leave a gap, a rate out of range.
    """
    return [(a, b) for a, b, _ in _activity(sound, rate, keep=False)]


def voiced(sound: np.ndarray | Iterable[tuple[float, np.ndarray]], longest: float = LONGEST) -> Iterator[Stretch]:
    """`voice_activity` as it goes along, with the sound: what a recogniser is given.

    Args:
        sound: as for `voice_activity`, at 16 kHz.
        longest (float): seconds, at least 1; longer stretches are cut where they are quietest in their second half.
    Yields:
        Stretch: in order. No more of the sound is held than the current stretch and some 15 s.
    Raises:
        ValueError: as `voice_activity`, or a `longest` out of range.
    """
    if not longest >= 1.0:
        raise ValueError(f"voiced: longest must be at least 1 second, got {longest}")
    for start, _, samples in _activity(sound, RATE, keep=True, longest=longest):
        yield Stretch(start, samples)


def _activity(
    sound: np.ndarray | Iterable[tuple[float, np.ndarray]], rate: int, *, keep: bool, longest: float = np.inf
) -> Iterator[tuple[float, float, np.ndarray]]:
    """(start, end, samples) of each stretch; empty arrays unless `keep`."""
    if not 8_000 <= rate <= 48_000:
        raise ValueError(f"voice_activity: rate must be in 8000..48000 samples a second, got {rate}")
    frames = _Frames(rate)
    origin = 0.0
    buffer, dropped = np.zeros(0, np.float32), 0  # the sound not handed out yet, and samples before it
    joiner = _Joiner(round(PAD / HOP), round(longest / HOP) if np.isfinite(longest) else None)

    def take(found: list[tuple[int, int]], total: int) -> Iterator[tuple[float, float, np.ndarray]]:
        nonlocal buffer, dropped
        for first, last in found:
            a, b = frames.sample(first), min(frames.sample(last), total)
            if b > a:
                yield origin + a / rate, origin + b / rate, buffer[a - dropped : b - dropped].copy()
        spare = frames.sample(joiner.needed_from) - dropped
        if spare > 0:
            buffer, dropped = buffer[spare:], dropped + spare

    total = 0
    for start, block in _as_blocks(sound, rate):
        if total == 0:
            origin = start
        total += len(block)
        if keep:
            buffer = np.concatenate([buffer, block])
        yield from take(joiner.push(*frames.push(block)), total)
    yield from take(joiner.push(*frames.finish()) + joiner.finish(), total)


def _as_blocks(sound: np.ndarray | Iterable[tuple[float, np.ndarray]], rate: int) -> Iterator[tuple[float, np.ndarray]]:
    if isinstance(sound, np.ndarray):
        sound = [(0.0, sound)]
    expected: float | None = None
    for start, samples in sound:
        block = np.asarray(samples)
        if block.ndim != 1 or block.dtype.kind != "f":
            raise ValueError(f"voice_activity: sound must be floating-point [n], got {block.dtype} {list(block.shape)}")
        if not np.isfinite(block).all():
            raise ValueError("voice_activity: sound must be finite, got NaN or infinity")
        if expected is not None and abs(start - expected) > HOP:
            raise ValueError(f"voice_activity: blocks must follow each other, got one at {start} s, not {expected} s")
        expected = start + len(block) / rate
        yield start, block.astype(np.float32, copy=False)


class _Frames:
    """From samples to decided frames: (activity bool [n], pitch bool [n], loudness float [n] in dB), in order."""

    def __init__(self, rate: int) -> None:
        self._hop = round(rate * HOP)
        self._size = round(rate * _WINDOW)
        self._fft = 2 << (self._size - 1).bit_length()
        self._window = np.hanning(self._size).astype(np.float32)
        top = min(7000.0, 0.45 * rate)
        mel = np.linspace(_mel(100.0), _mel(top), _BANDS + 1)
        self._edges = np.round(700 * (10 ** (mel / 2595) - 1) / rate * self._fft).astype(int)
        self._lags = np.arange(rate // 400, rate // 70 + 1)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(self._window, self._fft)) ** 2)
        self._lag_weight = correlation[self._lags] / correlation[0]
        self._pitch_bins = (round(60 / rate * self._fft), round(4000 / rate * self._fft))
        self._rest = np.zeros(0, np.float32)
        self._power = np.zeros((0, _BANDS))
        self._pitch = np.zeros(0)
        self._first = 0  # the frame of _power[0]
        self._decided = 0

    def sample(self, frame: int) -> int:
        """The sample at a frame's middle; the sound's first and no less for frames before it."""
        return max(frame * self._hop + self._size // 2, 0)

    def push(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._rest = np.concatenate([self._rest, block])
        self._analyse()
        return self._decide(final=False)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._decide(final=True)

    def _analyse(self) -> None:
        count = (len(self._rest) - self._size) // self._hop + 1
        if count <= 0:
            return
        frames = np.lib.stride_tricks.sliding_window_view(self._rest, self._size)[:: self._hop][:count]
        powers, pitches = [], []
        for at in range(0, count, 1000):
            spectrum = np.fft.rfft(frames[at : at + 1000] * self._window, self._fft)
            power = spectrum.real**2 + spectrum.imag**2
            sums = np.add.reduceat(power, self._edges[:-1], axis=1) / np.diff(self._edges)
            powers.append(sums / np.sum(self._window**2))
            power[:, : self._pitch_bins[0]] = 0
            power[:, self._pitch_bins[1] :] = 0
            correlation = np.fft.irfft(power)
            peak = (correlation[:, self._lags] / self._lag_weight).max(axis=1)
            pitches.append(peak / np.maximum(correlation[:, 0], 1e-9))
        self._power = np.concatenate([self._power, *powers])
        self._pitch = np.concatenate([self._pitch, *pitches])
        self._rest = self._rest[count * self._hop :].copy()

    def _decide(self, final: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = []
        stop = self._first + len(self._power)
        while self._decided < stop and (final or self._decided + _CHUNK + _CONTEXT <= stop):
            upto = min(self._decided + _CHUNK, stop)
            lo, hi = max(self._decided - _CONTEXT, 0), min(self._decided + _CHUNK + _CONTEXT, stop)
            power = self._power[lo - self._first : hi - self._first]
            inner = slice(self._decided - lo, upto - lo)
            active = _active(power)[inner]
            pitch = self._pitch[lo - self._first : hi - self._first][inner]
            out.append((active, pitch > _PITCH, 10 * np.log10(power[inner].sum(axis=1) + _QUIET)))
            self._decided = upto
        spare = max(self._decided - _CONTEXT, 0) - self._first
        if spare > 0:
            self._power, self._pitch = self._power[spare:], self._pitch[spare:]
            self._first += spare
        if not out:
            return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0)
        a, b, c = (np.concatenate(parts) for parts in zip(*out, strict=True))
        return a, b, c


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _active(power: np.ndarray) -> np.ndarray:
    """bool [n]: which frames of a window of band powers [n, bands] are speech, by divergence and rhythm."""
    level = 10 * np.log10(_mean_around(power, _SMOOTH) + _QUIET)
    floor = _floor(level)
    divergence = np.maximum(level - floor, 0).mean(axis=1)
    share, least, most = _DIVERGENCE
    active = divergence > np.clip(share * _largest_around(divergence, _REACH), least, most)
    if not active.any():
        return active
    above = np.maximum(_mean_around(power, 3) - 10 ** (floor / 10), 0)
    return active & (_rhythm(above) >= _RHYTHM)


def _floor(level: np.ndarray) -> np.ndarray:
    """dB [n, bands]: the noise under each frame: the least of the blocks' minima around it, and the bias."""
    starts = np.arange(0, len(level), _BLOCK)
    least = np.minimum.reduceat(level, starts, axis=0)
    reach = _CONTEXT // _BLOCK
    padded = np.pad(least, ((reach, reach), (0, 0)), constant_values=np.inf)
    least = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0).min(axis=-1)
    return np.repeat(least, _BLOCK, axis=0)[: len(level)] + _BIAS


def _rhythm(power: np.ndarray) -> np.ndarray:
    """[n]: M, averaged over the windows that hold the frame; 0 where nothing lies above the floor."""
    count = len(power)
    if count < _RHYTHM_WINDOW:
        power = np.pad(power, ((0, _RHYTHM_WINDOW - count), (0, 0)))
    starts = [*range(0, len(power) - _RHYTHM_WINDOW, _RHYTHM_STEP), len(power) - _RHYTHM_WINDOW]
    shape = np.hanning(_RHYTHM_WINDOW)[:, None]
    low, high = (round(f * _RHYTHM_WINDOW * HOP) for f in (3.0, 8.0))
    total, windows = np.zeros(len(power)), np.zeros(len(power))
    for start in starts:
        size = np.abs(np.fft.rfft(power[start : start + _RHYTHM_WINDOW] * shape, axis=0))
        mean = size[0]
        if (largest := mean.max()) <= 0:
            value = 0.0
        else:
            share = np.sqrt((size[low : high + 1] ** 2).sum(axis=0)) / np.maximum(mean, 1e-9 * largest)
            value = float(np.average(share, weights=np.sqrt(mean)))
        total[start : start + _RHYTHM_WINDOW] += value
        windows[start : start + _RHYTHM_WINDOW] += 1
    return (total / windows)[:count]


def _mean_around(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average along the first axis over `width` entries, fewer at the ends."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    at = np.arange(len(values))
    lo, hi = np.maximum(at - width // 2, 0), np.minimum(at - width // 2 + width, len(values))
    return (sums[hi] - sums[lo]) / (hi - lo)[:, None]


def _largest_around(values: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(values, reach, constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=-1)


class _Joiner:
    """From decided frames to stretches (first frame, last frame + 1), gaps closed, ends widened, long ones cut."""

    def __init__(self, pad: int, longest: int | None) -> None:
        self._pad = pad
        self._longest = None if longest is None else longest - 2 * pad
        self._at = 0
        self._begin: int | None = None
        self._is_cut = False  # the current stretch begins where the one before it was cut off
        self._accepted = False  # a part of the current stretch, before a cut, was speech
        self._last = 0  # the last active frame
        self._frames: list[tuple[bool, bool, float]] = []  # since _begin: active, with a pitch, loudness

    @property
    def needed_from(self) -> int:
        """The first frame whose sound may still be asked for."""
        return (self._at if self._begin is None else self._begin) - self._pad

    def push(self, active: np.ndarray, pitched: np.ndarray, loudness: np.ndarray) -> list[tuple[int, int]]:
        found = []
        for frame in zip(active.tolist(), pitched.tolist(), loudness.tolist(), strict=True):
            if frame[0]:
                if self._begin is None:
                    self._begin, self._is_cut, self._accepted = self._at, False, False
                self._last = self._at
            if self._begin is not None:
                self._frames.append(frame)
                if self._at - self._last >= round(GAP / HOP):
                    found += self._close()
                elif self._longest is not None and len(self._frames) >= self._longest:
                    found += self._cut()
            self._at += 1
        return found

    def finish(self) -> list[tuple[int, int]]:
        return [] if self._begin is None else self._close()

    def _close(self) -> list[tuple[int, int]]:
        assert self._begin is not None
        first = self._begin - (0 if self._is_cut else self._pad)
        spoken = self._is_speech(self._last + 1 - self._begin)
        self._begin, self._frames = None, []
        return [(first, self._last + 1 + self._pad)] if spoken else []

    def _cut(self) -> list[tuple[int, int]]:
        """Hand out what lies before the quietest tenth of a second in the second half of a long stretch."""
        assert self._begin is not None
        loudness = np.convolve([frame[2] for frame in self._frames], np.ones(10) / 10, "same")
        half = len(loudness) // 2
        length = half + int(np.argmin(loudness[half:-10]))
        first = self._begin - (0 if self._is_cut else self._pad)
        spoken = self._is_speech(length)
        self._begin, self._is_cut, self._frames = self._begin + length, True, self._frames[length:]
        return [(first, self._begin)] if spoken else []

    def _is_speech(self, length: int) -> bool:
        """Whether the first `length` frames are long enough and have enough of a pitch, or go on with what had."""
        pitches = [pitched for active, pitched, _ in self._frames[:length] if active]
        enough = length >= round(SHORTEST / HOP) and sum(pitches) >= _PITCHED * len(pitches)
        self._accepted = bool(pitches) and (enough or self._accepted)
        return self._accepted
