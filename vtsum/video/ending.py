"""Whether a file ends where its own structure says."""

from __future__ import annotations

import os
from typing import BinaryIO

from vtsum.video.boxes import ends_inside_a_box, holds_another

HEAD = 4096
"""Bytes of a Matroska file's beginning that tell its segment's size."""
_REST, _PADDING = 0.05, 16_000  # of a file, and bytes, that may lie behind its last packet: M2TS is filled up


def ends_early(path: str | os.PathLike[str], form: str) -> bool | None:
    """Whether a file is shorter than its outermost parts state; None where its format does not state that.

    Args:
        form: libav's name of the format.
    """
    if "mp4" in form:
        return ends_inside_a_box(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if "matroska" in form:
                end = matroska_end(file.read(HEAD))
                return None if end is None else end > size
            if "avi" in form:
                at = 0
                while at + 8 <= size:  # OpenDML has several
                    file.seek(at)
                    head = file.read(8)
                    length = int.from_bytes(head[4:], "little")
                    if head[:4] != b"RIFF" or length == 0xFFFFFFFF:  # written to a pipe
                        return False
                    at += 8 + length
                return at > size + 1
            if form == "flv":
                return not _ends_with_a_tag(path, size)
    except OSError:
        pass
    return None


def left_unread(path: str | os.PathLike[str], form: str, read_until: int) -> bool:
    """Whether another recording follows in the file that is not read: MP4 or FLV joined byte by byte, or a transport
    stream whose second half has streams of its own.

    Args:
        form: libav's name of the format. read_until: where the last packet ends, in bytes.
    """
    if "mp4" in form:
        return holds_another(path)
    size = os.stat(path).st_size
    rest = max(_REST * size, 0 if form == "flv" else _PADDING)
    return form in ("flv", "mpegts", "mpeg") and 0 < read_until < size - rest


def matroska_end(head: bytes) -> int | None:
    """Where the segment of a file that begins so ends by its own statement, or None (RFC 8794 and 9559)."""
    at = 0
    for kind in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        if head[at : at + 4] != kind or at + 4 >= len(head) or not head[at + 4]:
            return None
        width = 9 - head[at + 4].bit_length()
        length = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return None  # not known: a live recording
        at += 4 + width + length
    return at


_ID3V1 = 128  # bytes of a tag that some programs put behind whatever they play


def end_of_media(file: BinaryIO) -> int:
    """Bytes of a file without an ID3v1 tag at its end."""
    size = file.seek(0, os.SEEK_END)
    at = file.seek(max(size - _ID3V1, 0))
    return at if file.read(3) == b"TAG" else size


def _ends_with_a_tag(path: str | os.PathLike[str], size: int) -> bool:
    """Whether an FLV's last four bytes tell the length of the tag before them."""
    with open(path, "rb") as file:
        file.seek(max(size - 4, 0))
        length = int.from_bytes(file.read(4), "big")
        if not 11 <= length <= size - 4:
            return False
        file.seek(size - 4 - length)
        head = file.read(4)
    return head[0] & 31 in (8, 9, 18) and int.from_bytes(head[1:], "big") == length - 11


def begins_with_a_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file that libav takes for bare pictures of JPEG begins with one: else it is another, whose own head is
    damaged, with pictures that libav looked for."""
    with open(path, "rb") as file:
        return file.read(2) == b"\xff\xd8"


def gif_is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether the blocks of a GIF lead from its header to its trailer, or at least to the end of the file. libav looks
    for the next picture wherever they do not, and says nothing.

    Source: CompuServe, "Graphics Interchange Format, version 89a", 1990.
    """
    with open(path, "rb") as file:
        head = file.read(13)
        file.read(_colours(head[10]) if len(head) == 13 else 0)
        while (mark := file.read(1)) not in (b"", b";"):
            if mark == b"\0":  # some writers leave one between blocks
                continue
            if mark == b",":
                place = file.read(9)
                file.read(_colours(place[8]) if len(place) == 9 else 0)
            elif mark != b"!":
                return False
            if not file.read(1):  # the extension's label, or the size of the picture's codes
                return False
            while (size := file.read(1)) != b"\0":
                if not size or len(file.read(size[0])) < size[0]:
                    return False
    return True


def _colours(flags: int) -> int:
    """Bytes of the table of colours that stands behind these flags."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
