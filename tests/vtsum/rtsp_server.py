"""A camera on this machine: RTSP with H.264 in RTP over the same connection (RFC 2326, RFC 6184), as much as a player
asks for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av

_LARGEST = 1400  # bytes of a unit that goes in one packet
_CLOCK = 90_000


def units(film: Path) -> list[tuple[float, list[bytes]]]:
    """Seconds and NAL units of each picture of an H.264 film in MPEG-TS."""
    with av.open(str(film)) as source:
        base = source.streams.video[0].time_base
        assert base is not None
        packets = [(float(p.pts * base), bytes(p)) for p in source.demux(video=0) if p.pts is not None]
    return [(time, _split(data)) for time, data in packets]


def _split(data: bytes) -> list[bytes]:
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.rstrip(b"\0")]


def packets(pictures: Sequence[tuple[float, list[bytes]]]) -> Iterator[bytes]:
    """RTP packets of pictures, those of a large unit in parts (FU-A)."""
    number = 0
    for time, found in pictures:
        parts: list[bytes] = []
        for unit in found:
            if len(unit) <= _LARGEST:
                parts.append(unit)
                continue
            indicator, kind, rest = unit[0] & 0xE0 | 28, unit[0] & 0x1F, unit[1:]
            pieces = [rest[at : at + _LARGEST] for at in range(0, len(rest), _LARGEST)]
            for at, piece in enumerate(pieces):
                place = (at == 0) << 7 | (at == len(pieces) - 1) << 6
                parts.append(bytes((indicator, place | kind)) + piece)
        for at, part in enumerate(parts):
            marker = (at == len(parts) - 1) << 7
            stamp = round(time * _CLOCK) & 0xFFFFFFFF
            yield struct.pack(">BBHII", 0x80, marker | 96, number & 0xFFFF, stamp, 7) + part
            number += 1


@contextmanager
def camera(film: Path, *, breaks_off: bool = False) -> Iterator[str]:
    """The address of one that shows a film, then says that it ends.

    Args:
        breaks_off: it says nothing more after half of it, and keeps the connection.
    """
    pictures = units(film)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        over = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as asked:
                    _answer(connection, asked, address, pictures[: len(pictures) // 2] if breaks_off else pictures)
                    if breaks_off:
                        over.wait(60)

        threading.Thread(target=serve, daemon=True).start()
        yield address
        over.set()


def _answer(connection: socket.socket, asked, address: str, pictures: Sequence[tuple[float, list[bytes]]]) -> None:
    while line := asked.readline().decode():
        method, headers = line.partition(" ")[0], {}
        while (header := asked.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            body += "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
            more = f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            assert "TCP" in headers["transport"]
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            more = f"Session: 1\r\nRTP-Info: url={address}/track1;seq=0;rtptime=0\r\n"
        connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{body}".encode())
        if method == "PLAY":
            for packet in packets(pictures):
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
            return
