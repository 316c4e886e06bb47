"""What a Matroska or WebM file's elements (RFC 8794 and 9559) say that libav does not tell, or takes ages over."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_EBML, _SEGMENT, _SEEK_HEAD, _TAGS = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1254C367
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_TRACKS, _TRACK, _TRACK_NUMBER, _CRC = 0x1654AE6B, 0xAE, 0xD7, 0xBF
_MOST_TAGS = 1000  # a track and a chapter have one each; libav's time grows with the square of their number
_MOST_HEADS = 1 << 26  # bytes of all tracks' heads, in which fonts and pictures do not lie
_MOST_ELEMENTS = 200_000  # beside one another: a day of clusters has fewer


def excessive_tags(path: str | os.PathLike[str]) -> str | None:
    """What a file must do about its tags, which are more than libav reads in a second or so, or None."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = sum(1 for _ in _tags(file, size))
    except OSError:
        return None
    return f"must hold at most {_MOST_TAGS} tags, got more" if found > _MOST_TAGS else None


def track_numbers(file: BinaryIO) -> set[int]:
    """The numbers of a file's tracks, by which blocks say whose they are; those before its first picture alone."""
    numbers: set[int] = set()
    for segment, at, end in _elements(file, 0, os.fstat(file.fileno()).st_size):
        for kind, inner_at, inner_end in _elements(file, at, end) if segment == _SEGMENT else ():
            if kind == _TRACKS:
                for track, track_at, track_end in _elements(file, inner_at, inner_end):
                    values = {k: (a, e) for k, a, e in _elements(file, track_at, track_end)} if track == _TRACK else {}
                    if _TRACK_NUMBER in values:
                        numbers.add(_number(file, *values[_TRACK_NUMBER]))
                return numbers
    return numbers


def tracks_are_whole(path: str | os.PathLike[str]) -> bool:
    """Whether what a file says of its tracks, as far as it says anything, is undamaged: each track's elements fill it,
    and the checksum is right where there is one. libav leaves a damaged track out, or takes it for another's."""
    with open(path, "rb") as file:
        for segment, at, end in _elements(file, 0, os.fstat(file.fileno()).st_size):
            for kind, inner_at, inner_end in _elements(file, at, end) if segment == _SEGMENT else ():
                if kind == _TRACKS:
                    return inner_end - inner_at > _MOST_HEADS or _is_whole(file, inner_at, inner_end)
    return True


def _is_whole(file: BinaryIO, at: int, end: int) -> bool:
    filled = at
    for kind, inner_at, inner_end in _elements(file, at, end):
        if kind == _CRC and filled == at:  # of all that follows
            file.seek(inner_at)
            stated, rest = file.read(inner_end - inner_at), file.read(end - inner_end)
            if zlib.crc32(rest) != int.from_bytes(stated, "little"):
                return False
        if kind == _TRACK and max((e for _, _, e in _elements(file, inner_at, inner_end)), default=0) != inner_end:
            return False
        filled = inner_end
    return filled == end


def _tags(file: BinaryIO, size: int) -> Iterator[int]:
    """The places of tags, wherever libav looks for them, and of whatever else lies among them; one more than may be at
    most."""
    places: dict[int, int] = {}  # of Tags: where their content begins and ends
    for kind, at, end in _elements(file, 0, size):
        if kind != _SEGMENT:
            continue
        for inner, inner_at, inner_end in _elements(file, at, end):
            if inner == _TAGS:
                places[inner_at] = inner_end
            elif inner == _SEEK_HEAD:
                for target in _sought(file, inner_at, inner_end):
                    for first, first_at, first_end in _elements(file, at + target, size):
                        if first == _TAGS:
                            places[first_at] = first_end
                        break
    count = 0
    for at, end in places.items():
        for _, inner_at, _ in _elements(file, at, end):  # places may lie in one another: each must be short
            count += 1
            yield inner_at
            if count > _MOST_TAGS:
                return


def _sought(file: BinaryIO, at: int, end: int) -> Iterator[int]:
    """Where a seek head says that tags lie, from the segment's content on."""
    for kind, inner_at, inner_end in _elements(file, at, end):
        if kind != _SEEK:
            continue
        values = {k: (a, e) for k, a, e in _elements(file, inner_at, inner_end)}
        if {_SEEK_ID, _SEEK_POSITION} <= set(values) and _number(file, *values[_SEEK_ID]) == _TAGS:
            yield _number(file, *values[_SEEK_POSITION])


def _number(file: BinaryIO, at: int, end: int) -> int:
    file.seek(at)
    return int.from_bytes(file.read(min(end - at, 8)), "big")


def _elements(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, and where the content begins and ends, of each element; what is damaged, or has no stated size, ends
    them."""
    for _ in range(_MOST_ELEMENTS):
        if at >= end:
            return
        file.seek(at)
        head = file.read(12)
        if len(head) < 2 or not head[0]:
            return
        width = 9 - head[0].bit_length()
        if width > 4 or len(head) <= width or not head[width]:
            return
        more = 9 - head[width].bit_length()
        kind = int.from_bytes(head[:width], "big")
        if kind & ((1 << 7 * width) - 1) == (1 << 7 * width) - 1:  # reserved: no element's
            return
        length = int.from_bytes(head[width : width + more], "big") & ((1 << 7 * more) - 1)
        known = length != (1 << 7 * more) - 1
        content = at + width + more
        yield kind, content, min(content + length, end) if known else end
        if not known:
            return
        at = content + length
