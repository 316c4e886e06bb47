"""Whether a data packet of ASF is whole: what its heads say of the pieces of pictures and sound in it must fill it, and
fit what came before.

Source: Microsoft, "Advanced Systems Format Specification", 01.20.06, 5.2.
"""

from __future__ import annotations

from typing import NamedTuple

_START = b"\x82\0\0"  # of a packet: two bytes of error correction, and none was made
_LENGTHS = (0, 1, 2, 4)  # bytes of a number, by the two bits that state it


def begins_as_most(packet: bytes) -> bool:
    """Whether a packet begins in the way that is looked into here."""
    return packet[: len(_START)] == _START


class _Object(NamedTuple):
    """A picture or a stretch of sound."""

    number: int
    greatest: int  # number, behind which 0 comes
    size: int  # bytes; 0: not stated
    time: int


class _Piece(NamedTuple):
    stream: int
    of: _Object
    offset: int
    length: int


class AsfPackets:
    """Goes from packet to packet."""

    def __init__(self) -> None:
        self._last: dict[int, _Piece] = {}  # of each stream

    def is_whole(self, packet: bytes) -> bool:
        """Whether the next packet is whole, and nothing is missing between it and the one before."""
        try:
            pieces = _pieces(packet)
        except ValueError:
            self._last.clear()
            return False
        fitting = [self._fits(piece) for piece in pieces]  # each, or the next would not be compared with it
        return all(fitting)

    def _fits(self, piece: _Piece) -> bool:
        before = self._last.pop(piece.stream, None)
        if piece.of.size and piece.offset + piece.length > piece.of.size:
            return False
        self._last[piece.stream] = piece
        if before is None or not before.of.size or not piece.of.size:
            return True
        had = before.offset + before.length
        if piece.offset:
            return piece.of == before.of and piece.offset == had
        return had == before.of.size and piece.of.number == (before.of.number + 1) & before.of.greatest


class _Reader:
    def __init__(self, packet: bytes) -> None:
        self.packet, self.at = packet, len(_START)

    def number(self, count: int) -> int:
        self.at += count
        if self.at > len(self.packet):
            raise ValueError("a packet must hold what it states")
        return int.from_bytes(self.packet[self.at - count : self.at], "little")

    def stated(self, flags: int, shift: int) -> int:
        return self.number(_LENGTHS[flags >> shift & 3])


def _pieces(packet: bytes) -> list[_Piece]:
    """
    Raises:
        ValueError: the packet is damaged.
    """
    reader = _Reader(packet)
    lengths, kinds = reader.number(1), reader.number(1)
    size = reader.stated(lengths, 5) or len(packet)
    reader.stated(lengths, 1)
    padding = reader.stated(lengths, 3)
    reader.number(6)  # when it is sent, and for how long
    end = size - padding
    if not begins_as_most(packet) or lengths & 128 or kinds >> 6 != 1 or not reader.at < end <= len(packet):
        raise ValueError("a packet must begin as all do")
    many = reader.number(1) if lengths & 1 else 1
    pieces: list[_Piece] = []
    for _ in range(many & 63):
        pieces += _piece(reader, kinds, _LENGTHS[many >> 6] if lengths & 1 else 0, end)
    if reader.at != end or not pieces:
        raise ValueError("a packet must be filled by its pieces")
    return pieces


def _piece(reader: _Reader, kinds: int, counted: int, end: int) -> list[_Piece]:
    """One piece, or several whole objects; of the only one in a packet its length is not stated."""
    stream, number = reader.number(1) & 127, reader.stated(kinds, 4)
    greatest = (1 << 8 * _LENGTHS[kinds >> 4 & 3]) - 1
    offset, head = reader.stated(kinds, 2), reader.stated(kinds, 0)
    if 1 < head < 8:
        raise ValueError("a piece must say of how many bytes the whole is")
    size, time = (reader.number(4), reader.number(4)) if head >= 8 else (0, 0)
    reader.number(head - 8 if head >= 8 else head)
    length = reader.number(counted) if counted else end - reader.at
    if head != 1:
        reader.number(length)
        return [_Piece(stream, _Object(number, greatest, size, time), offset, length)]
    found, last = [], reader.at + length
    while reader.at < last:  # small ones in one, each with its length, and a time instead of an offset
        held = reader.number(1)
        reader.number(held)
        found.append(_Piece(stream, _Object(number, greatest, held, offset), 0, held))
        number = (number + 1) & greatest
    if reader.at != last:
        raise ValueError("pieces must fill what holds them")
    return found
