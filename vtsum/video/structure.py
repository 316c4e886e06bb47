"""Whether the parts of which a file is made follow one another. Where one is damaged libav looks for the next, and says
nothing: of AVI, Ogg, ASF, MXF, FLV and MPEG's streams the parts are walked over beside it, while the file is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Protocol

from av.packet import Packet

from vtsum.video import mxf_index
from vtsum.video.asf_packets import AsfPackets, begins_as_most
from vtsum.video.checksum import checksum
from vtsum.video.damage import MatroskaHoles
from vtsum.video.ending import begins_with_a_picture, end_of_media, gif_is_whole
from vtsum.video.matroska import tracks_are_whole
from vtsum.video.sample_tables import index_agrees
from vtsum.video.transport import TransportHoles


class Holes(Protocol):
    """Tells where libav skipped a damaged part of a file."""

    def before(self, packet: Packet) -> bool | None:
        """Whether something was skipped between this packet and the one at which it was last known; None: not known,
        not every packet is looked at."""

    def at_end(self) -> bool:
        """Whether something was skipped behind the last packet seen, or the file ends in the middle of a part."""

    def close(self) -> None: ...


def holes_of(path: str | os.PathLike[str], form: str, streams: int, read: Iterable[int]) -> Holes | None:
    """What tells holes in a file, or None where its format has nothing to tell them by.

    Args:
        form: libav's name of the format. streams: how many libav found. read: the numbers, in the file, of those that
            are read.
    """
    if "matroska" in form:
        return MatroskaHoles(path)
    if form == "avi":
        return _Avi(path, streams)
    if form == "mpegts":
        return TransportHoles(path, read)
    kind = {"ogg": _Ogg, "asf": _Asf, "mxf": _Mxf, "flv": _Flv, "mpeg": _Program}.get(form)
    return None if kind is None else kind(path)


def heads_are_whole(path: str | os.PathLike[str], form: str) -> bool:
    """Whether what a file says of its tracks and of where their pictures and sound lie is undamaged, as far as its
    format lets that be seen; where it is not, it may be anything that is missing.

    Args:
        form: libav's name of the format.
    """
    if "mp4" in form:
        return index_agrees(path)
    if "matroska" in form:
        return tracks_are_whole(path)
    check = {"gif": gif_is_whole, "mjpeg": begins_with_a_picture, "mxf": mxf_index.index_is_true}.get(form)
    return check is None or check(path)


class _Parts:
    """Walks from part to part, as far as libav has come.

    It reads what libav has just read, of all but Ogg the heads alone.
    """

    head = 0  # bytes between the beginning of a part and where libav says that its packet lies
    whole = True  # no packet begins inside a part
    ended = False  # the part seen last is one behind which, by the format's own statement, none follows

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as this object
        self._size = end_of_media(self._file)
        self._end = self._size
        self._last = 0
        self._at = self.first()

    def close(self) -> None:
        self._file.close()

    def before(self, packet: Packet) -> bool:
        return packet.pos is not None and self._walk(packet.pos - self.head)

    def at_end(self) -> bool:
        return self._walk(self._end)

    def first(self) -> int | None:
        """Where the first part begins; None where the file cannot be judged."""
        return 0

    def length(self, at: int) -> int | None:
        """Bytes from the beginning of the part at `at` to that of the next, or None where there is none, or it is
        damaged."""
        raise NotImplementedError

    def read(self, at: int, count: int) -> bytes:
        # What a damaged file states may be further than a system counts.
        return os.pread(self._file.fileno(), count, at) if at < self._size else b""

    def _walk(self, until: int) -> bool:
        if self._at is None:
            return False
        if self.whole and self._last < until < self._at:
            self._at = until  # a packet inside what was taken for a part
            return True
        while self._at < min(until, self._end):
            length = self.length(self._at)
            if length is None or self._at + length > self._size + 1:  # the last one's padding may be missing
                self._at = max(until, self._at + 1)
                return not self.ended or until < self._end  # tags and zeros may lie behind it
            self._last, self._at = self._at, self._at + length
        return False


class _Avi(_Parts):
    """Chunks. Source: Microsoft, "AVI RIFF File Reference"; OpenDML AVI File Format Extensions 1.02."""

    head = 8
    _NAME = re.compile(rb"(\d\d)[A-Za-z_]{2}|ix\d\d|idx1|[A-Za-z]{3}[A-Za-z0-9 _]")

    def __init__(self, path: str | os.PathLike[str], streams: int) -> None:
        self._streams = streams
        super().__init__(path)

    def first(self) -> int | None:
        return 0 if self.read(0, 4) == b"RIFF" else None

    def length(self, at: int) -> int | None:
        head = self.read(at, 12)
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        if name == b"RIFF":
            self._end = min(at + 8 + size, self._size) if size else self._size
            return 12
        if name == b"LIST" and head[8:] in (b"movi", b"rec "):
            return 12
        known = self._NAME.fullmatch(name)
        if not known or int(known[1] or 0) >= self._streams:  # libav passes over a stream whose head is damaged
            return None
        if size % 2 == 0:
            return 8 + size
        behind = self.read(at + 8 + size, 5)  # some writers leave out the byte that makes a chunk even
        return 8 + size + (self._NAME.fullmatch(behind[1:]) is not None or not self._NAME.fullmatch(behind[:4]))


class _Ogg(_Parts):
    """Pages, with their numbers and checksums. Source: RFC 3533."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._next: dict[bytes, int] = {}  # the number of each stream's next page, once its headers are over
        self._open: set[bytes] = set()  # streams that have begun and not ended

    def first(self) -> int | None:
        return 0 if self.read(0, 4) == b"OggS" else None

    def length(self, at: int) -> int | None:
        page = self.read(at, 27 + 255)
        if page[:5] != b"OggS\0" or len(page) < 27:
            return None
        length = 27 + page[26] + sum(page[27 : 27 + page[26]])
        page = self.read(at, length)
        stated, bare = int.from_bytes(page[22:26], "little"), page[:22] + bytes(4) + page[26:]
        if len(page) < length or checksum(bare) != stated:
            return None
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        if page[5] & 2:  # also of a recording that was joined to one of the same number
            self._open.add(stream)
            self._next.pop(stream, None)
        if page[5] & 4:
            self._open.discard(stream)
        self.ended = not self._open
        missing = self._next.get(stream, number) != number
        if any(page[6:14]):  # not of a header
            self._next[stream] = number + 1
        return None if missing else length


class _Asf(_Parts):
    """Data packets, all of one size. Source: Microsoft, "Advanced Systems Format Specification", 01.20.06."""

    _DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
    _PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

    def first(self) -> int | None:
        header = self.read(0, 30)
        at = int.from_bytes(header[16:24], "little")
        inside = self.read(0, min(at, 1 << 20))
        data = self.read(at, 50)
        found = inside.find(self._PROPERTIES)
        self._packet = int.from_bytes(inside[found + 92 : found + 96], "little")
        self._packets = AsfPackets()
        if data[:16] != self._DATA or found < 0 or self._packet < 100:
            return None
        if not any(begins_as_most(self.read(at + 50 + k * self._packet, 3)) for k in range(3)):
            return None  # some writers' packets begin otherwise
        self._end = min(at + (int.from_bytes(data[16:24], "little") or self._size), self._size)
        return at + 50

    def length(self, at: int) -> int | None:
        packet = self.read(at, self._packet)
        if len(packet) < self._packet:  # cut within it, or its padding is missing
            return self._packet if begins_as_most(packet) else None
        return self._packet if self._packets.is_whole(packet) else None


class _Mxf(_Parts):
    """Keys with lengths. Source: SMPTE 377-1, 336M."""

    whole = False

    def first(self) -> int | None:
        return 0 if self.read(0, len(mxf_index.KEY)) == mxf_index.KEY else None

    def length(self, at: int) -> int | None:
        head = self.read(at, mxf_index.HEAD)
        lengths = mxf_index.lengths(head)
        if lengths is None:
            return None
        self.ended = head[8:16] == mxf_index.PACK
        return sum(lengths)


class _Flv(_Parts):
    """Tags, each with its length before it and behind it. Source: Adobe, "Adobe Flash Video File Format Specification",
    10.1, annex E."""

    _KINDS = frozenset({8, 9, 15, 18})  # sound, pictures, data
    _LENGTH = 11  # bytes of a tag's head

    def first(self) -> int | None:
        head = self.read(0, 9)
        at = int.from_bytes(head[5:9], "big") + 4
        size, behind = self._tag(at) if head[:3] == b"FLV" else (0, b"")
        # Some writers state other lengths behind their tags, or none.
        return at if int.from_bytes(behind, "big") == self._LENGTH + size else None

    def length(self, at: int) -> int | None:
        kind = self.read(at, 1)
        size, behind = self._tag(at)
        if not kind or kind[0] & 31 not in self._KINDS:
            return None
        if len(behind) < 4 and at + self._LENGTH + size <= self._size:  # the last one's may be missing
            return self._size - at
        return self._LENGTH + size + 4 if int.from_bytes(behind, "big") == self._LENGTH + size else None

    def _tag(self, at: int) -> tuple[int, bytes]:
        size = int.from_bytes(self.read(at + 1, 3), "big")
        return size, self.read(at + self._LENGTH + size, 4)


class _Program(_Parts):
    """Packs and packets of an MPEG program stream. Anything may lie between them, but a packet longer than what is left
    of the file was cut. Source: ISO/IEC 13818-1, 2.5; 11172-1, 2.4.
    """

    def before(self, packet: Packet) -> bool:
        self._at = self._at if packet.pos is None else packet.pos
        return False

    def at_end(self) -> bool:
        while self._at is not None and self._at < self._size:
            length = self.length(self._at)
            self._at = None if length is None else self._at + length
        return self._at is not None and self._at > self._size

    def length(self, at: int) -> int | None:
        head = self.read(at, 14)
        if head[:3] != b"\0\0\1" or len(head) < 6 or head[3] < 0xB9:
            return None
        if head[3] == 0xB9:  # the end, behind which another program may begin
            return 4
        if head[3] == 0xBA:
            return 12 if head[4] >> 4 == 2 else 14 + (head[13] & 7 if len(head) == 14 else 0)
        return 6 + int.from_bytes(head[4:6], "big")
