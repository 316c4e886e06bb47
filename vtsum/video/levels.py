"""How loud pieces of a video's sound are, and by how much each is to be louder or softer for all to be alike.

Loudness is that of EBU R 128: the mean square of K-weighted blocks of 0.4 s, every 0.1 s, without those below -70 LUFS
and those 10 LU below the mean of the others.

Source: ITU-R BS.1770-4; EBU R 128; the filter's analogue form after Brecht De Man, "Evaluation of implementations of
the EBU R128 loudness measurement", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from vtsum.video.sound import SoundCursor

LOUDEST, SOFTEST = -5.0, -70.0  # LUFS that may be asked for
_MOST = 20.0  # dB by which a piece is made louder, at most: noise is not made speech
_PEAK = 10 ** (-1.5 / 20)  # of full scale, which no sample exceeds that did not before
_STEP = 0.1  # seconds between blocks
_PORTION = 100  # steps that are weighed at once
_WARM = 10  # steps before them, in which the filter settles


def gains(sound: SoundCursor, segments: Sequence[tuple[float, float]], target: float) -> tuple[list[float], list[int]]:
    """Factors that bring segments to `target` LUFS, and which of them would need more than they can be given.

    Segments that touch are one. What is silent stays as it is.

    Args:
        sound: read from front to back. segments: (start, end) in seconds, in order.
    """
    runs: list[list[int]] = []
    for i, (start, _) in enumerate(segments):
        if runs and abs(start - segments[runs[-1][-1]][1]) < 1e-3:
            runs[-1].append(i)
        else:
            runs.append([i])
    factors, short = [1.0] * len(segments), []
    for run in runs:
        start, end = segments[run[0]][0], segments[run[-1]][1]
        sound.begin(start)
        step = round(_STEP * sound.rate)
        count = max(round((end - start) * sound.rate), 1)
        sizes = [min(step, count - at) for at in range(0, count, step)]
        level, peak = measured((sound.read(size) for size in sizes), sound.rate)
        if level == -math.inf:
            continue
        most = min(_MOST, 20 * math.log10(_PEAK / peak)) if peak > 0 else _MOST
        gain = min(target - level, max(most, 0.0))
        if gain < target - level - 0.5:
            short += run
        for i in run:
            factors[i] = 10 ** (gain / 20)
    return factors, short


def measured(blocks: Iterable[np.ndarray], rate: int) -> tuple[float, float]:
    """The integrated loudness in LUFS (-inf: silence) and the largest sample of sound in blocks of 0.1 s.

    Args:
        blocks: float [channels, rate / 10] each, the last one may be shorter; left and right, or one.
    """
    step, peak = round(_STEP * rate), 0.0
    energies: list[float] = []
    portion: list[np.ndarray] = []
    before: np.ndarray | None = None
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        portion.append(block)
        if len(portion) == _PORTION:
            before = _weigh(portion, before, rate, step, energies)
            portion = []
    if portion:
        _weigh(portion, before, rate, step, energies)
    whole = np.array(energies)
    windows = np.convolve(whole, np.full(4, 0.25), "valid") if len(whole) >= 4 else whole[:1] * 0 + whole.mean()
    return _gated(windows), peak


def _weigh(
    portion: list[np.ndarray], before: np.ndarray | None, rate: int, step: int, energies: list[float]
) -> np.ndarray:
    """Add the mean squares of a portion's blocks, the channels' sum; returns the end of its sound."""
    new = np.concatenate(portion, axis=1)
    lead = np.zeros((new.shape[0], _WARM * step), np.float32) if before is None else before
    joined = np.concatenate([lead, new], axis=1)
    # Twice as long: what the transform carries from the end to the front falls into silence.
    size = 2 * joined.shape[1]
    spectrum = np.fft.rfft(joined, size) * _k_weighting(size, rate)
    weighted = np.fft.irfft(spectrum, size)[:, lead.shape[1] : joined.shape[1]]
    square = (weighted**2).sum(axis=0)
    energies += [float(part.mean()) for part in np.split(square, range(step, len(square), step)) if len(part)]
    return joined[:, max(joined.shape[1] - _WARM * step, 0) :]


def _k_weighting(size: int, rate: int) -> np.ndarray:
    """The filter's response at the frequencies of a transform of `size` samples."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    return _shelf(z, rate) * _high_pass(z, rate)


def _shelf(z: np.ndarray, rate: int) -> np.ndarray:
    q, gain = 0.7071752369554196, 3.999843853973347
    k = math.tan(math.pi * 1681.974450955533 / rate)
    high = 10 ** (gain / 20)
    band = high**0.4996667741545416
    top = (high + band * k / q + k * k) + 2 * (k * k - high) * z + (high - band * k / q + k * k) * z**2
    return np.asarray(top / _poles(z, k, q))


def _high_pass(z: np.ndarray, rate: int) -> np.ndarray:
    q = 0.5003270373238773
    k = math.tan(math.pi * 38.13547087602444 / rate)
    return np.asarray((1 - 2 * z + z**2) * (1 + k / q + k * k) / _poles(z, k, q))


def _poles(z: np.ndarray, k: float, q: float) -> np.ndarray:
    return np.asarray((1 + k / q + k * k) + 2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2)


def _gated(energies: np.ndarray) -> float:
    loud = energies[_lufs(energies) > SOFTEST]
    if not len(loud):
        return -math.inf
    loud = loud[_lufs(loud) > float(_lufs(loud.mean())) - 10]
    return float(_lufs(loud.mean()))


def _lufs(energy: np.ndarray) -> np.ndarray:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(energy, 1e-12)))
