"""Where a file is damaged: what the decoder concealed, what it could not decode, what the reader skipped."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from av.packet import Packet

from vtsum.video.ending import HEAD, end_of_media, matroska_end
from vtsum.video.matroska import track_numbers

_APART = 1.0  # seconds; damaged places closer than this are one
_TOLD = 3  # places in a warning; the others are counted


class Damage:
    """Damaged places, in seconds from the first picture, as they are found."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def add(self, start: float, end: float) -> None:
        start, end = max(start, 0.0), max(start, end, 0.0)
        if self._spans:
            first, last = self._spans[-1]
            if first <= start <= last + _APART:  # most come in order: a file that is damaged throughout has one place
                self._spans[-1] = (first, max(last, end))
                return
        self._spans.append((start, end))

    def spans(self, duration: float = math.inf) -> list[tuple[float, float]]:
        return join_spans(self._spans, duration)


def join_spans(spans: Iterable[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    """The spans within `duration`, in order; those less than a second apart are one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted((min(a, duration), min(b, duration)) for a, b in spans):
        if joined and start <= joined[-1][1] + _APART:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def damage_warning(spans: list[tuple[float, float]]) -> str:
    """One line that tells where, of at least one place."""
    return f"the file is damaged at {told(spans)}: pictures or sound there are faulty or missing"


def told(spans: list[tuple[float, float]]) -> str:
    """The first places in words, and how many more there are."""
    first = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in spans[:_TOLD])
    return first + (f" and {len(spans) - _TOLD} more places" if len(spans) > _TOLD else "")


_AFTER = 2  # packets: libav's parser, which looks ahead, marks the last packets before a join


class TransportJoins:
    """Tells damage of an MPEG transport stream from a join, as of two downloaded segments: libav marks packets corrupt
    where the counters break off, but after a join a key picture comes first."""

    def __init__(self) -> None:
        self._suspect: float | None = None
        self._seen = 0

    def damaged(self, packet: Packet, time: float) -> float | None:
        """See the next packet of the pictures, shown at `time`; when pictures were lost that were seen before, or None.

        What is marked in the file's last packets is not judged: a recording may end anywhere.
        """
        lost = None
        if self._suspect is not None:
            self._seen += 1
            if packet.is_keyframe:
                self._suspect = None
            elif self._seen == _AFTER:
                lost, self._suspect = self._suspect, None
        if packet.is_corrupt and self._suspect is None:
            self._suspect, self._seen = time, 0
        return lost


# Matroska's elements (RFC 9559) that a walk goes into, and those that it steps over. Where libav finds anything else it
# says nothing and goes on at the next cluster.
_ENTERED = {0x18538067, 0x1F43B675, 0xA0}  # Segment, Cluster, BlockGroup
_BLOCKS = {0xA3, 0xA1}  # SimpleBlock, Block
_PASSED = {
    *(0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # level 1
    *(0xE7, 0xA7, 0xAB, 0x5854, 0xAF),  # of a cluster: Timestamp, Position, PrevSize, SilentTracks, EncryptedBlock
    *(0x9B, 0xFB, 0xFD, 0xFA, 0xA2, 0xA4, 0x75A1, 0x75A2, 0x8E, 0xC8),  # of a block group
    *(0xEC, 0xBF),  # Void, CRC-32
}
_EXACT = 3  # pairs of packets without anything foreign between them, before a stream's are judged
_NEAR = 24  # bytes between two packets' data that hold a block's header only


class MatroskaHoles:
    """Tells where libav skipped a damaged part of a Matroska or WebM file, from the bytes between two packets.

    Streams whose packets are longer than in the file (their start is left out) and blocks of several packets (laced)
    are not judged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - as long as this object
        self._cut = False  # whether it is shorter than its segment states
        self._end = self._found_end()
        self._tracks = track_numbers(self._file)
        self._last: Packet | None = None
        self._exact: dict[int, int] = {}

    def close(self) -> None:
        self._file.close()

    def before(self, packet: Packet) -> bool:
        """Whether something was skipped between this packet and the one seen before."""
        last, self._last = self._last, packet
        if last is None or last.pos is None or packet.pos is None or packet.pos <= last.pos:
            return False
        seen = self._exact.get(last.stream_index, 0)
        if seen >= _EXACT and packet.pos - last.pos - last.size <= _NEAR:
            return False
        if self._joined(last, packet.pos):
            self._exact[last.stream_index] = seen + 1
            return False
        return seen >= _EXACT

    def at_end(self) -> bool:
        """Whether something was skipped behind the last packet seen: the file ends in the middle of an element, or
        where none is known."""
        last = self._last
        if self._cut:
            return True
        if last is None or last.pos is None or self._exact.get(last.stream_index, 0) < _EXACT:
            return False
        return not self._joined(last, self._end, ending=True)

    def _found_end(self) -> int:
        """Where the last segment ends: anything but another one may lie behind it, as tags do."""
        end, at = end_of_media(self._file), 0
        while at < end:
            self._file.seek(at)
            head = self._file.read(HEAD)
            if at and head[:4] != b"\x1a\x45\xdf\xa3":
                return at
            if (length := matroska_end(head)) is None:
                return end
            at += length
        self._cut = at > self._file.seek(0, os.SEEK_END)
        return end

    def _joined(self, last: Packet, until: int, *, ending: bool = False) -> bool:
        """Whether known elements lead from the end of a packet's block to the block whose content begins at `until`,
        or to the end of the file there."""
        assert last.pos is not None
        self._file.seek(last.pos)
        block = self._file.read(12)
        data = 12 - (block[0].bit_length() if block else 8)  # after the track's number, the time and the flags
        if len(block) < data or block[data - 1] & 0x06:
            return True  # laced: where its block ends is not known
        at = last.pos + data + last.size
        while at < until:
            self._file.seek(at)
            head = self._file.read(12)
            if not head or not head[0]:
                return False
            width = 9 - head[0].bit_length()
            kind, rest = int.from_bytes(head[:width], "big"), head[width:]
            if width > 4 or not rest or not rest[0]:
                return False
            more = 9 - rest[0].bit_length()
            size = int.from_bytes(rest[:more], "big") & ((1 << 7 * more) - 1)
            at += width + more
            if kind in _BLOCKS and at == until:
                return True
            if kind in _BLOCKS and self._tracks and not self._is_known(at):
                return False
            if kind in _BLOCKS or kind in _PASSED:
                at += size
            elif kind not in _ENTERED:
                return False
        return ending and at == until

    def _is_known(self, block: int) -> bool:
        """Whether a block is one of the file's tracks; libav passes over any other."""
        self._file.seek(block)
        head = self._file.read(8)
        width = 9 - head[0].bit_length() if head else 9
        return (int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1)) in self._tracks
