"""The writing half of a cut: an MP4 of H.264, or what else is asked for, and AAC, pictures and sound on one clock."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.video.coding import Coding, as_urgent_as_before
from vtsum.video.following import Window
from vtsum.video.picture import Pictures, Turn
from vtsum.video.sound import SoundCursor
from vtsum.video.sound_track import SoundTrack

_TICKS = 90_000  # a second; frame times of 24, 25, 30, 50, 60 and 29.97 fps are whole numbers of it
_MIN_GAP = 1 / 60.5  # seconds between pictures: sources above 60 a second are thinned
_BEHIND = 4  # calls that wait for the encoders, each with a picture at most


class _Behind:
    """Calls that a thread of its own makes, one after the other. What fails there is raised by a later call here."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: deque[Future[None]] = deque()

    def __call__(self, call: Callable[..., None], *arguments: object) -> None:
        self._waiting.append(self._thread.submit(call, *arguments))
        while len(self._waiting) > _BEHIND:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all of them."""
        while self._waiting:
            self._waiting.popleft().result()
        self._thread.shutdown()

    def abandon(self) -> None:
        """Drop those not begun, and wait for the one that is."""
        self._thread.shutdown(cancel_futures=True)


class Encoder:
    """Encodes and muxes, pictures and sound in a thread each, so that pictures are decoded meanwhile. What fails there
    is raised by a later call. Times are seconds of the output.

    Args:
        path (Path): the file. size: width and height, even. turn (Turn): how pictures are made upright.
        rate (Fraction): nominal frame rate. sample (VideoFrame): a picture of the source, for its colours.
        sounds: where the tracks of sound come from. coding: how it is encoded. shape, aspect: of `Pictures`.
            steady (bool): pictures follow each other at one rate. window: the part of them that is shown; None: all.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        turn: Turn,
        rate: Fraction,
        sample: VideoFrame,
        sounds: Sequence[SoundCursor],
        coding: Coding,
        *,
        shape: tuple[int, int],
        aspect: Fraction | None,
        steady: bool,
        window: Window | None = None,
    ) -> None:
        self._window = window
        self._shift = 0.0  # seconds from the output's clock to the source's
        self._pictures = Pictures(size if window is None else window.full, turn, shape=shape, aspect=aspect, threads=0)
        self._pending: VideoFrame | None = None
        self._last_time = -1.0
        self._passed: tuple[VideoFrame, float] | None = None  # a picture that came too early
        self._key = True
        self._durations: dict[int, int] = {}
        self.last_picture = self._yuv(sample, 0.0)
        self._container = av.open(os.fspath(path), mode="w", format="mp4", options={"movflags": "+faststart"})
        try:
            self._video: VideoStream = self._container.add_stream(coding.encoder, rate=rate)  # type: ignore[assignment]
            context = self._video.codec_context
            context.width, context.height = size
            context.pix_fmt = "yuv420p"
            context.time_base = Fraction(1, _TICKS)
            context.gop_size = max(12, round(float(rate) * 5))
            coding.set_up(self._video)
            context.thread_type = "FRAME"  # x264 makes the next pictures meanwhile, and needs no slices
            if not steady:  # an MP4 whose pictures are decoded out of order is as long as its decoding takes
                context.options = {**context.options, **coding.in_order}
            context.color_range = int(ColorRange.MPEG)
            context.colorspace = self.last_picture.colorspace
            context.color_primaries = self.last_picture.color_primaries
            context.color_trc = self.last_picture.color_trc
            self._muxing = threading.Lock()
            self._tracks = [SoundTrack(self._container, sound, coding.fade, self._mux) for sound in sounds]
            with as_urgent_as_before():
                self._container.start_encoding()
            self._seen, self._heard = _Behind("vtsum-encode"), _Behind("vtsum-encode-sound")
        except (av.FFmpegError, ValueError) as error:
            self._container.close()
            if isinstance(error, OSError):
                raise
            raise VTSumError(f"cut: pictures of {size[0]} x {size[1]} cannot be encoded: {error}") from None

    def _yuv(self, frame: VideoFrame, time: float) -> VideoFrame:
        picture = self._pictures.yuv(frame)
        return picture if self._window is None else self._window.cut_out(picture, time + self._shift)

    def begin_segment(self, source_time: float, out_time: float, joined: bool, gain: float = 1.0) -> None:
        """Start a segment that lies at `source_time` in the source and `out_time` in the output, its sound `gain` times
        as loud; joined: it goes on where the last one ended."""
        self._key, self._shift = True, source_time - out_time
        for track in self._tracks:
            self._heard(track.begin, source_time, joined, gain)

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
        self.last_picture = self._yuv(frame, time)
        ticks = round(time * _TICKS)
        self._send_pending(ticks)
        picture = self.last_picture
        picture.pts, picture.time_base = ticks, Fraction(1, _TICKS)
        picture.pict_type = int(PictureType.I if self._key else PictureType.NONE)
        self._pending, self._last_time, self._key = picture, time, False

    def sound_until(self, time: float) -> None:
        """Write the sound that belongs to the pictures so far."""
        for track in self._tracks:
            self._heard(track.until, time)

    def end_segment(self, time: float) -> None:
        """Complete the segment's pictures and its sound, so that they end together."""
        self._show_passed(time)
        self.sound_until(time)

    def finish(self, time: float) -> None:
        """Write what is left and complete the file, which lasts until `time`."""
        self._send_pending(round(time * _TICKS))
        self._seen(self._encode, None)
        for track in self._tracks:
            self._heard(track.finish)
        self._seen.finish()
        self._heard.finish()
        self._container.close()

    def abandon(self) -> None:
        """Close the file as it is; it will be removed."""
        self._seen.abandon()
        self._heard.abandon()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _send_pending(self, until: int) -> None:
        if self._pending is None:
            return
        duration = max(1, until - (self._pending.pts or 0))
        self._pending.duration = duration
        self._durations[self._pending.pts or 0] = duration
        self._seen(self._encode, self._pending)
        self._pending = None

    def _encode(self, picture: VideoFrame | None) -> None:
        for packet in self._video.codec_context.encode(picture):
            packet.stream = self._video
            packet.duration = self._durations.pop(packet.pts or 0, packet.duration or 0)
            self._mux(packet)

    def _mux(self, packet: Packet) -> None:
        with self._muxing:
            self._container.mux(packet)
