"""Packets that libav hands out otherwise than they are meant."""

from __future__ import annotations

from av.packet import Packet
from av.video.stream import VideoStream

MOST_HELD = 32  # pictures that a decoder holds back; codecs allow 16, of two fields each


def mend_start(packet: Packet) -> None:
    """Of an AVI whose pictures begin late libav says that the first one is decoded at 0."""
    pts, dts = packet.pts, packet.dts
    rate = packet.stream.average_rate if isinstance(packet.stream, VideoStream) else None
    if rate and pts is not None and dts is not None and (pts - dts) * packet.time_base * rate > MOST_HELD:
        packet.dts = pts


def is_repeated_head(packet: Packet) -> bool:
    """Whether a packet is no picture but a head of Theora's (its specification 1.1, 6.1) that tells nothing new.

    Where files of Ogg were joined, libav hands out the later heads amid the pictures, and its decoder refuses them.
    Those that tell of other settings than the first recording's are left to it.
    """
    if bytes(memoryview(packet)[1:7]) != b"theora" or packet.stream.codec_context.name != "theora":
        return False
    return memoryview(packet)[0] == 0x81 or bytes(packet) in (packet.stream.codec_context.extradata or b"")
