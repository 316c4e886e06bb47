"""Moving over a file's pictures by time: the reading half of a cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from vtsum.errors import VTSumError
from vtsum.video import avi_index, mxf_index
from vtsum.video.clock import ClockedPackets, is_continuous, together
from vtsum.video.damage import Damage
from vtsum.video.source import (
    PacketDecoder,
    choose_video,
    discard_others,
    open_container,
    show,
)
from vtsum.video.timeline import Timeline, first_picture, frame_rate, stated_duration, time_base

_NEAR = 3.0  # seconds; decoding on over such a distance is quicker than a seek to an earlier key frame
_BACK_OFF = (0.0, 2.0, 10.0, 60.0)  # seconds; a seek that lands late is tried again earlier, then from the front


class PictureCursor:
    """The picture on display at a time, and the one after it.

    Attributes:
        origin (float): raw seconds of the first picture, which is time 0. step (float): seconds a frame lasts.
        time, frame: of the picture on display. next_time (float | None), end (float): when it is replaced, or ends.
        first (VideoFrame): the file's first picture. seekable (bool): timestamps can be sought.
        damage (Damage): of the pictures moved over, since a seek from its target on.

    Args:
        until: seconds; the last picture stays so long at least. on_packet: as for `ClockedPackets`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        function: str,
        until: float = 0.0,
        on_packet: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._on_packet = on_packet
        self._until = until
        self._function = function
        self._container, found = self._open()
        if found is None:
            self._container.close()
            raise VTSumError(f"{function}: {show(path)}: no picture could be decoded")
        self.first, ticks = found
        self.time: float | None = None
        self.frame: VideoFrame | None = None
        self.end = 0.0
        self.next_time: float | None = None
        self._next_frame: VideoFrame | None = None
        self._next_end = 0.0
        self.origin = 0.0 if ticks is None else float(ticks * time_base(self.stream))
        self.step = 1.0 / float(frame_rate(self.stream))
        self.seekable = ticks is not None and is_continuous(self._container, self.stream)
        index = {"avi": avi_index, "mxf": mxf_index}.get(self._container.format.name)
        if index is not None and not index.index_is_true(path):  # by which libav seeks
            self.seekable = False
        self._target = 0.0
        self.damage = Damage()
        self._from_front()

    def _open(self) -> tuple[InputContainer, tuple[VideoFrame, int | None] | None]:
        container = open_container(self._path, self._function)
        try:
            self.stream = choose_video(container, self._path, self._function)
            self._streams = together(container, self.stream, self.stream)
            discard_others(container, self._streams)
            return container, first_picture(container, self.stream)
        except BaseException:
            container.close()
            raise

    @property
    def container(self) -> InputContainer:
        return self._container

    def close(self) -> None:
        self._container.close()

    def move_to(self, time: float) -> None:
        """Put the picture on display at `time` under the cursor; the nearest one where none is."""
        self._target = time
        if self.time is None or time < self.time or time > max(self.time, self.next_time or 0.0) + _NEAR:
            self._jump(time)
        while self.next_time is not None and self.next_time <= time:
            self.advance()

    def advance(self) -> None:
        """Go on to the next picture."""
        self.time, self.frame, self.end = self.next_time, self._next_frame, self._next_end
        self._pull()
        if self.next_time is None:
            self.end = max(self.end, self._until)

    def _jump(self, time: float) -> None:
        if not self.seekable:
            if self.time is None or time < self.time:
                self._from_front()
            return
        for back in _BACK_OFF:
            if time - back <= self.step:
                break
            ticks = int((time - back + self.origin) / time_base(self.stream))
            try:
                self._container.seek(ticks, stream=self.stream)
            except (av.FFmpegError, OSError, ValueError, OverflowError):
                break
            self._start(sought=True)
            if self.time is not None and self.time <= time:
                return
        self._from_front()

    def _from_front(self) -> None:
        """Start over at the front, by reopening: after damage a seek to 0 is not to be trusted."""
        self._container.close()
        self._container = open_container(self._path, self._function)
        self.stream = choose_video(self._container, self._path, self._function)
        self._streams = together(self._container, self.stream, self.stream)
        discard_others(self._container, self._streams)
        self._start(sought=False)

    def _start(self, *, sought: bool) -> None:
        claimed = stated_duration(self._container, self.stream)
        self._timeline = Timeline(time_base(self.stream), self.step, claimed, origin=self.origin)
        packets = ClockedPackets(self._container, self._streams, sought=sought, on_packet=self._on_packet)
        self._source = self._decode(packets)
        self.time, self.frame, self.end = None, None, 0.0
        self._pull()
        self.advance()

    def _pull(self) -> None:
        found = next(self._source, None)
        self.next_time, self._next_end, self._next_frame = found if found is not None else (None, 0.0, None)

    def _decode(self, packets: ClockedPackets) -> Iterator[tuple[float, float, VideoFrame]]:
        decoder = PacketDecoder(self.stream)
        context = self.stream.codec_context
        for packet in packets:
            if packet.stream_index != self.stream.index:
                continue
            time = self._timeline.peek(packet.pts)
            far = time is not None and not decoder.counted and time < self._target - max(1.0, 4 * self.step)
            context.skip_frame = "NONREF" if far else "DEFAULT"
            yield from self._place(decoder, packet)
            if decoder.gave_up:
                break
        yield from self._place(decoder, None)

    def _place(self, decoder: PacketDecoder, packet: Packet | None) -> Iterator[tuple[float, float, VideoFrame]]:
        frames = decoder.decode(packet)
        for ticks in decoder.lost:
            if (time := self._timeline.peek(ticks)) is not None and time >= self._target:
                self.damage.add(time, time + self.step)
        for frame in frames:
            time = self._timeline.place(decoder.ticks(frame))
            if time is not None:
                end = self._timeline.end(time, frame.duration)
                if time >= self._target and decoder.concealed(frame):  # before it lies what a seek left incomplete
                    self.damage.add(time, end)
                yield time, end, frame
