"""Which pictures a decoder still owes.

PyAV drops an error that comes together with pictures, as one of the last packets does where threads decode them side by
side; then only this tells that a picture is missing.
"""

from __future__ import annotations

from collections import deque

from av.codec.codec import Capabilities
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.frame import VideoFrame


def side_by_side(context: CodecContext) -> bool:
    """Whether threads may each decode a picture of their own."""
    return bool(context.codec.capabilities & Capabilities.frame_threads.value)


class Owed:
    """The pictures of packets that a decoder was given and that it has not returned, by their timestamps.

    Attributes:
        each (bool): each packet shows one picture, in this order: it is always known that one is missing. Of HEVC it is
            known at a file's end alone: pictures that lead to where a stream is entered may be left out.
        in_turn (bool): each comes when as many packets were given after it as there are other threads.

    Args:
        counted: the file states when packets are decoded, not when pictures are shown.
    """

    def __init__(self, context: CodecContext, counted: bool) -> None:
        self._context = context
        self._counted = counted
        self._marks: deque[int] = deque()
        self.in_turn = side_by_side(context) and not context.codec.delay
        self.each = self.in_turn or context.name == "libdav1d"
        self._kept = self.each or context.name == "hevc"

    def give(self, packet: Packet) -> None:
        """Note a packet that the decoder is given."""
        mark = self._mark(packet)
        decoded = self._context.skip_frame == "DEFAULT"
        if self._kept and decoded and mark is not None and _is_shown(packet, self._context.name):
            self._marks.append(mark)

    def take(self, frame: VideoFrame) -> list[int]:
        """Note a picture that came; timestamps of those that were to come before it and did not."""
        mark, lost = self._mark(frame), []
        if self.each:
            while mark in self._marks and (first := self._marks.popleft()) != mark:
                lost.append(first)
        elif mark is not None:
            lost = sorted(earlier for earlier in self._marks if earlier < mark)
            self._marks = deque(later for later in self._marks if later > mark)
        return lost

    def rest(self) -> list[int]:
        """Timestamps of those that did not come; none is owed any more."""
        rest = list(self._marks)
        self._marks.clear()
        return rest

    def _mark(self, of: VideoFrame | Packet) -> int | None:
        return of.dts if self._counted else of.pts


def _is_shown(packet: Packet, codec: str) -> bool:
    """Whether a packet's picture is shown, and not kept for others to refer to (RFC 6386, 9.1; VP9 Bitstream
    Specification 0.6, 6.2 and annex B)."""
    if packet.is_discard:
        return False
    data = memoryview(packet)
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9" and data[-1] >> 5 != 0b110:  # of several pictures one is shown
        flags = data[0] >> (0 if data[0] & 0x30 == 0x30 else 1)  # of profile 3 a bit more stands before them
        return bool(flags & 0b101)  # it is shown, or shows one that there is already
    return True
