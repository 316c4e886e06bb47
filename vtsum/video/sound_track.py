"""One track of sound of a cut: read from the source, faded at cuts, encoded as AAC."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.packet import Packet

from vtsum.video.sound import SoundCursor

_HELD = 0.05  # seconds of sound kept back, or as long as a fade is, so that the end of a segment can be faded
_AAC_FRAME = 1024


class SoundTrack:
    """Writes a track of an MP4. Times are seconds of the output.

    Args:
        container: the MP4. sound (SoundCursor): where it comes from. fade (float): seconds at each cut, against clicks.
        mux: takes each packet.
    """

    def __init__(
        self, container: OutputContainer, sound: SoundCursor, fade: float, mux: Callable[[Packet], None]
    ) -> None:
        self._sound, self._mux = sound, mux
        self._fade = round(fade * sound.rate)
        self._keep = max(round(_HELD * sound.rate), self._fade)
        self._stream = container.add_stream("aac", rate=sound.rate, layout=sound.layout)
        self._stream.codec_context.bit_rate = 128_000 if sound.channels == 2 else 80_000
        self._stream.metadata.update(sound.named)
        self._samples = 0
        self._held: np.ndarray | None = None
        self._fade_in = False
        self._gain = np.float32(1.0)
        self._queue: list[np.ndarray] = []
        self._queued = self._sent = 0

    def begin(self, source_time: float, joined: bool, gain: float) -> None:
        """Go on at `source_time` of the source, so many times as loud; joined: where the last segment ended."""
        self._flush_held(fade=not joined)
        self._sound.begin(source_time)
        self._fade_in, self._gain = not joined, np.float32(gain)

    def until(self, time: float) -> None:
        """Write the sound that belongs to the pictures so far."""
        count = round(time * self._sound.rate) - self._samples
        if count <= 0:
            return
        samples = self._sound.read(count)
        if self._gain != 1:
            samples *= self._gain
        self._samples += count
        if self._fade_in:
            fade = min(count, self._fade)
            samples[:, :fade] *= np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
            self._fade_in = False
        if self._held is not None:
            samples = np.concatenate([self._held, samples], axis=1)
        keep = min(samples.shape[1], self._keep)
        self._held = samples[:, samples.shape[1] - keep :]
        self._push(samples[:, : samples.shape[1] - keep])

    def finish(self) -> None:
        """Write what is left."""
        self._flush_held(fade=True)
        self._push(np.zeros((self._sound.channels, 0), np.float32), last=True)
        self._encode(None)

    def _flush_held(self, fade: bool) -> None:
        if self._held is None:
            return
        if fade:
            count = min(self._held.shape[1], self._fade)
            if count:
                self._held[:, -count:] *= np.linspace(1, 0, count, dtype=np.float32)
        self._push(self._held)
        self._held = None

    def _push(self, samples: np.ndarray, last: bool = False) -> None:
        """Hand samples to the AAC encoder in frames of its own size; the last one may be shorter."""
        if samples.shape[1]:
            self._queue.append(samples)
            self._queued += samples.shape[1]
        if self._queued < _AAC_FRAME and not last:
            return
        block = np.concatenate([np.zeros((self._sound.channels, 0), np.float32), *self._queue], axis=1)
        while block.shape[1] >= _AAC_FRAME or (last and block.shape[1]):
            part, block = block[:, :_AAC_FRAME], block[:, _AAC_FRAME:]
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=self._sound.layout)
            frame.sample_rate = self._sound.rate
            frame.pts, frame.time_base = self._sent, Fraction(1, self._sound.rate)
            self._sent += part.shape[1]
            self._encode(frame)
        self._queue, self._queued = [block], block.shape[1]

    def _encode(self, frame: AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._mux(packet)
