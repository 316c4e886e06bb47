"""Whether an AVI's index is true: libav counts its entries for the time of what it seeks or reads, and gives other
pictures, without a word, where some are damaged.

Sources: Microsoft, "AVI RIFF File Reference"; OpenDML AVI File Format Extensions 1.02.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_MOST_BYTES = 1 << 28  # of one index: days
_MOST_CHUNKS = 100_000  # beside one another, before the index
_KEY = 1 << 31  # in a standard index: not a key picture


def index_is_true(path: str | os.PathLike[str]) -> bool:
    """Whether every entry of the indexes tells the name, the place and the length of a chunk, in the order of the file.
    Without an index libav reads from the front."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = np.memmap(file, np.uint8, "r") if size else np.zeros(0, np.uint8)
        room = size // 8  # of so many chunks at most
        try:
            for names, places, lengths in _tables(file, size):
                room -= len(names)
                if room < 0 or not _holds(content, names, places, lengths):
                    return False
        except ValueError:
            return False
    return True


class Forward:
    """A file that can only be read on: of such a one libav does not look for the index."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - as long as the container
        self.read, self.name = self._file.read, os.fspath(path)

    def __del__(self) -> None:
        self._file.close()


_Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # names, places and lengths of chunks


def _tables(file: BinaryIO, size: int) -> Iterator[_Table]:
    movi = 0
    for name, at, length in _chunks(file, 12, size):
        if name == b"hdrl":
            yield from _standard(file, at, length, size)
        elif name == b"movi" and not movi:
            movi = at - 4
        elif name == b"idx1" and movi:
            yield from _old(file, at, max(min(length, _MOST_BYTES, size - at), 0), movi)


def _chunks(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, and place and length of the content, of each chunk; of a list the name is its own."""
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 8 or at >= end:
            return
        length = int.from_bytes(head[4:8], "little")
        is_list = head[:4] == b"LIST"
        yield (head[8:], at + 12, length - 4) if is_list else (head[:4], at + 8, length)
        at += 8 + length + length % 2


def _old(file: BinaryIO, at: int, length: int, movi: int) -> list[_Table]:
    """idx1: of each chunk its name, flags, place (from the word "movi" on, or from the first byte) and length."""
    file.seek(at)
    found = file.read(length)
    entries = np.frombuffer(found[: len(found) // 16 * 16], "<u4").reshape(-1, 4)
    entries = entries[entries[:, 0] != int.from_bytes(b"rec ", "little")]
    if not len(entries):
        return []
    places = entries[:, 2].astype(np.int64)
    return [(entries[:, 0], places + (0 if places[0] > movi else movi), entries[:, 3])]


def _standard(file: BinaryIO, at: int, length: int, size: int) -> Iterator[_Table]:
    """The standard indexes to which the index of each stream leads.

    Raises:
        ValueError: one of them is none.
    """
    for name, inner, inner_length in _chunks(file, at, at + length):
        for kind, place, count in _chunks(file, inner, inner + inner_length) if name == b"strl" else ():
            if kind == b"indx":
                file.seek(place)
                table = file.read(max(min(count, _MOST_BYTES, size - place), 0))  # `read` takes the memory first
                used = int.from_bytes(table[4:8], "little")
                if len(table) < 24 or table[3] != 0 or used > (len(table) - 24) // 16:
                    raise ValueError("an index of indexes must hold what it states")
                for begin in np.frombuffer(table, "<u8", 2 * used, 24)[::2]:
                    yield _one_standard(file, min(int(begin), size), size)


def _one_standard(file: BinaryIO, at: int, size: int) -> _Table:
    file.seek(at)
    head = file.read(32)
    count = int.from_bytes(head[12:16], "little")
    if len(head) < 32 or head[:2] != b"ix" or head[11] != 1 or not 0 < 8 * count <= min(_MOST_BYTES, size):
        raise ValueError("an index must be one of chunks, with its entries")
    values = np.frombuffer(file.read(8 * count), "<u4").reshape(count, 2)
    names = np.full(count, int.from_bytes(head[16:20], "little"), "<u4")
    places = values[:, 0].astype(np.int64) + int.from_bytes(head[20:28], "little") - 8
    return names, places, values[:, 1] & ~np.uint32(_KEY)


def _holds(content: np.ndarray, names: np.ndarray, places: np.ndarray, lengths: np.ndarray) -> bool:
    if places.min() < 0 or places.max() > len(content) - 8 or not (np.diff(places) > 0).all():
        return False
    heads = content[places[:, None] + np.arange(8)]
    return bool((heads.view("<u4") == np.stack([names, lengths], axis=1)).all())
