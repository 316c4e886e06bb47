"""Whether an MP4's or MOV's index (ISO/IEC 14496-12, 8.6 and 8.7) agrees with itself and with its file. Where it does
not, libav reads other bytes for pictures and sound, or leaves them out, and says nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vtsum.video.boxes import DEEPEST, MOST_BYTES, boxes_inside, ends_inside_a_box, index_of, number, top_boxes

_TABLES = frozenset(b"hdlr stts ctts stss stsc stsz stz2 stco co64".split())
_MOST_TRACKS = 1000
_LEAST_CHUNK = 8  # bytes before the first chunk: the head of the box that it lies in


def index_agrees(path: str | os.PathLike[str]) -> bool:
    """Whether the tables of each track of pictures or sound state as many samples, whether no two chunks of samples lie
    upon one another, and, of a file that is not cut short, none behind its end; of fragments, whether there is room for
    their samples.

    A table may leave out what has no value of its own, the last chunk may be shorter, and two chunks may be the same
    bytes; samples of no bytes are believed where they leave no gap.
    """
    end = None if ends_inside_a_box(path) else os.stat(path).st_size
    chunks: list[_Chunks] = []
    for tables in islice(_tracks(memoryview(index_of(path))), _MOST_TRACKS):
        matters = tables.get(b"hdlr", b"")[8:12] in (b"vide", b"soun")
        found = _chunks(tables)
        if found is None and matters:
            return False
        if found is not None and len(found.start):
            if matters and (found.start.min() < _LEAST_CHUNK or (end is not None and found.start.max() > end)):
                return False
            chunks.append(found if matters else _Chunks(found.start, found.start, np.zeros(len(found.start), bool)))
    return (not chunks or _lie_apart(chunks)) and _fragments_fit(path)


@dataclass(frozen=True)
class _Chunks:
    """Chunks of a track: where each begins and ends, in bytes, and whether it has samples of none. Of those whose
    length is not known the end is the beginning."""

    start: np.ndarray
    end: np.ndarray
    hollow: np.ndarray


def _tracks(moov: memoryview) -> Iterator[dict[bytes, memoryview]]:
    def tables(kind: bytes, content: memoryview, depth: int, found: dict[bytes, memoryview]) -> None:
        for inner, body in boxes_inside(kind, content):
            if inner in _TABLES:
                found.setdefault(inner, body)
            elif depth < DEEPEST:
                tables(inner, body, depth + 1, found)

    def search(kind: bytes, content: memoryview, depth: int) -> Iterator[dict[bytes, memoryview]]:
        for inner, body in boxes_inside(kind, content):
            if inner == b"trak":
                found: dict[bytes, memoryview] = {}
                tables(inner, body, depth + 1, found)
                yield found
            elif depth < DEEPEST:
                yield from search(inner, body, depth + 1)

    return search(b"moov", moov, 0)


def _chunks(tables: dict[bytes, memoryview]) -> _Chunks | None:
    """The chunks of a track, or None where its tables do not agree."""
    sizes, count = _sizes(tables)
    offsets = _table(tables.get(b"co64"), ">u8") if b"co64" in tables else _table(tables.get(b"stco"), ">u4")
    runs, times = _table(tables.get(b"stsc"), ">u4", 3), _table(tables.get(b"stts"), ">u4", 2)
    shifts, keys = _table(tables.get(b"ctts"), ">u4", 2), _table(tables.get(b"stss"), ">u4")
    if count == 0 and offsets is not None and not len(offsets):
        return _Chunks(offsets, offsets, offsets.astype(bool))  # its samples are in fragments
    if sizes is None or offsets is None or runs is None or times is None or not len(offsets) or not len(runs):
        return None
    if len(offsets) > count or len(runs) > len(offsets):
        return None
    first, each = runs[:, 0], runs[:, 1]
    if first[0] != 1 or first[-1] > len(offsets) or not (np.diff(first) > 0).all() or not each.all():
        return None
    behind = np.cumsum(np.repeat(each, np.diff(np.append(first, len(offsets) + 1))))
    if behind[-1] < count or (len(behind) > 1 and behind[-2] >= count):
        return None
    if abs(int(times[:, 0].sum()) - count) > 1:
        return None
    if b"ctts" in tables and (shifts is None or shifts[:, 0].sum() > count or not shifts[:, 0].all()):
        return None
    if b"stss" in tables and (keys is None or not ((np.diff(keys, prepend=0) > 0).all() and (keys <= count).all())):
        return None
    if not len(sizes):
        return _Chunks(offsets, offsets, np.zeros(len(offsets), bool))
    behind = np.minimum(behind, count)
    total, empty = (np.concatenate([[0], np.cumsum(values)]) for values in (sizes, sizes == 0))
    before = np.concatenate([[0], behind[:-1]])
    return _Chunks(offsets, offsets + total[behind] - total[before], empty[behind] > empty[before])


def _sizes(tables: dict[bytes, memoryview]) -> tuple[np.ndarray | None, int]:
    """Bytes of each sample, none where all have the same, and how many there are; None where the table is broken.

    What is the same for all is in old sound not the bytes of one (QuickTime File Format, "Sample Size Atoms").
    """
    body = tables.get(b"stsz", tables.get(b"stz2", memoryview(b"")))
    if len(body) < 12:
        return None, 0
    same, count = (int(n) for n in np.frombuffer(body, ">u4", 2, 4))
    if b"stsz" in tables:
        width, same = 4, bool(same)
    else:
        width, same = {8: 1, 16: 2}.get(body[7], 0), body[7] == 4
    if same:
        return np.zeros(0, np.int64), count
    if not width or len(body) < 12 + width * count:
        return None, count
    return np.frombuffer(body, f">u{width}", count, 12).astype(np.int64), count


def _table(body: memoryview | None, kind: str, columns: int = 0) -> np.ndarray | None:
    """The numbers of a table that begins with how many entries it has, in columns if there are any; None where it is
    broken."""
    width = np.dtype(kind).itemsize * max(columns, 1)
    if body is None or len(body) < 8:
        return None
    count = int.from_bytes(body[4:8], "big")
    if len(body) < 8 + width * count:
        return None
    numbers = np.frombuffer(body, kind, count * max(columns, 1), 8).astype(np.int64) if count else np.zeros(0, np.int64)
    return numbers.reshape(-1, columns) if columns else numbers


def _lie_apart(chunks: list[_Chunks]) -> bool:
    """Whether no chunk begins within another, and none with samples of no bytes ends before the next begins."""
    start, end = (np.concatenate([getattr(each, name) for each in chunks]) for name in ("start", "end"))
    hollow = np.concatenate([each.hollow for each in chunks])
    order = np.lexsort((end, start))
    start, end, hollow = start[order], end[order], hollow[order]
    if (end < start).any():
        return False
    again = np.concatenate([[False], (np.diff(start) == 0) & (np.diff(end) == 0)])
    start, end, hollow = start[~again], end[~again], hollow[~again]
    return not ((start[1:] < end[:-1]) | (hollow[:-1] & (start[1:] > end[:-1]))).any()


def _fragments_fit(path: str | os.PathLike[str]) -> bool:
    """Whether the samples of fragments (8.8) are no longer than what lies behind them."""
    stated = room = 0
    with open(path, "rb") as file:
        for kind, at, head, length in top_boxes(path):
            if kind == b"moof":
                if room and stated > room:
                    return False
                file.seek(at + head)
                found = _stated(memoryview(file.read(min(length - head, MOST_BYTES))))
                if found is None:
                    return False
                stated, room = (0 if room else stated) + found, 0
            elif kind == b"mdat":
                room += length - head
    return not room or stated <= room


def _stated(moof: memoryview) -> int | None:
    """Bytes of a fragment's samples, as far as it states them itself; None where its tables are broken."""
    total = 0
    for track, content in boxes_inside(b"moof", moof):
        usual = 0
        for kind, body in boxes_inside(track, content) if track == b"traf" else ():
            flags = number(body, 0) & 0xFFFFFF
            if kind == b"tfhd" and flags & 0x10:
                usual = number(body, 8 + 8 * bool(flags & 1) + 4 * bool(flags & 2) + 4 * bool(flags & 8))
            elif kind == b"trun":
                begin, count = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4), number(body, 4)
                fields = (flags & 0xF00).bit_count()
                if len(body) < begin + 4 * fields * count:
                    return None
                if flags & 0x200 and count:
                    table = np.frombuffer(body, ">u4", fields * count, begin).reshape(count, fields)
                    total += int(table[:, int(flags & 0x100 != 0)].sum(dtype=np.int64))
                else:
                    total += usual * count
    return total
