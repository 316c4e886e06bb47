"""Whether an MXF's index is true: libav counts pictures' times by it and seeks by it, and gives other pictures,
without a word, where some of it is damaged.

Sources: SMPTE ST 377-1 (partitions, index tables), ST 336 (keys, lengths, local sets), ST 379-1 (essence's keys).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_MOST_BYTES = 1 << 26  # of all segments: days
_MOST_PARTS = 200_000  # before the essence of all partitions

KEY = b"\x06\x0e\x2b\x34"  # begins all of them
HEAD = 25  # bytes of the longest key with its length
_LEAST = 17  # of the shortest
_PARTITION = bytes.fromhex("0d01020101")  # from the ninth byte of the key on; 2, 3 and 4 are head, body and foot
PACK = bytes.fromhex("0d01020101110100")  # the random index pack
_SEGMENT = bytes.fromhex("02530101 0d01020101100100")  # from the fifth byte on
_ESSENCE = (bytes.fromhex("0d010301"), bytes.fromhex("0e040301"))  # the second is Avid's

_UNIT_BYTES, _INDEX_ID, _BODY_ID, _ENTRIES = 0x3F05, 0x3F06, 0x3F07, 0x3F0A
_RATE, _START, _DURATION = 0x3F0B, 0x3F0C, 0x3F0D
_LENGTHS = {_RATE: 8, _START: 8, _DURATION: 8, _UNIT_BYTES: 4, _INDEX_ID: 4, _BODY_ID: 4}
# Where a partition states what, from its first byte on.
_PREVIOUS, _FOOTER, _INDEX_BYTES, _BODY_OFFSET, _BODY = 16, 24, 40, 52, 60
_ENTRY = 11  # bytes of an entry without slices: offsets in time and to the key picture, flags, place


class _Part(NamedTuple):
    key: bytes
    at: int
    content: int
    end: int


class _Partition(NamedTuple):
    body_id: int
    body_offset: int  # of the essence's bytes, how many lie before this partition
    essence: int  # where its own begin; 0: none
    end: int


class _Segment(NamedTuple):
    ids: tuple[int, int]
    rate: bytes
    start: int
    duration: int
    unit_bytes: int
    offsets: np.ndarray  # from an entry's picture to its place in the order of coding
    places: np.ndarray


def index_is_true(path: str | os.PathLike[str]) -> bool:
    """Whether every entry of the index leads to the beginning of a picture, and no two to the same one. What an index
    says of essence in one piece, whose pictures have no beginnings of their own, is not judged but for its order."""
    with open(path, "rb", buffering=0) as file:
        content = np.memmap(file, np.uint8, "r") if os.fstat(file.fileno()).st_size else np.zeros(0, np.uint8)
        try:
            partitions, segments = _read(content)
        except ValueError:
            return False
    tables: dict[tuple[int, int], list[_Segment]] = defaultdict(list)
    for segment in sorted(segments, key=lambda segment: (segment.start, -segment.duration)):
        table = tables[segment.ids]
        if not table or segment.start + segment.duration > table[-1].start + table[-1].duration:
            table.append(segment)  # else a partition says again what another one does
    return all(_is_true(content, table, partitions) for table in tables.values())


def _read(content: np.ndarray) -> tuple[list[_Partition], list[_Segment]]:
    partitions: list[_Partition] = []
    segments: list[_Segment] = []
    room, rest = _MOST_BYTES, _MOST_PARTS
    begins = _partitions(content)
    for at, end in pairwise([*begins, len(content)]):
        body_id = body_offset = essence = index_bytes = 0
        before = len(segments)
        for part in _parts(content, at):
            name = part.key[8:]
            rest -= 1
            if part.at >= end:
                break
            if rest < 0:
                raise ValueError("an index must be found among so many parts")
            if part.at == at:
                index_bytes = _number(content, part.content + _INDEX_BYTES, 8)
                body_offset = _number(content, part.content + _BODY_OFFSET, 8)
                body_id = _number(content, part.content + _BODY, 4)
                if body_offset > len(content):
                    raise ValueError("the bytes before a partition must be those of the file")
            elif part.key[4:] == _SEGMENT:
                room -= part.end - part.content
                if room < 0:
                    raise ValueError("an index must be of a length that is read")
                segments.append(_segment(content, part))
            elif name[:4] in _ESSENCE:
                essence = part.at
                break
        if index_bytes and len(segments) == before:
            raise ValueError("a partition must have the index that it states")
        partitions.append(_Partition(body_id, body_offset, essence, end))
    return partitions, segments


def _number(content: np.ndarray, at: int, count: int) -> int:
    return int.from_bytes(content[at : at + count].tobytes(), "big")


def lengths(head: bytes) -> tuple[int, int] | None:
    """Bytes of a part's key with its length, and of its content; None where no part begins so.

    Args:
        head: its first `HEAD` bytes, or as many as there are.
    """
    if head[: len(KEY)] != KEY or len(head) < _LEAST:
        return None
    more = head[16] & 127 if head[16] & 128 else 0
    if more > 8 or (head[16] & 128 and not more):
        return None
    return _LEAST + more, int.from_bytes(head[17 : 17 + more], "big") if more else head[16]


def _parts(content: np.ndarray, at: int) -> Iterator[_Part]:
    while True:
        head = content[at : at + HEAD].tobytes()
        if (found := lengths(head)) is None:
            return
        begin = at + found[0]
        yield _Part(head[:16], at, begin, begin + found[1])
        at = begin + found[1]


def _partitions(content: np.ndarray) -> list[int]:
    """Where the partitions begin, in the order of the file.

    Raises:
        ValueError: one leads to a place where none begins.
    """
    if not _begins(content, 0):
        return []  # what else lies before the first one, and where, is the writer's own
    found, at = {0}, _footer(content)
    while at and at not in found:
        if not _begins(content, at) or len(found) == _MOST_PARTS:
            raise ValueError("a partition must begin where others say that it does")
        found.add(at)
        at = _number(content, _first(content, at).content + _PREVIOUS, 8)
    return sorted(found)


def _footer(content: np.ndarray) -> int:
    """Where the last partition begins; 0 where that is not known, or it was cut off."""
    size = len(content)
    pack = size - _number(content, max(size - 4, 0), 4)
    if 0 < pack < size and content[pack : pack + 4].tobytes() == KEY:
        part = _first(content, pack)
        if part.key[8:] == PACK and part.end == size and part.end - part.content >= 16:
            return _number(content, size - 12, 8)
    stated = _number(content, _first(content, 0).content + _FOOTER, 8)
    return stated if stated < size else 0


def _first(content: np.ndarray, at: int) -> _Part:
    return next(_parts(content, at), _Part(b"", at, at, at))


def _begins(content: np.ndarray, at: int) -> bool:
    name = _first(content, at).key[8:]
    return name[:5] == _PARTITION and name[5] in (2, 3, 4)


def _segment(content: np.ndarray, part: _Part) -> _Segment:
    """
    Raises:
        ValueError: the set is not what an index's must be.
    """
    found: dict[int, bytes] = {}
    at, end = part.content, min(part.end, len(content))
    while at + 4 <= end:
        tag, length = _number(content, at, 2), _number(content, at + 2, 2)
        if tag in found:
            raise ValueError("an index must state a thing once")
        found[tag] = content[at + 4 : min(at + 4 + length, end)].tobytes()
        at += 4 + length
    if at != end or any(len(found.get(tag, b"")) != length for tag, length in _LENGTHS.items() if tag != _UNIT_BYTES):
        raise ValueError("an index must be filled by what it states")
    number = {tag: int.from_bytes(found.get(tag, b""), "big", signed=tag == _START) for tag in _LENGTHS}
    offsets, places = _entries(found.get(_ENTRIES, b""))
    duration, listed = number[_DURATION], len(places)
    if number[_UNIT_BYTES]:
        offsets, places = offsets[:0], places[:0]
    elif duration:
        step = 2 if listed == 2 * duration + 1 else 1  # for half pictures, and where the last one ends: Avid's
        offsets, places = offsets[::step][:duration], places[::step][:duration]
    duration = duration or len(places)  # left open
    if not number[_UNIT_BYTES] and listed not in (duration, duration + 1, 2 * duration + 1):
        raise ValueError("an index must have an entry for each picture")
    ids = number[_INDEX_ID], number[_BODY_ID]
    return _Segment(ids, found[_RATE], number[_START], duration, number[_UNIT_BYTES], offsets, places)


def _entries(values: bytes) -> tuple[np.ndarray, np.ndarray]:
    count, length = int.from_bytes(values[:4], "big"), int.from_bytes(values[4:8], "big")
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if length < _ENTRY or len(values) != 8 + count * length:
        raise ValueError("an index must have as many entries as it states")
    entries = np.frombuffer(values, np.uint8, offset=8).reshape(count, length)
    places = np.minimum(entries[:, 3:_ENTRY].copy().view(">u8")[:, 0], np.iinfo(np.int64).max)
    return entries[:, 0].copy().view(np.int8).astype(np.int64), places.astype(np.int64)


def _is_true(content: np.ndarray, segments: list[_Segment], partitions: list[_Partition]) -> bool:
    first = segments[0]
    if any(segment.rate != first.rate for segment in segments) or not _follow(segments):
        return False
    order = np.concatenate([segment.offsets for segment in segments])
    if (np.sort(np.arange(len(order)) + order) != np.arange(len(order))).any():
        return False
    held = [part for part in partitions if part.essence]
    essence = _Essence(content, [part for part in held if part.body_id == first.ids[1]])
    if held and not essence.length:
        return False
    if not first.unit_bytes:
        return essence.has(np.concatenate([segment.places for segment in segments]))
    # Where all are of one length none is listed, and how many there are may be left open.
    return essence.has_each(first.unit_bytes, first.duration)


def _follow(segments: list[_Segment]) -> bool:
    """Whether each begins where the one before it ends, and all list their pictures, or none does."""
    return all(
        later.start == earlier.start + earlier.duration and later.unit_bytes == earlier.unit_bytes
        for earlier, later in pairwise(segments)
    )


class _Essence:
    """The bytes of pictures and sound, counted through all partitions that hold some."""

    def __init__(self, content: np.ndarray, partitions: list[_Partition]) -> None:
        self._content = content
        held = sorted(partitions, key=lambda part: part.body_offset)
        self._offsets = np.array([part.body_offset for part in held], np.int64)
        self._begins = np.array([part.essence for part in held], np.int64)
        #: Of all of it, as far as the last partition goes: what fills that up counts, too.
        self.length = held[-1].body_offset + held[-1].end - held[-1].essence if held else 0

    def has_each(self, length: int, count: int) -> bool:
        """Whether pictures of so many bytes, with their keys, follow one another."""
        if self._in_one_piece() or not len(self._offsets):
            return True
        most = self.length // length
        return length > _LEAST and self.has(length * np.arange(min(most, count or most)))

    def has(self, places: np.ndarray) -> bool:
        """Whether the places follow one another, and the same key lies at each."""
        if not len(self._offsets) or not len(places):
            return True
        if places[0] < 0 or not (np.diff(places) > 0).all():
            return False
        if self._in_one_piece():
            return bool(places[-1] < self.length)
        which = np.searchsorted(self._offsets, places, "right") - 1
        at = self._begins[which] + places - self._offsets[which]
        at = at[at <= len(self._content) - 16]  # what was cut off is told of elsewhere
        if which.min() < 0 or not len(at) or at.min() < 0:
            return False
        heads = self._content[at[:, None] + np.arange(16)]
        return bool((heads == heads[0]).all()) and heads[0, :4].tobytes() == KEY

    def _in_one_piece(self) -> bool:
        """Whether one key stands before all: pictures have none of their own."""
        if len(self._begins) != 1:
            return False
        first = _first(self._content, int(self._begins[0]))
        return first.end - first.at > self.length // 2
