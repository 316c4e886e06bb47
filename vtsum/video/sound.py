"""A file's sound as samples that can be asked for by time: gaps filled, drift put right, one rate and layout."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator

import av
import numpy as np
from av.audio.stream import AudioStream

from vtsum.shown import one_line
from vtsum.video.clock import together
from vtsum.video.damage import Damage
from vtsum.video.samples import samples_of
from vtsum.video.source import choose_audio, discard_others, open_container
from vtsum.video.timeline import time_base

_LEAD = (0.5, 5.0, 60.0)  # seconds decoded before a cut, so that the codec has settled; more where a seek lands late


class SoundCursor:
    """Reads a file's sound from any time on, on the clock of its pictures.

    Args:
        path: the file. video_index (int): the stream whose sound is wanted. origin (float): raw seconds of the
            pictures' time 0. seekable (bool): False reads the file once, from front to back. index (int | None): of
            another stream of sound than the best one.
    Attributes:
        available (bool): there is sound that can be decoded; everything else needs that.
        index (int): of the stream. named: language and title, for the metadata of a track of it.
        rate (int): 44100 or 48000. channels (int): 1 or 2. layout (str): "mono" or "stereo".
        damage (Damage): where sound could not be decoded, since a seek from its target on.
    """

    def __init__(
        self, path: str | os.PathLike[str], video_index: int, origin: float, *, seekable: bool, index: int | None = None
    ) -> None:
        self._path = path
        self._index = index
        self._video_index = video_index
        self.damage = Damage()
        stream = self._open()
        self.available = stream is not None
        if stream is None:
            return
        context = stream.codec_context
        names = (("language", "language"), ("handler_name", "title"))
        self.named = {name: told for name, own in names if (told := one_line(stream.metadata.get(own) or ""))}
        self.index = stream.index
        self._origin = origin
        self._seekable = seekable
        self.rate = context.sample_rate if context.sample_rate in (44100, 48000) else 48000
        self.channels = 1 if context.layout.nb_channels == 1 else 2
        self.layout = "mono" if self.channels == 1 else "stereo"
        self._base = 0.0  # the time from which the samples of `_source` are counted
        self._source: Iterator[tuple[int, np.ndarray]] | None = None
        self._chunks: deque[tuple[int, np.ndarray]] = deque()
        self._at = 0  # the next sample to hand out

    def _open(self) -> AudioStream | None:
        self._container = open_container(self._path, "cut")
        video = next((s for s in self._container.streams.video if s.index == self._video_index), None)
        stream = choose_audio(self._container, video)
        if self._index is not None:
            stream = next((s for s in self._container.streams.audio if s.index == self._index), None)
        if stream is not None:
            streams = together(self._container, video, stream)
            self._stream, self._streams = stream, streams if stream in streams else [*streams, stream]
            discard_others(self._container, self._streams)
        return stream

    def close(self) -> None:
        self._container.close()

    def begin(self, start: float) -> None:
        """Let the next sample be the one at `start` seconds; times never go back."""
        if self._source is None and not self._seekable:
            self._source = self._decode(0.0)
        target = round((start - self._base) * self.rate)
        if self._source is not None and (not self._seekable or abs(target - self._at) <= 1):
            self._at = max(self._at, target)
            return
        self._base, self._at = start, 0
        for lead in _LEAD:
            self._seek(start - lead)
            self._source = self._decode(start)
            self._chunks = deque([chunk for chunk in [next(self._source, None)] if chunk is not None])
            if not self._chunks or self._chunks[0][0] <= 0 or start - lead <= 0:
                return

    def _seek(self, time: float) -> None:
        """Go to a time; to the front where it lies before that, or the seek fails, which may leave libav anywhere."""
        if time > 0:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError, OverflowError):
                self._container.seek(int((time + self._origin) / time_base(self._stream)), stream=self._stream)
                return
        self._container.close()
        self._open()

    def read(self, count: int) -> np.ndarray:
        """Return the next `count` samples, float32 [channels, count]; silence where the file has none."""
        out = np.zeros((self.channels, count), np.float32)
        start, stop = self._at, self._at + count
        while self._source is not None:
            if not self._chunks:
                chunk = next(self._source, None)
                if chunk is None:
                    break
                self._chunks.append(chunk)
            at, samples = self._chunks[0]
            end = at + samples.shape[1]
            if at >= stop:
                break
            first, last = max(at, start), min(end, stop)
            if last > first:
                out[:, first - start : last - start] = samples[:, first - at : last - at]
            if end > stop:
                break
            self._chunks.popleft()
        self._at = stop
        return out

    def _decode(self, base: float) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the first sample, counted from `base` seconds, float32 [channels, n])."""
        return samples_of(
            self._container,
            self._streams,
            self._stream,
            origin=self._origin,
            rate=self.rate,
            damage=self.damage,
            layout=self.layout,
            base=base,
            sought=self._seekable,
        )
