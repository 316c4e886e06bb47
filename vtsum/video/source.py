"""Opening a video file and decoding it so that damage is survived: what the reader and the writer have in common.

Everything libav raises is turned into a VTSumError that names the file, or counted and passed over where later packets
may still decode. libav's own log never reaches the terminal.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import av
import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.shown import clean

MAX_PIXELS = 36_000_000  # 8192 x 4320 and a little: above it a damaged header would take gigabytes
MAX_ERRORS_IN_A_ROW = 1000  # packets; an intact part of a file never fails this often
MAX_READ_ERRORS = 10
IO_TIMEOUT = 60.0  # seconds without an answer from the file system

# Formats that libav would open, but that are no videos of the user's: text art, playlists, still pictures.
_PLAYLISTS = {"hls", "concat", "dash", "sdp", "rtsp", "applehttp", "imf"}
_TEXT = {"tty", "bin", "xbin", "adf", "idf"}

av.logging.set_level(None)


def show(path: str | os.PathLike[str]) -> str:
    """Return a path as text that any terminal can print, undecodable bytes as question marks."""
    return clean(os.fsdecode(os.fspath(path)))


def reason(error: BaseException) -> str:
    """Return what went wrong in one short line, without libav's numbers."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def check_file(path: str | os.PathLike[str], function: str) -> Path:
    """Return the absolute path of a readable, regular, non-empty file.

    Raises:
        VTSumError: it is missing, empty, a directory, a pipe or a device, or may not be read.
    """
    name = show(path)
    try:
        # An absolute path: libav would take "http:x.mp4" or "concat:x.mp4" for a protocol.
        found = Path(os.path.abspath(os.fspath(path)))
        status = os.stat(found)
    except FileNotFoundError:
        raise VTSumError(f"{function}: {name}: no such file") from None
    except (OSError, ValueError) as error:
        raise VTSumError(f"{function}: {name}: cannot be read: {reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
        kind = next((word for test, word in kinds if test(status.st_mode)), "device")
        raise VTSumError(f"{function}: {name}: must be a video file, got a {kind}")
    if status.st_size == 0:
        raise VTSumError(f"{function}: {name}: must be a video file, got an empty file (0 bytes)")
    if not os.access(found, os.R_OK):
        raise VTSumError(f"{function}: {name}: cannot be read: permission denied")
    return found


def open_container(path: str | os.PathLike[str], function: str) -> InputContainer:
    """Open a media file.

    Raises:
        VTSumError: not a file that libav knows, a playlist, a still picture, or one that cannot be read.
    """
    found = check_file(path, function)
    name = show(path)
    try:
        container = av.open(
            os.fspath(found),
            mode="r",
            metadata_errors="replace",
            timeout=IO_TIMEOUT,
            container_options={"protocol_whitelist": "file"},  # a file must not fetch others over the network
        )
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        what = _describe(found) or f"nothing playable ({reason(error)})"
        raise VTSumError(f"{function}: {name}: must be a video file, found {what}") from None
    formats = set(container.format.name.split(","))
    unfit = None
    if formats & _PLAYLISTS:
        unfit = "a playlist"
    elif formats & _TEXT:
        unfit = "text"
    elif formats & {"image2", "ico"} or container.format.name.endswith("_pipe"):
        unfit = "a still picture"
    if unfit:
        container.close()
        raise VTSumError(f"{function}: {name}: must be a video file, got {unfit} ({container.format.name})")
    return container


def _describe(path: Path) -> str | None:
    """Say in words what a file that libav refuses seems to be, or return None."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return "an MP4 or MOV whose index is missing or damaged (was the recording or the download cut short?)"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "a Matroska or WebM file whose header is damaged"
    if not any(head):
        return "zeros only at its start"
    return None


def _is_encrypted(container: InputContainer, path: str | os.PathLike[str]) -> bool:
    """Whether an MP4's sample descriptions say that its pictures are encrypted (ISO/IEC 23001-7)."""
    if "mp4" not in container.format.name:
        return False
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while True:  # walk the top-level boxes to the moov: the words mean nothing inside mdat
                at = file.tell()
                head = file.read(16)
                if len(head) < 8:
                    return False
                length, kind = int.from_bytes(head[:4], "big"), head[4:8]
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                elif length == 0:
                    length = size - at
                if length < 8:
                    return False
                if kind == b"moov":
                    file.seek(at)
                    moov = file.read(min(length, 64 << 20))
                    return b"encv" in moov and b"sinf" in moov
                file.seek(at + length)
    except OSError:
        return False


def choose_video(container: InputContainer, path: str | os.PathLike[str], function: str) -> VideoStream:
    """Return the stream to show: the default one, then the largest; never a cover picture.

    Raises:
        VTSumError: there is no video, it is encrypted, or no decoder knows it.
    """
    name = show(path)
    unwanted = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    pictures: list[VideoStream] = [s for s in container.streams.video if not s.disposition & unwanted]
    if not pictures:
        found = [f"{s.type} ({_codec_name(s)})" for s in container.streams][:4]
        what = "only sound" if container.streams.audio else "no video stream"
        raise VTSumError(f"{function}: {name}: must hold a video, got {what}: {', '.join(found) or 'no streams'}")
    if _is_encrypted(container, path):
        raise VTSumError(f"{function}: {name}: is encrypted (DRM) and cannot be decoded")
    usable = [s for s in pictures if s.codec_context is not None and s.codec_context.width > 0]
    if not usable:
        raise VTSumError(f"{function}: {name}: its video cannot be decoded: {_codec_name(pictures[0])}")
    stream = max(usable, key=lambda s: (bool(s.disposition & Disposition.default), _pixels(s), -s.index))
    if _pixels(stream) > MAX_PIXELS:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        raise VTSumError(f"{function}: {name}: pictures must be at most {MAX_PIXELS} pixels, got {size}")
    context = stream.codec_context
    context.options = {"max_pixels": str(min(MAX_PIXELS, max(2_200_000, 4 * _pixels(stream))))}
    context.thread_type = "AUTO"
    # Each decoding thread holds whole pictures: enough to be quick, few enough for large pictures to fit in memory.
    context.thread_count = min(os.cpu_count() or 1, 4 if _pixels(stream) > 4_000_000 else 8)
    return stream


def choose_audio(container: InputContainer, video: VideoStream | None) -> AudioStream | None:
    """Return the sound that goes with the video, or None."""
    try:
        best = container.streams.best("audio", related=video)
    except (av.FFmpegError, ValueError):
        best = None
    candidates = [best, *container.streams.audio]
    for stream in candidates:
        if (
            isinstance(stream, AudioStream)
            and stream.codec_context is not None
            and stream.codec_context.sample_rate > 0
        ):
            return stream
    return None


def _pixels(stream: VideoStream) -> int:
    return int(stream.codec_context.width) * int(stream.codec_context.height)


def _codec_name(stream: Stream) -> str:
    try:
        return str(stream.codec_context.name) if stream.codec_context is not None else "unknown codec"
    except (AttributeError, UnicodeDecodeError):
        return "unknown codec"


class PacketReader:
    """Reads the packets of some streams, going on after read errors for a while.

    Attributes:
        errors (int): read errors so far.
    """

    def __init__(self, container: InputContainer, streams: list[Stream]) -> None:
        self._container = container
        self._streams = streams
        self.errors = 0

    def __iter__(self) -> Iterator[Packet]:
        in_a_row = 0
        while True:
            try:
                for packet in self._container.demux(self._streams):
                    in_a_row = 0
                    if packet.size:  # an empty one would put the decoder into its final flush
                        yield packet
                return
            except IndexError:
                # PyAV 18, while it flushes at the end, looks for streams that libav found in mid-file only.
                return
            except (av.FFmpegError, OSError, MemoryError):
                self.errors += 1
                in_a_row += 1
                if in_a_row >= MAX_READ_ERRORS:
                    return


class PacketDecoder:
    """Decodes one stream's packets; a packet that fails is counted and passed over.

    Attributes:
        errors (int): packets that failed. gave_up (bool): MAX_ERRORS_IN_A_ROW packets failed one after the other.
    """

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        self._context = stream.codec_context
        self.errors = 0
        self._in_a_row = 0

    @property
    def gave_up(self) -> bool:
        return self._in_a_row >= MAX_ERRORS_IN_A_ROW

    def decode(self, packet: Packet | None) -> list:
        """Return the frames that a packet completes; None as packet returns those still held back."""
        try:
            frames = self._context.decode(packet)
        except EOFError:
            return []
        except (av.FFmpegError, ValueError, MemoryError):
            self.errors += 1
            self._in_a_row += 1
            return []
        if frames:
            self._in_a_row = 0
        return frames


def discard_others(container: InputContainer, keep: list[Stream]) -> None:
    """Tell the demuxer which streams are not wanted, so that it need not read them."""
    kept = {stream.index for stream in keep}
    for stream in container.streams:
        if stream.index not in kept:
            with contextlib.suppress(av.FFmpegError, ValueError, AttributeError):
                stream.discard = Discard.all


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """Decode the first picture of a freshly opened container, or return None where none can be decoded."""
    decoder = PacketDecoder(stream)
    for packet in PacketReader(container, [stream]):
        frames = decoder.decode(packet)
        if frames:
            return frames[0]
        if decoder.gave_up:
            break
    frames = decoder.decode(None)
    return frames[0] if frames else None
