"""How loud pieces of a video's sound are, and by how much each is to be louder or softer for all to be alike.

Loudness is that of EBU R 128, as libav's `ebur128` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph

from vtsum.video.sound import SoundCursor
from vtsum.video.timeline import touching

LOUDEST, SOFTEST = -5.0, -70.0  # LUFS that may be asked for
_MOST = 20.0  # dB by which a piece is made louder, at most: noise is not made speech
_PEAK = 10 ** (-1.5 / 20)  # of full scale, which no sample exceeds that did not before
_BLOCK = 0.1  # seconds that are handed on at once
_WINDOW = 0.4  # seconds; of less no loudness is defined
_SILENT = -70.0  # LUFS, which the meter says of silence


def gains(sound: SoundCursor, segments: Sequence[tuple[float, float]], target: float) -> tuple[list[float], list[int]]:
    """Factors that bring segments to `target` LUFS, and which of them would need more than they can be given.

    Segments that touch are one. What is silent stays as it is.

    Args:
        sound: read from front to back. segments: (start, end) in seconds, in order.
    """
    factors, short = [1.0] * len(segments), []
    for run in touching(segments):
        start, end = segments[run[0]][0], segments[run[-1]][1]
        sound.begin(start)
        step = round(_BLOCK * sound.rate)
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
    """The integrated loudness in LUFS (-inf: silence) and the largest sample of sound.

    Args:
        blocks: float [channels, n] each, n above 0, one after the other; left and right, or one. rate: samples a
            second.
    """
    meter: _Meter | None = None
    peak = 0.0
    short: list[np.ndarray] = []  # all there is, as long as it is shorter than a window
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        meter = meter or _Meter(block.shape[0], rate)
        meter.hear(block)
        if meter.heard < _WINDOW * rate:
            short.append(block.copy())
    while meter is not None and 0 < meter.heard < _WINDOW * rate:  # it is heard again until it fills one
        for block in short:
            meter.hear(block)
    return (-math.inf, peak) if meter is None or meter.level <= _SILENT else (meter.level, peak)


class _Meter:
    """libav's meter. `heard` counts samples, `level` is the integrated loudness so far in LUFS."""

    def __init__(self, channels: int, rate: int) -> None:
        self._rate, self._layout = rate, "mono" if channels == 1 else "stereo"
        self.heard, self.level = 0, _SILENT
        graph = Graph()
        self._source = graph.add_abuffer(
            sample_rate=rate, format="fltp", layout=self._layout, time_base=Fraction(1, rate)
        )
        meter = graph.add("ebur128", "metadata=1:framelog=quiet")
        self._sink = graph.add("abuffersink")
        self._source.link_to(meter)
        meter.link_to(self._sink)
        graph.configure()
        self._graph = graph  # which the filters need

    def hear(self, block: np.ndarray) -> None:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self.heard, Fraction(1, self._rate)
        self.heard += block.shape[1]
        self._source.push(frame)
        while True:
            try:
                told = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self.level = float(told.metadata.get("lavfi.r128.I", self.level))
