"""The writing half of a cut: an MP4 of H.264 and AAC, pictures and sound on one clock."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from vtsum.errors import VTSumError
from vtsum.video.picture import Pictures, Turn
from vtsum.video.sound import SoundCursor

_TICKS = 90_000  # a second; frame times of 24, 25, 30, 50, 60 and 29.97 fps are whole numbers of it
_MIN_GAP = 1 / 60.5  # seconds between pictures: sources above 60 a second are thinned
_FADE = 0.005  # seconds of fade at a cut, against clicks
_HELD = 0.05  # seconds of sound kept back so that the end of a segment can be faded
_AAC_FRAME = 1024
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


class Encoder:
    """Encodes and muxes. Times are seconds of the output.

    Args:
        path (Path): the file. size: width and height, even. turn (Turn): how pictures are made upright.
        rate (Fraction): nominal frame rate. sample (VideoFrame): a picture of the source, for its colours.
        sound (SoundCursor | None): where sound comes from. shape, aspect: of `Pictures`.
            steady (bool): pictures follow each other at one rate.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        turn: Turn,
        rate: Fraction,
        sample: VideoFrame,
        sound: SoundCursor | None,
        crf: int,
        preset: str,
        *,
        shape: tuple[int, int],
        aspect: Fraction | None,
        steady: bool,
    ) -> None:
        self._pictures = Pictures(size, turn, shape=shape, aspect=aspect, threads=0)
        self._sound = sound
        self._pending: VideoFrame | None = None
        self._last_time = -1.0
        self._passed: tuple[VideoFrame, float] | None = None  # a picture that came too early
        self._key = True
        self._durations: dict[int, int] = {}
        self._samples = 0
        self._held: np.ndarray | None = None
        self._fade_in = False
        self._queue: list[np.ndarray] = []
        self._queued = self._sent = 0
        self.last_picture = self._pictures.yuv(sample)
        self._container = av.open(os.fspath(path), mode="w", format="mp4", options={"movflags": "+faststart"})
        try:
            self._video = self._container.add_stream("libx264", rate=rate)
            context = self._video.codec_context
            context.width, context.height = size
            context.pix_fmt = "yuv420p"
            context.time_base = Fraction(1, _TICKS)
            context.gop_size = max(12, round(float(rate) * 5))
            # Macroblock-tree rate control costs the quickest presets little and halves their files.
            context.options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=1:rc-lookahead=10"}
            if not steady:  # an MP4 whose pictures are decoded out of order is as long as its decoding takes
                context.options["bf"] = "0"
            context.color_range = int(ColorRange.MPEG)
            context.colorspace = self.last_picture.colorspace
            context.color_primaries = self.last_picture.color_primaries
            context.color_trc = self.last_picture.color_trc
            if sound is not None:
                self._audio = self._container.add_stream("aac", rate=sound.rate, layout=sound.layout)
                self._audio.codec_context.bit_rate = 128_000 if sound.channels == 2 else 80_000
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            self._container.close()
            if isinstance(error, OSError):
                raise
            if preset not in PRESETS:
                raise VTSumError(f"cut: preset must be one of {', '.join(PRESETS)}, got {preset!r}") from None
            raise VTSumError(f"cut: pictures of {size[0]} x {size[1]} cannot be encoded: {error}") from None

    def begin_segment(self, source_time: float, out_time: float, joined: bool) -> None:
        """Start a segment that lies at `source_time` in the source; joined: it goes on where the last one ended."""
        self._key = True
        self._flush_held(fade=not joined)
        if self._sound is not None:
            self._sound.begin(source_time)
            self._fade_in = not joined

    def picture(self, frame: VideoFrame, time: float) -> None:
        """Show a picture of the source from `time` on, but for one that comes too soon and does not stay."""
        self._show_passed(time)
        if time - self._last_time < _MIN_GAP and not self._key:
            self._passed = frame, time
            return
        self._show(frame, time)

    def _show_passed(self, until: float) -> None:
        """Show the picture that came too early, where it stays."""
        if self._passed is None:
            return
        frame, time = self._passed
        self._passed = None
        time = max(time, self._last_time + _MIN_GAP)
        if until - time >= _MIN_GAP:
            self._show(frame, time)

    def _show(self, frame: VideoFrame, time: float) -> None:
        self.last_picture = self._pictures.yuv(frame)
        ticks = round(time * _TICKS)
        self._send_pending(ticks)
        picture = self.last_picture
        picture.pts, picture.time_base = ticks, Fraction(1, _TICKS)
        picture.pict_type = int(PictureType.I if self._key else PictureType.NONE)
        self._pending, self._last_time, self._key = picture, time, False

    def sound_until(self, time: float) -> None:
        """Write the sound that belongs to the pictures so far."""
        if self._sound is None:
            return
        count = round(time * self._sound.rate) - self._samples
        if count <= 0:
            return
        samples = self._sound.read(count)
        self._samples += count
        if self._fade_in:
            fade = min(count, round(_FADE * self._sound.rate))
            samples[:, :fade] *= np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
            self._fade_in = False
        if self._held is not None:
            samples = np.concatenate([self._held, samples], axis=1)
        keep = min(samples.shape[1], round(_HELD * self._sound.rate))
        self._held = samples[:, samples.shape[1] - keep :]
        self._push(samples[:, : samples.shape[1] - keep])

    def end_segment(self, time: float) -> None:
        """Complete the segment's pictures and its sound, so that they end together."""
        self._show_passed(time)
        self.sound_until(time)

    def finish(self, time: float) -> None:
        """Write what is left and complete the file, which lasts until `time`."""
        self._flush_held(fade=True)
        self._send_pending(round(time * _TICKS))
        self._mux(self._video.codec_context.encode(None))
        if self._sound is not None:
            self._push(np.zeros((self._sound.channels, 0), np.float32), last=True)
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Close the file as it is; it will be removed."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _send_pending(self, until: int) -> None:
        if self._pending is None:
            return
        duration = max(1, until - (self._pending.pts or 0))
        self._pending.duration = duration
        self._durations[self._pending.pts or 0] = duration
        self._mux(self._video.codec_context.encode(self._pending))
        self._pending = None

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.stream = self._video
            packet.duration = self._durations.pop(packet.pts or 0, packet.duration or 0)
            self._container.mux(packet)

    def _flush_held(self, fade: bool) -> None:
        if self._held is None or self._sound is None:
            return
        if fade:
            count = min(self._held.shape[1], round(_FADE * self._sound.rate))
            if count:
                self._held[:, -count:] *= np.linspace(1, 0, count, dtype=np.float32)
        self._push(self._held)
        self._held = None

    def _push(self, samples: np.ndarray, last: bool = False) -> None:
        """Hand samples to the AAC encoder in frames of its own size; the last one may be shorter."""
        assert self._sound is not None
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
            self._container.mux(self._audio.encode(frame))
        self._queue, self._queued = [block], block.shape[1]
