"""Pictures at which decoding can begin with nothing from before them: not every key frame is one."""

from __future__ import annotations

from collections.abc import Iterator

from av.packet import Packet

_IDR = {"h264": frozenset({5}), "hevc": frozenset({16, 17, 18, 19, 20})}  # H.264, table 7-1; H.265, table 7-1: BLA, IDR
_LOOKED_AT = 64  # units of a packet: parameters and notes come before the picture


def stands_alone(packet: Packet, codec: str, extradata: bytes | None) -> bool:
    """Whether a packet holds a key frame that ends all reference to pictures before it.

    In H.264 and HEVC a key frame may be followed by pictures that lean on those before it (an "open" group), and counts
    on with them: behind a cut a decoder loses pictures there.

    Args:
        codec: libav's name. extradata: of the stream, which says how the units of H.264 and HEVC are parted.
    """
    if not packet.is_keyframe or codec not in _IDR:
        return bool(packet.is_keyframe)
    return begins_anew(bytes(packet), codec, extradata or b"")


def begins_anew(data: bytes, codec: str, extradata: bytes) -> bool:
    """Whether the first picture in a packet of H.264 or HEVC is an instantaneous decoding refresh, or breaks links."""
    kinds = _IDR[codec]
    for number, unit in enumerate(_units(data, codec, extradata)):
        if number == _LOOKED_AT or not unit:
            break
        kind = unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F
        picture = 1 <= kind <= 5 if codec == "h264" else kind < 32
        if picture:
            return kind in kinds
    return False


def _units(data: bytes, codec: str, extradata: bytes) -> Iterator[bytes]:
    """The first bytes of each unit: behind its length (MP4, Matroska) or behind a start code (MPEG-TS)."""
    place = {"h264": 4, "hevc": 21}[codec]
    if extradata[:1] == b"\x01" and len(extradata) > place:
        size, at = (extradata[place] & 3) + 1, 0
        while at + size < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            yield data[at + size : at + size + 2]
            at += size + length
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        yield data[at + 3 : at + 5]
        at = data.find(b"\0\0\1", at + 3)
