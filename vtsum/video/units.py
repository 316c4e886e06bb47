"""Units of H.264, HEVC and VVC that start codes part: libav takes four KiB or more for each one of a picture, however
short, and begins to while it opens a file.

Sources: ITU-T H.264, H.265 and H.266, 7.3.1 and annex B.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from itertools import pairwise

import av
from av.codec.context import CodecContext
from av.packet import Packet

from vtsum.video.formats import ALLOWED

MOST_UNITS = 10_000  # of one picture; an encoder that makes a packet of a network of each has 2,000 at most
_HEAD = 1 << 16  # bytes, of which libav tells what a file holds; the most units in it take it 130 MB
_LOOKED_AT = 1 << 24  # bytes; libav reads 5 MB to find out what a file holds
_START = b"\0\0\1"
_PICTURES = {  # the first slice of one begins with a set bit: address 0, or that it is the first
    "h264": re.compile(rb"\x00\x00\x01[\x01\x21\x41\x61\x05\x25\x45\x65][\x80-\xff]"),
    "hevc": re.compile(rb"\x00\x00\x01[\x00-\x3f][\x00-\xff][\x80-\xff]"),
    "vvc": re.compile(rb"\x00\x00\x01[\x00-\x3f](?:[\x98-\x9f]|[\x00-\x5f][\x80-\xff])"),  # or a picture's header
}


def parted_by_start_codes(context: CodecContext) -> bool:
    """Whether a codec's units are, rather than counted by their lengths (ISO/IEC 14496-15)."""
    extra = context.extradata or b""
    return context.name in _PICTURES and (
        extra[:1] != b"\x01" if context.name == "h264" else extra[:2] in (b"", b"\0\0")
    )


def too_many_units(packet: Packet) -> bool:
    """Whether a picture has more than it may."""
    return packet.size > len(_START) * MOST_UNITS and _too_many(bytes(packet), 0, packet.size)


def _too_many(data: bytes, begin: int, end: int) -> bool:
    return end - begin > len(_START) * MOST_UNITS and data.count(_START, begin, end) > MOST_UNITS


def excessive_units(path: str | os.PathLike[str], max_pixels: int) -> str | None:
    """What a file must do about the units of its first pictures, or None; not of MP4, whose index may be last."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        codecs = set() if head[4:8] == b"ftyp" else _codecs(head, os.fspath(path), max_pixels)
        data = head + file.read(_LOOKED_AT) if codecs else b""
    for codec in sorted(codecs):
        begins = [picture.start() for picture in _PICTURES[codec].finditer(data)]
        if any(_too_many(data, *places) for places in pairwise([0, *begins, len(data)])):
            return f"must hold at most {MOST_UNITS} units of {codec} a picture, got more"
    return None


def _codecs(head: bytes, name: str, max_pixels: int) -> set[str]:
    """libav's names of those, of a file that begins so, whose units start codes part."""
    file = io.BytesIO(head)
    file.name = name
    options = {"max_pixels": str(max_pixels)}
    allowed = {"format_whitelist": ",".join(ALLOWED)}
    with (
        contextlib.suppress(av.FFmpegError, OSError, ValueError, AttributeError, MemoryError),
        av.open(file, metadata_errors="replace", options=options, container_options=allowed) as container,
    ):
        contexts = [stream.codec_context for stream in container.streams.video]
        return {context.name for context in contexts if context is not None and parted_by_start_codes(context)}
    return set()
