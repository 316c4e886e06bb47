"""What an MP4's or MOV's boxes (ISO/IEC 14496-12) say that libav does not tell, or believes without a check."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 64 << 20  # of an index that is looked at; an hour's takes about one
_MOST_BOXES = 1_000_000  # beside one another
_MOST_ENTRIES = 20_000_000  # of libav's index: half a gigabyte


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether the sample descriptions say that pictures are encrypted (ISO/IEC 23001-7)."""
    moov = _moov(path)
    return b"encv" in moov and b"sinf" in moov


def excessive_edits(path: Path) -> str | None:
    """What is stated of a track whose edit list repeats its samples beyond what a file of this size may, or None.

    libav writes all samples of an edit's part, from the key picture before it on, into its index: some bytes of edits
    make gigabytes of it.
    """
    most = max(_MOST_ENTRIES, os.stat(path).st_size)
    for kind, track in _children(_moov(path)):
        if kind != b"trak":
            continue
        edits = max((int.from_bytes(body[4:8], "big") for body in _find(track, b"edts", b"elst")), default=0)
        sizes = _find(track, b"mdia", b"minf", b"stbl", b"stsz")
        samples = max((int.from_bytes(body[8:12], "big") for body in sizes), default=0)
        if edits > 1 and edits * samples > most:
            return f"{edits} edits of {samples} samples"
    return None


def breaks_off(path: str | os.PathLike[str]) -> bool:
    """Whether the fragments of a fragmented file do not lead to its end: libav takes what it can follow for the whole.

    Behind an ordinary file's boxes anything may lie; its index says what there is.
    """
    boxes = list(_top(path))
    if not boxes or len(boxes) >= _MOST_BOXES or b"moof" not in (kind for kind, _, _ in boxes):
        return False
    _, begin, length = boxes[-1]
    return begin + length != os.stat(path).st_size


def _moov(path: str | os.PathLike[str]) -> bytes:
    """The content of the first moov box, or nothing; the words of its tables mean nothing inside mdat."""
    for kind, at, length in _top(path):
        if kind == b"moov":
            with contextlib.suppress(OSError, OverflowError, ValueError), open(path, "rb") as file:
                left = os.fstat(file.fileno()).st_size - file.seek(at + 8)
                return file.read(min(length - 8, left, _MOST_BYTES))  # `read` takes the memory first
    return b""


def _top(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of each box of a file; what is damaged, or no box, ends them."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            for _ in range(_MOST_BOXES):
                file.seek(at)
                head = file.read(16)
                if len(head) < 8:
                    return
                length, kind = int.from_bytes(head[:4], "big"), head[4:8]
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                elif length == 0:
                    length = size - at
                if length < 8 or not any(kind):
                    return
                yield kind, at, length
                at += length
    except (OSError, OverflowError, ValueError):
        return


def _children(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and content of each box in a box; what is damaged ends them."""
    at = 0
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big") or len(content) - at
        if length < 8:
            return
        yield content[at + 4 : at + 8], content[at + 8 : at + length]
        at += length


def _find(content: bytes, *way: bytes) -> Iterator[bytes]:
    for kind, body in _children(content):
        if kind == way[0]:
            if len(way) == 1:
                yield body
            else:
                yield from _find(body, *way[1:])
