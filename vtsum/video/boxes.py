"""What an MP4's or MOV's boxes (ISO/IEC 14496-12) say that libav does not tell, or believes without a check."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from pathlib import Path

import numpy as np

from vtsum.video.edits import pictures_of_edits, scale_of

MOST_BYTES = 64 << 20
"""Of an index that is looked at, or unpacked; an hour's takes about one million."""
_MOST_BOXES = 1_000_000  # beside one another
_FEW_BOXES = 200_000  # that any file may have, those in others counted
_LEAST_BOX = 12  # bytes of a larger file for each further box: a fragment for every picture has 15 or more
_MOST_TABLES = 10_000  # boxes in a track, which has 30 or so
_FEW_ENTRIES = 1_000_000  # of libav's index, that any file may have
_MOST_ENTRIES = 20_000_000  # where edits repeat them: half a gigabyte
_FEW_DECODED = 20_000  # pictures, for the edits of any file
# Times that pictures are decoded for edits: a cut every second, and key pictures 10 s apart, make 20.
_MOST_DECODED = 20
DEEPEST = 10
"""Boxes in one another; libav goes no deeper."""
MEDIA = frozenset((b"mdat", b"moov", b"moof"))
"""Pictures and sound of a file, and its index."""
_HOLDERS = frozenset(b"moov trak edts mdia minf stbl moof traf mvex cmov".split())


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether the sample descriptions say that pictures are encrypted (ISO/IEC 23001-7)."""
    moov = index_of(path)
    return b"encv" in moov and b"sinf" in moov


def is_still(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds pictures as items (ISO/IEC 23008-12: HEIC, AVIF) and no track of them."""
    kinds = {kind for kind, *_ in top_boxes(path)}
    return b"meta" in kinds and not kinds & {b"moov", b"moof"}


def excessive_index(path: Path) -> str | None:
    """What a file must do about the samples of all its tracks and fragments, which are more than one of its size may
    hold or show, or None.

    A sample takes a byte at least. libav makes an entry of its index, of up to 48 bytes, of every one that is stated,
    and of all that an edit shows, from the key picture before it on: some bytes of tables or edits make gigabytes.
    """
    size = os.stat(path).st_size
    count = _Count(max(_FEW_BOXES, size // _LEAST_BOX))
    try:
        for kind, content in _contents(path, count.box):
            count.see(kind, memoryview(content), 0)
    except _TooManyError as error:
        return str(error)
    if count.samples > max(_FEW_ENTRIES, size):
        return f"must hold the samples that its tables state, got {count.samples} in {size} bytes"
    if count.shown > max(_MOST_ENTRIES, size):
        return f"must not repeat its pictures without end, states {count.edits} edits of {count.edited} samples"
    if count.decoded > max(_FEW_DECODED, _MOST_DECODED * count.samples):
        return (
            f"must not repeat its pictures without end, states edits for which {count.decoded} are decoded of "
            f"{count.samples} samples"
        )
    return None


class _TooManyError(Exception):
    """Boxes or bytes that take longer to look at than a file of its size may."""


class _Count:
    """Samples that boxes state, wherever libav looks for them.

    Args:
        most: boxes that the file may have.
    Attributes:
        samples (int): of all tracks and fragments. shown (int): of all tracks by all edits. edits, edited (int): edits
            and samples of the track of which most is shown. decoded (int): pictures decoded for edits, key pictures
            before them and what follows those included.
    """

    def __init__(self, most: int) -> None:
        self.samples = self.shown = self.edits = self.edited = self.decoded = 0
        self._scale = 0  # units a second of edits' durations
        self._most, self._boxes, self._unpacked = most, 0, 0

    def box(self) -> None:
        """One more box; too many are refused."""
        self._boxes += 1
        if self._boxes > self._most:
            raise _TooManyError(f"must hold at most {self._most} boxes, got more")

    def _inside(self, kind: bytes, content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        for inner, body in boxes_inside(kind, content):
            self.box()
            if kind == b"cmvd":
                self._unpacked += len(body)
                if self._unpacked > MOST_BYTES:
                    raise _TooManyError(f"must hold an index of at most {MOST_BYTES} bytes, got more")
            yield inner, body

    def see(self, kind: bytes, content: memoryview, depth: int) -> None:
        if kind == b"trak":
            self._see_track(content, depth)
        elif kind == b"mvhd":
            self._scale = scale_of(content)
        elif kind == b"trun":
            self.samples += number(content, 4)
        elif depth < DEEPEST:
            for inner, body in self._inside(kind, content):
                self.see(inner, body, depth + 1)

    def _see_track(self, content: memoryview, depth: int) -> None:
        tables = list(islice(self._tables(b"trak", content, depth), _MOST_TABLES + 1))
        if len(tables) > _MOST_TABLES:
            raise _TooManyError(f"must hold at most {_MOST_TABLES} boxes in a track, got more")
        sizes = max((number(body, 8) for kind, body in tables if kind in (b"stsz", b"stz2")), default=0)
        chunks = max((number(body, 4) for kind, body in tables if kind in (b"stco", b"co64")), default=0)
        runs = max((_in_chunks(body, chunks) for kind, body in tables if kind == b"stsc"), default=0)
        # Sound without a size for each sample: an entry is made of 160 of them or more.
        samples = max(sizes, runs // 160)
        # libav takes as many edits as the box has room for, whatever number it states.
        edits = max((len(body) // 12 for kind, body in tables if kind == b"elst"), default=0)
        # Old sound in QuickTime, such as IMA's, counts what comes out: a byte for each, of which up to six are one.
        bytes_each = any(kind == b"stsz" and number(body, 4) == 1 for kind, body in tables)
        self.samples += samples // 8 if bytes_each else samples
        if edits > 1:
            self.shown += edits * samples
            if edits * samples > self.edits * self.edited:
                self.edits, self.edited = edits, samples
            if any(kind == b"hdlr" and body[8:12] == b"vide" for kind, body in tables):
                self.decoded += pictures_of_edits(tables, self._scale)

    def _tables(self, kind: bytes, content: memoryview, depth: int) -> Iterator[tuple[bytes, memoryview]]:
        for inner, body in self._inside(kind, content):
            yield inner, body
            if depth < DEEPEST:
                yield from self._tables(inner, body, depth + 1)


def _in_chunks(runs: memoryview, chunks: int) -> int:
    """Samples that a table of samples to chunks (stsc) gives to so many chunks."""
    entries = max(len(runs) - 8, 0) // 12
    table = np.frombuffer(runs, ">u4", 3 * entries, 8 if entries else 0).reshape(-1, 3).astype(np.float64)
    first = table[:, 0]
    behind = np.minimum(np.append(first[1:], chunks + 1), chunks + 1)[:entries]
    return int((np.maximum(behind - first, 0) * table[:, 1]).sum())


def number(content: bytes | memoryview, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")


def breaks_off(path: str | os.PathLike[str]) -> bool:
    """Whether the fragments of a fragmented file do not lead to its end: libav takes what it can follow for the whole.

    Behind an ordinary file's boxes anything may lie; its index says what there is.
    """
    boxes = list(takewhile(lambda box: any(box[0]), top_boxes(path)))
    if not boxes or len(boxes) >= _MOST_BOXES or b"moof" not in (kind for kind, *_ in boxes):
        return False
    _, begin, _, length = boxes[-1]
    return begin + length != os.stat(path).st_size


def holds_another(path: str | os.PathLike[str]) -> bool:
    """Whether a second index follows the first, as where two files were joined byte by byte; it is never read."""
    return sum(kind == b"moov" for kind, *_ in top_boxes(path)) > 1


def ends_inside_a_box(path: str | os.PathLike[str], kinds: frozenset[bytes] | None = None) -> bool:
    """Whether a box of the file itself is longer than what is left of it.

    Args:
        kinds: of these alone; `MEDIA`: an end that was lost, perhaps of the sound alone. Behind those may lie
            a tag that looks like a box of any length. None: of any.
    """
    size = os.stat(path).st_size
    return any((kinds is None or kind in kinds) and at + length > size for kind, at, _, length in top_boxes(path))


def index_of(path: str | os.PathLike[str]) -> bytes:
    """The content of the first moov box, or nothing; the words of its tables mean nothing inside mdat."""
    return next((content for kind, content in _contents(path) if kind == b"moov"), b"")


def _contents(path: str | os.PathLike[str], each: Callable[[], None] = lambda: None) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes of a file that hold others; `each` is called for every box."""
    with open(path, "rb") as file:
        for kind, at, head, length in top_boxes(path):
            each()
            if kind in _HOLDERS:
                try:
                    left = os.fstat(file.fileno()).st_size - file.seek(at + head)
                    content = file.read(max(min(length - head, left, MOST_BYTES), 0))  # `read` takes the memory first
                except (OSError, OverflowError, ValueError):
                    continue
                yield kind, content


def top_boxes(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, int, int, int]]:
    """Kind, place, length of its head and length of each box of a file; what is damaged, or no box, ends them."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            for _ in range(_MOST_BOXES):
                file.seek(at)
                if not (box := _box(file.read(16), size - at)):
                    return
                kind, head, length = box
                yield kind, at, head, length
                at += length
    except (OSError, OverflowError, ValueError):
        return


def _box(start: bytes | memoryview, left: int) -> tuple[bytes, int, int] | None:
    """Kind, length of its head and length of the box that begins so, or None where none does."""
    if len(start) < 8:
        return None
    length, head = number(start, 0), 8
    if length == 1:
        length, head = int.from_bytes(start[8:16], "big"), 16
    elif length == 0:
        length = left
    return (bytes(start[4:8]), head, length) if length >= head else None


def boxes_inside(kind: bytes, content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The kind and content of each box in a box of this kind; what is damaged ends them."""
    if kind == b"cmvd":  # a compressed moov
        with contextlib.suppress(zlib.error):
            yield b"moov", memoryview(zlib.decompressobj().decompress(content[4:], MOST_BYTES))[8:]
    if kind not in _HOLDERS:
        return
    at = 0
    while box := _box(content[at : at + 16], len(content) - at):
        inner, head, length = box
        yield inner, content[at + head : at + length]
        at += length
