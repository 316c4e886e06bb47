"""Pictures of a source that has no end yet: a file that still grows, a pipe, standard input, an address of a stream.

What is opened is held to the formats and protocols that files are held to, and an address to those of its own kind: no
playlist, and nothing that names another source. Only pictures are read. A source has ended where its pipe is closed,
where libav says so, or where nothing has come for as long as its reader has patience.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.files import AnyPath
from vtsum.shown import reason, without_secrets
from vtsum.video.boxes import excessive_index
from vtsum.video.clock import ClockedPackets
from vtsum.video.formats import ALLOWED, HEAD, describe, refers_elsewhere
from vtsum.video.matroska import excessive_tags
from vtsum.video.opening import OPEN_TIMEOUT, EndlessError, excessive_tables, within
from vtsum.video.reader import ROUNDING
from vtsum.video.source import (
    MAX_PIXELS,
    MAX_READ_ERRORS,
    PacketDecoder,
    check_file,
    choose_video,
    discard_others,
    show,
)
from vtsum.video.timeline import Timeline, stated_duration, time_base

_POLL = 0.1  # seconds between two looks at a file that does not grow
_WAIT = 0.2  # seconds that a pipe is waited for before it is asked whether anybody still wants it
_FRAGMENTS = 1 << 20  # bytes at a file's start in which a fragment of MP4 shows that it may grow
_FASTEST = 240.0  # pictures a second
#: Schemes of addresses, each with the protocols that libav may speak for it.
PROTOCOLS = {
    "http": "http,https,tcp,tls,httpproxy",
    "https": "http,https,tcp,tls,httpproxy",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "udp": "udp",
    "tcp": "tcp",
}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)


@dataclass(frozen=True)
class LiveInfo:
    """What is known of a source once it is open.

    Attributes:
        rate: pictures a second, as stated; 25 where nothing is. width, height: as stored. codec, container: libav's
            names. aspect: width of a stored pixel over its height; None: they are square.
    """

    rate: float
    width: int
    height: int
    codec: str
    container: str
    aspect: Fraction | None


def scheme_of(source: AnyPath) -> str | None:
    """The scheme of an address, in small letters; None of what is a path, or "-"."""
    found = _ADDRESS.match(source) if isinstance(source, str) else None
    return None if found is None else found[1].lower()


def is_file(source: AnyPath) -> bool:
    """Whether a source is a regular file, which can be read again from its start."""
    try:
        return scheme_of(source) is None and source != "-" and stat.S_ISREG(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False


class LivePictures:
    """The pictures of a source as they come: yields (seconds from its first picture, frame), times rising.

    Pictures that no other depends on are not decoded where they lie between grid points k / fps, as `FrameSampler` has
    it.

    Args:
        source: a path, "-" (standard input), or an address of one of PROTOCOLS.
        fps (float): of the grid points that will be looked at.
        patience (float): seconds without anything new after which a file or an address has ended.
        stop (Event): set by who wants no more; the iteration then ends.
    Attributes:
        info (LiveInfo | None): known from the first picture on.
        until (float): seconds until which the last picture stays. ended (bool): the source has ended by itself.
        errors (int): packets that did not decode, and places that could not be read. jumps (int): timestamps that were
            not believed.
    Raises:
        VTSumError: at the first iteration, for what is no source, or holds no video that can be decoded.
    """

    def __init__(self, source: AnyPath, *, fps: float, patience: float, stop: threading.Event) -> None:
        self._source, self._fps, self._patience, self._stop = source, fps, patience, stop
        address = scheme_of(source)
        if address is not None and address not in PROTOCOLS:
            raise VTSumError(f"stream: source must be a path, - or an address of {', '.join(PROTOCOLS)}, got {address}")
        self._name = "standard input" if source == "-" else without_secrets(show(source))
        self.info: LiveInfo | None = None
        self.until = 0.0
        self.ended = False
        self.errors = self.jumps = 0

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        container, bytes_ = self._open()
        try:
            stream = choose_video(container, self._source, "stream")
            yield from self._pictures(container, stream)
            self.ended = not self._stop.is_set()
            if self.info is None and self.ended:
                raise VTSumError(f"stream: {self._name}: no picture could be decoded")
        finally:
            container.close()
            if bytes_ is not None:
                bytes_.close()

    def _open(self) -> tuple[InputContainer, _Bytes | None]:
        address = scheme_of(self._source)
        bytes_: _Bytes | None = None
        options = {"max_pixels": str(MAX_PIXELS)}
        allowed = {"format_whitelist": ",".join(ALLOWED), "protocol_whitelist": "none"}
        try:
            if address is not None:
                allowed["protocol_whitelist"] = PROTOCOLS[address]
                if address.startswith("rtsp"):
                    allowed["format_whitelist"] += ",rtsp"
                    allowed["rtsp_transport"] = "tcp"  # by UDP packets are lost in silence
                work = partial(
                    av.open,
                    os.fspath(self._source),
                    metadata_errors="replace",
                    options=options,
                    container_options=allowed,
                    timeout=(self._patience, self._patience / MAX_READ_ERRORS),
                )
            else:
                bytes_ = self._bytes()
                work = partial(
                    av.open, bytes_, metadata_errors="replace", options=options, container_options=allowed, mode="r"
                )
            container = within(OPEN_TIMEOUT, work, computing=True)
            if stated := excessive_tables(container):
                container.close()
                raise VTSumError(f"stream: {self._name}: {stated}")
            return container, bytes_
        except VTSumError:
            raise
        except EndlessError as error:
            raise VTSumError(f"stream: {self._name}: could not be opened {error}") from None
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            found = reason(error) if bytes_ is None else describe(bytes_.head)
            raise VTSumError(
                f"stream: {self._name}: must be a video that can be read as it comes, found {found}"
            ) from None

    def _bytes(self) -> _Bytes:
        if self._source == "-":
            made = _Bytes(os.dup(sys.stdin.fileno()), self._patience, self._stop, grows=False)
        elif is_file(self._source):
            made = self._file()
        else:
            try:
                if not stat.S_ISFIFO(os.stat(self._source).st_mode):
                    check_file(self._source, "stream")
                made = _Bytes(os.open(self._source, os.O_RDONLY | os.O_CLOEXEC), 0.0, self._stop, grows=False)
            except (OSError, ValueError):
                check_file(self._source, "stream")
                raise
        made.begin()
        if refers_elsewhere(made.head):
            made.close()
            raise VTSumError(f"stream: {self._name}: must be a video, got a playlist or another text that names files")
        return made

    def _file(self) -> _Bytes:
        path = os.path.abspath(os.fspath(self._source))
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        start = os.pread(handle, _FRAGMENTS, 0)
        # Where the index of an MP4 lies behind its pictures, only what is whole can be read, and is by seeking.
        whole = start[4:8] == b"ftyp" and b"moof" not in start
        stated = excessive_index(check_file(path, "stream")) if whole else None
        if start.startswith(b"\x1aE\xdf\xa3"):
            stated = stated or excessive_tags(path)
        if stated:
            os.close(handle)
            raise VTSumError(f"stream: {self._name}: {stated}")
        return (_SeekableBytes if whole else _Bytes)(handle, self._patience, self._stop, grows=not whole)

    def _pictures(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
        context = stream.codec_context
        rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        rate = min(max(rates[0] if rates else 25.0, 1.0), _FASTEST)
        step, period = 1.0 / rate, 1.0 / self._fps
        timeline = Timeline(time_base(stream), step, stated_duration(container, stream))
        discard_others(container, [stream])
        decoder, packets = PacketDecoder(stream), ClockedPackets(container, [stream])

        def placed(frames: list[VideoFrame]) -> Iterator[tuple[float, VideoFrame]]:
            for frame in frames:
                if self.info is None:
                    self.info = LiveInfo(
                        rate, frame.width, frame.height, context.name, container.format.name, stream.sample_aspect_ratio
                    )
                found = timeline.place(decoder.ticks(frame))
                if found is not None:
                    self.until = max(self.until, timeline.end(found, frame.duration))
                    yield found, frame
            self.errors, self.jumps = decoder.errors + packets.errors, packets.jumps

        for packet in packets:
            if self._stop.is_set():
                return
            at = timeline.peek(packet.pts)
            skipped = False
            if at is not None and packet.size and not decoder.counted and period >= 4 * step and not packet.is_corrupt:
                skipped = (ROUNDING - at) % period - ROUNDING > 2 * step
                self.until = max(self.until, at + step) if at < self.until + period else self.until
            context.skip_frame = "NONREF" if skipped else "DEFAULT"
            yield from placed(decoder.decode(packet))
            if decoder.gave_up:
                break
        yield from placed(decoder.decode(None))


class _Bytes:
    """The bytes of a pipe or of a file that grows, as libav asks for them.

    Attributes:
        head (bytes): the first ones.
    """

    def __init__(self, handle: int, patience: float, stop: threading.Event, *, grows: bool) -> None:
        self._handle, self._patience, self._stop, self._grows = handle, patience, stop, grows
        self._came = time.monotonic()
        self._over = False
        self._begun = b""  # read, and not asked for yet
        self.head = b""

    def begin(self) -> None:
        """Wait for the first bytes."""
        while len(self._begun) < HEAD and (data := self._next(HEAD)):
            self._begun += data
        self.head = self._begun

    def read(self, size: int) -> bytes:
        if self._begun:
            data, self._begun = self._begun[:size], self._begun[size:]
            return data
        return self._next(size)

    def _next(self, size: int) -> bytes:
        while not (self._over or self._stop.is_set()):
            if not self._grows:
                if select.select([self._handle], [], [], _WAIT)[0]:
                    return os.read(self._handle, size)
                continue
            if data := os.read(self._handle, size):
                self._came = time.monotonic()
                return data
            self._over = time.monotonic() - self._came > self._patience
            self._stop.wait(_POLL)
        return b""

    def close(self) -> None:
        os.close(self._handle)


class _SeekableBytes(_Bytes):
    """Of a file that is whole."""

    def begin(self) -> None:
        self.head = os.pread(self._handle, HEAD, 0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._handle, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._handle, 0, os.SEEK_CUR)
