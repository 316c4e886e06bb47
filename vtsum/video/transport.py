"""Holes in an MPEG transport stream: libav hands out, without a word, what is left of a packet of sound, and nothing of
one that has lost its head.

Source: ISO/IEC 13818-1, 2.4.3.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from av.packet import Packet

_SYNC = 0x47
_PACKET = 188
_STRIDES = (188, 192, 204)  # with a clock before each packet, or with what corrects errors behind it
_HEAD = 1 << 16  # bytes within which packets must begin
_AHEAD = 8  # packets that must follow one another
_BLOCK = 1 << 17  # bytes looked at in one go
_WAIT = 25  # or after so many packets of libav's
_PES = 6  # bytes that begin a piece: a code, its stream's kind, its length


class _Piece(NamedTuple):
    """Of a stream's pictures or sound, what its packets carry together."""

    stated: int = 0  # bytes; 0: not stated, as mostly of pictures
    got: int = 0
    counter: int | None = None  # of its last packet, from 0 to 15


class TransportHoles:
    """Counts the packets within each piece, and adds up what arrives of those that state their length. Between pieces
    that are whole counts may start anew: where recordings were joined."""

    def __init__(self, path: str | os.PathLike[str], streams: Iterable[int]) -> None:
        """
        Args:
            streams: the numbers of those whose holes count.
        """
        self._streams = sorted(set(streams))
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as this object
        head = self._file.read(_HEAD)
        begins = [(at, stride) for stride in _STRIDES if (at := _aligned(head, stride, 0)) is not None]
        self._at, self._stride = min(begins, default=(0, 0))
        self._pieces: dict[int, _Piece] = {}
        self._unseen = 0  # packets since the last look

    def close(self) -> None:
        self._file.close()

    def before(self, packet: Packet) -> bool | None:
        self._unseen += 1
        if packet.pos is None or (packet.pos - self._at < _BLOCK and self._unseen < _WAIT):
            return None
        self._unseen = 0
        return self._look(packet.pos)

    def at_end(self) -> bool:
        """Whether one of the last pieces but the very last is not whole: recordings end where they were stopped."""
        return self._look(os.fstat(self._file.fileno()).st_size)

    def _look(self, until: int) -> bool:
        found = False
        while self._stride and until - self._at >= self._stride:
            data = os.pread(self._file.fileno(), min(until - self._at, _BLOCK), self._at)
            packets, read = _packets(data, self._stride)
            if not read:
                break
            found = self._add(packets) or found
            self._at += read
        return found

    def _add(self, packets: np.ndarray) -> bool:
        """Whether something is missing within the pieces of the streams."""
        spoilt, carries = packets[:, 1] & 0x80, packets[:, 3] & 0x10
        packets = packets[(spoilt == 0) & (carries != 0)]
        streams = (packets[:, 1].astype(np.int64) & 31) << 8 | packets[:, 2]
        payload = np.where(packets[:, 3] & 0x20, 5 + packets[:, 4].astype(np.int64), 4)
        held = np.maximum(_PACKET - payload, 0)
        found = False
        for stream in self._streams:
            its = np.flatnonzero(streams == stream)
            if len(its):
                last = self._pieces.get(stream, _Piece())
                self._pieces[stream], hole = _followed(last, packets[its], held[its])
                found = found or hole
        return found


def _followed(last: _Piece, packets: np.ndarray, held: np.ndarray) -> tuple[_Piece, bool]:
    """The last piece of a stream's packets, and whether something is missing of it or of those before."""
    begins = (packets[:, 1] & 0x40) != 0
    firsts = np.flatnonzero(begins)
    counts = packets[:, 3] & 15
    before = np.concatenate([[counts[0] if last.counter is None else last.counter], counts[:-1]])
    marked = ((packets[:, 3] & 0x20) != 0) & (packets[:, 4] > 0) & ((packets[:, 5] & 0x80) != 0)
    jumps = ((counts - before) & 15 > 1) & ~begins & ~marked  # 0: sent twice
    sums = np.concatenate([[0], np.cumsum(held)])
    bounds = np.concatenate([firsts, [len(packets)]])
    got = last.got + int(sums[bounds[0]])
    if not len(firsts):
        return _Piece(last.stated, got, int(counts[-1])), bool(jumps.any())
    stated, came = _stated(packets[firsts], _PACKET - held[firsts]), np.diff(sums[bounds])
    hole = jumps.any() or got < last.stated or (came[:-1] < stated[:-1]).any()
    return _Piece(int(stated[-1]), int(came[-1]), int(counts[-1])), bool(hole)


def _stated(packets: np.ndarray, payload: np.ndarray) -> np.ndarray:
    """Bytes of the pieces that begin in the packets, with what stands before them; 0: not stated, or not seen."""
    at = np.minimum(payload[:, None] + np.arange(_PES), _PACKET - 1)
    heads = np.take_along_axis(packets, at, axis=1).astype(np.int64)
    length = heads[:, 4] << 8 | heads[:, 5]
    seen = (payload <= _PACKET - _PES) & (heads[:, :3] == [0, 0, 1]).all(axis=1) & (length > 0)
    return np.where(seen, length + _PES, 0)


def _packets(data: bytes, stride: int) -> tuple[np.ndarray, int]:
    """The packets in a block, without what lies between them, and how many bytes of it they take."""
    found, at = [np.zeros((0, _PACKET), np.uint8)], 0
    while count := (len(data) - at) // stride:
        rows = np.frombuffer(data, np.uint8, count * stride, at).reshape(count, stride)[:, :_PACKET]
        wrong = np.flatnonzero(rows[:, 0] != _SYNC)
        good = int(wrong[0]) if len(wrong) else count
        found.append(rows[:good])
        at += good * stride
        if good < count:
            further = _aligned(data, stride, at)
            at = len(data) if further is None else further
    return np.concatenate(found), at


def _aligned(data: bytes, stride: int, at: int) -> int | None:
    """Where the first packet from `at` on begins that others follow, as far as that can be seen."""
    at = data.find(_SYNC, at)
    while at >= 0:
        if all(data[at + stride * n] == _SYNC for n in range(1, _AHEAD + 1) if at + stride * n < len(data)):
            return at
        at = data.find(_SYNC, at + 1)
    return None
