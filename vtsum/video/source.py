"""Opening a video file and decoding it so that damage is survived: what the reader and the writer have in common.

Everything libav raises is turned into a VTSumError that names the file, or counted and passed over where later packets
may still decode. libav's own log never reaches the terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import av
import av.logging
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.memory import give_back
from vtsum.shown import clean, looks_like_address, reason, with_slashes
from vtsum.video.avi_index import Forward, index_is_true
from vtsum.video.boxes import excessive_index, is_encrypted, is_still
from vtsum.video.formats import ALLOWED, HEAD, STILL, describe, is_motion_jpeg, is_pattern, refers_elsewhere
from vtsum.video.matroska import excessive_tags
from vtsum.video.opening import OPEN_TIMEOUT, EndlessError, crowded, excessive_tables, within
from vtsum.video.owed import Owed, side_by_side
from vtsum.video.packets import is_repeated_head, mend_start
from vtsum.video.units import excessive_units, parted_by_start_codes, too_many_units

MAX_PIXELS = 36_000_000  # 8192 x 4320 and a little: above it a damaged header would take gigabytes
MAX_ERRORS_IN_A_ROW = 1000  # packets; an intact part of a file never fails this often
MAX_READ_ERRORS = 10
_MANY = 300_000  # packets whose places a file's tables hold
_LOOKED_AT = 1 << 20  # bytes
_USUAL = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")  # of 1 to 8 channels, as libav has them
_ENCRYPTED = "is encrypted (DRM) and cannot be decoded"
LATEST = 10.0  # seconds; a picture is never shown so much later than it is decoded
_HELD = "has_b_frames"  # libav's name for how many pictures are held back
_MOST_HELD_BACK = 15  # that H.264's decoder can be told to: with the one it decodes as many as it keeps
_DELIMITER = b"\x09\xf0"  # of H.264: a unit that says no more than where a picture begins (ITU-T H.264, 7.3.2.4)
_AGAIN = -(1 << 40)  # a timestamp that no file has
LEAST_RATE = 1000  # samples of sound a second: of a byte that lasts a second 48,000 would be made
MOST_STREAMS = 1000  # libav's max_streams, of a file that is read and of one that is written
IO_TIMEOUT = 10.0  # seconds of one call into libav, which answers no signal meanwhile: holes of gigabytes are searched

av.logging.set_level(None)


def show(path: str | os.PathLike[str]) -> str:
    """Return a path as text that any terminal can print, undecodable bytes as question marks."""
    return clean(os.fsdecode(os.fspath(path)))


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
        if looks_like_address(name):
            raise VTSumError(
                f"{function}: {with_slashes(name)}: must be a file on this machine, got an address; download it first"
            ) from None
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
    """Open a media file, and no other that it names.

    Raises:
        VTSumError: not a file that libav knows, a playlist, a still picture, or one that cannot be read.
    """
    found = check_file(path, function)
    name = show(path)
    try:
        with open(found, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise VTSumError(f"{function}: {name}: cannot be read: {reason(error)}") from None
    if refers_elsewhere(head):
        raise VTSumError(
            f"{function}: {name}: must be a video file, got a playlist or another text that names files; "
            "give the video itself"
        )
    if stated := excessive_index(found):  # before anything else looks at its boxes
        raise VTSumError(f"{function}: {name}: {stated}")
    if head[4:8] == b"ftyp" and is_still(found):
        raise VTSumError(f"{function}: {name}: must be a video file, found {STILL}")
    if head.startswith(b"\x1aE\xdf\xa3") and (stated := excessive_tags(found)):
        raise VTSumError(f"{function}: {name}: {stated}")
    begun = time.monotonic()
    try:
        forward = head[8:12] == b"AVI " and not index_is_true(found)
        form = "mjpeg" if is_motion_jpeg(found, head) else None  # else libav takes it for a single picture
        if stated := within(OPEN_TIMEOUT, lambda: excessive_units(found, MAX_PIXELS)):
            raise VTSumError(f"{function}: {name}: {stated}")
        container = within(OPEN_TIMEOUT, lambda: _open(found, form, forward=forward))
    except VTSumError:
        raise
    except EndlessError as error:
        raise VTSumError(f"{function}: {name}: could not be opened {error}") from None
    except av.error.ExitError:
        raise VTSumError(f"{function}: {name}: could not be opened within {IO_TIMEOUT:.0f} s") from None
    except MemoryError:
        raise VTSumError(
            f"{function}: {name}: states more than {MOST_STREAMS} streams, or tables that are too large"
        ) from None
    except (av.FFmpegError, OSError, ValueError):
        if time.monotonic() - begun > IO_TIMEOUT:  # some formats take being broken off for damage
            raise VTSumError(f"{function}: {name}: could not be opened within {IO_TIMEOUT:.0f} s") from None
        if head[4:8] == b"ftyp" and is_encrypted(found):
            raise VTSumError(f"{function}: {name}: {_ENCRYPTED}") from None
        content = describe(head)
        if is_pattern(found.name) and content != STILL:
            raise VTSumError(
                f"{function}: {name}: must not be named as FFmpeg names many pictures at once, got a picture's ending "
                "and one of %d * ? {; rename it"
            ) from None
        raise VTSumError(f"{function}: {name}: must be a video file, found {content}") from None
    if stated := excessive_tables(container):
        container.close()
        raise VTSumError(f"{function}: {name}: {stated}")
    if sum(stream.frames for stream in container.streams) > _MANY:
        give_back()
    return container


def _open(path: Path, form: str | None, *, forward: bool) -> InputContainer:
    return av.open(
        Forward(path) if forward else os.fspath(path),
        mode="r",
        format=form,
        metadata_errors="replace",
        timeout=IO_TIMEOUT,
        options={"max_pixels": str(MAX_PIXELS)},  # libav decodes pictures already to find out what the streams are
        container_options={"protocol_whitelist": "file", "format_whitelist": ",".join(ALLOWED)},
    )


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
    if "mp4" in container.format.name and os.path.isfile(path) and is_encrypted(path):
        raise VTSumError(f"{function}: {name}: {_ENCRYPTED}")
    usable = [s for s in pictures if s.codec_context is not None and s.codec_context.width > 0]
    if not usable:
        raise VTSumError(f"{function}: {name}: its video cannot be decoded: {_codec_name(pictures[0])}")
    # Of an animated AVIF one stream is its first picture alone.
    stream = max(usable, key=lambda s: (s.frames != 1, bool(s.disposition & Disposition.default), _pixels(s), -s.index))
    if _pixels(stream) > MAX_PIXELS:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        raise VTSumError(f"{function}: {name}: pictures must be at most {MAX_PIXELS} pixels, got {size}")
    context = stream.codec_context
    context.options = {"max_pixels": str(MAX_PIXELS)}  # later ones may be larger: recordings that were joined
    _set_threads(stream)
    return stream


def _set_threads(stream: VideoStream) -> None:
    """Have pictures decoded side by side, and none handed out before its thread has ended.

    Where pictures are put in order, libav may hand out one that another thread still decodes, marked whole; what is
    concealed in it afterwards nobody learns. H.264 can hold so many back that none is unfinished; not in AVI, where the
    places of those held back are not known. Of MPEG-4 and the like nobody would learn what the last packets owe.
    """
    context = stream.codec_context
    context.thread_type = "AUTO"
    # More threads than cores: each waits for parts of the picture before its own. Each holds whole pictures: few enough
    # for large ones to fit in memory.
    context.thread_count = min(4 * (os.cpu_count() or 1), 4 if _pixels(stream) > 4_000_000 else 8)
    if context.name == "h264":
        if context.reorder_depth and "avi" in stream.container.format.name:
            context.thread_type = "SLICE"
        elif context.reorder_depth:
            held = min(context.thread_count + context.reorder_depth, _MOST_HELD_BACK)
            context.options = {**context.options, _HELD: str(held)}
    elif side_by_side(context) and context.codec.delay and context.name != "hevc":
        context.thread_type = "SLICE"


def choose_audio(container: InputContainer, video: VideoStream | None) -> AudioStream | None:
    """Return the sound that goes with the video, or None."""
    try:
        best = container.streams.best("audio", related=video)
    except (av.FFmpegError, ValueError):
        best = None
    candidates = [
        s for s in (best, *container.streams.audio) if isinstance(s, AudioStream) and s.codec_context is not None
    ]
    known = [stream for stream in candidates if stream.codec_context.sample_rate > 0]
    # Of sound that begins in a later part of a joined recording libav has seen the end alone.
    stream = next(iter(known), None) or next((each for each in candidates if _begins_late(container, each)), None)
    if stream is not None and not stream.codec_context.is_open:
        _order_channels(stream.codec_context)
    return stream


def _order_channels(context: AudioCodecContext) -> None:
    """Let channels in an order of the file's own pass for as many in the usual one: PyAV 18 frees the table of such an
    order once for the codec and once for each frame, which ends the process."""
    layout = context.layout  # holds the codec's table, and takes it along
    if "(" in layout.name:
        count = layout.nb_channels
        context.layout = _USUAL[count - 1] if count <= len(_USUAL) else f"{count} channels"


def _begins_late(container: InputContainer, stream: AudioStream) -> bool:
    """Whether a stream of MPEG-PS, or one of MPEG-TS whose packets (ISO/IEC 13818-1, 2.4.3) are at the file's end."""
    if container.format.name != "mpegts":
        return container.format.name == "mpeg"
    with open(container.name, "rb") as file:
        file.seek(-min(_LOOKED_AT, os.fstat(file.fileno()).st_size), os.SEEK_END)
        data = file.read()
    high, low = divmod(stream.id & 0x1FFF, 256)
    begins = bytes([0x47, 0x40 | high, low])
    at = data.find(begins)
    while at >= 0:
        flags = data[at + 3 : at + 5]
        payload = at + 4 + (1 + flags[1] if len(flags) == 2 and flags[0] & 0x20 else 0)  # behind an adaptation field
        if data[payload : payload + 3] == b"\0\0\1":
            return True
        at = data.find(begins, at + 3)
    return False


def _pixels(stream: VideoStream) -> int:
    return int(stream.codec_context.width) * int(stream.codec_context.height)


def _codec_name(stream: Stream) -> str:
    try:
        return str(stream.codec_context.name) if stream.codec_context is not None else "unknown codec"
    except (AttributeError, UnicodeDecodeError):
        return "unknown codec"


class PacketReader:
    """Reads the packets of some streams, going on after read errors for a while.

    Empty packets with a time are among them: the picture before them stays.

    Attributes:
        errors (int): read errors so far. unseen (bool): streams turned up so far, whose packets PyAV does not hand out.
    """

    def __init__(self, container: InputContainer, streams: list[Stream]) -> None:
        self._container = container
        self._streams = streams
        self.errors = 0

    @property
    def unseen(self) -> bool:
        """PyAV 18 tells the number of streams only where it refuses to read one beyond it. Beyond the most that libav
        takes none turns up, and none can be asked for: PyAV would add it to another file without looking at libav's
        refusal, a crash."""
        if len(self._container.streams) >= MOST_STREAMS:
            return False
        with av.open(io.BytesIO(), "w", format="matroska") as other:
            streams = [other.add_stream("rawvideo") for _ in range(len(self._container.streams) + 1)]
            try:
                next(self._container.demux(streams[-1]), None)
            except (IndexError, av.FFmpegError, OSError, MemoryError):
                return True
            except ValueError:
                return False
        return True

    def __iter__(self) -> Iterator[Packet]:
        in_a_row = 0
        begun: set[int] = set()
        form = self._container.format.name
        while True:
            try:
                for packet in self._container.demux(self._streams):
                    in_a_row = 0
                    if "avi" in form and packet.stream_index not in begun:
                        begun.add(packet.stream_index)
                        mend_start(packet)
                    if form == "ogg" and is_repeated_head(packet):
                        continue
                    if packet.size or packet.dts is not None:
                        yield packet
                return
            except IndexError:
                # PyAV 18, while it flushes at the end, looks for streams that turned up, or not: by unset memory.
                return
            except (av.FFmpegError, OSError, MemoryError):
                self.errors += 1
                in_a_row += 1
                if in_a_row >= MAX_READ_ERRORS:
                    return


class PacketDecoder:
    """Decodes one stream's packets; a packet that fails is counted and passed over.

    Attributes:
        counted (bool): the file states when packets are decoded; when pictures are shown, libav makes up.
        errors (int): packets that failed. gave_up (bool): MAX_ERRORS_IN_A_ROW packets failed one after the other.
        failed (bool): the packet just given did, and one before it did not: where a stream is entered is no damage.
        lost (list[int]): timestamps of pictures that were to come before those just returned, and did not.
    """

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        self._context = stream.codec_context
        self.counted = stream.type == "video" and "avi" in stream.container.format.name
        self._decoded_from: int | None = None
        self._delay: int | None = None
        self._parted = parted_by_start_codes(self._context)
        self._owed = Owed(self._context, self.counted) if stream.type == "video" else None
        self._last: Packet | None = None
        self._unexplained = 0  # errors of which it is not known yet which picture is missing
        self.errors = 0
        self.failed = False
        self.lost: list[int] = []
        self._entered = False
        self._faulty = False
        self._key_shown = False
        self._entry: int | None = None
        self._in_a_row = 0
        self._tolerant: VideoCodecContext | None = None
        if self._context.name == "mjpeg" and not self._context.is_open:
            # libav marks no damaged JPEG; where a strict decoder refuses one, another shows what can be shown of it.
            self._tolerant = CodecContext.create("mjpeg", "r")
            self._tolerant.options = dict(self._context.options)
            self._tolerant.extradata = self._context.extradata
            self._context.options = {**self._context.options, "err_detect": "explode"}

    @property
    def gave_up(self) -> bool:
        return self._in_a_row >= MAX_ERRORS_IN_A_ROW

    def decode(self, packet: Packet | None) -> list:
        """Return the frames that a packet completes; None as packet returns those still held back."""
        self._faulty = self.failed = False
        self.lost = []
        if packet is not None and not packet.size:
            return []  # it would put the decoder into its final flush
        if self._entry is None and packet is not None and packet.is_keyframe:
            self._entry = packet.pts
            self._decoded_from = packet.dts
        entered = self._entered
        if packet is not None and self._owed is not None:
            self._owed.give(packet)
            self._last = packet
        frames = self._flush() if packet is None else self._decode(packet)
        if self._owed is not None:
            lost = [mark for frame in frames for mark in self._owed.take(frame)]
            rest = self._owed.rest() if packet is None else []
            if entered:  # else it is no damage
                self._note_lost(self._owed, lost, rest, at_end=packet is None)
        return frames

    def _note_lost(self, owed: Owed, lost: list[int], rest: list[int], *, at_end: bool) -> None:
        """Take pictures that did not come for damage, where that is known, and count the errors that were not told."""
        errors = len(lost) + bool(rest) if owed.each else bool(lost or rest)  # the last one was the end
        if owed.each or at_end:
            self.lost = [*lost, *rest]
            self.errors += max(errors - self._unexplained, 0)
        self._unexplained = max(self._unexplained - errors, 0)

    def _decode(self, packet: Packet | None) -> list:
        try:
            many = packet is not None and self._parted and too_many_units(packet)
            if many or (packet is not None and crowded(packet, self._context.name)):
                raise ValueError("units or texts without end")
            frames = self._context.decode(packet)
            if any(isinstance(frame, AudioFrame) and frame.sample_rate < LEAST_RATE for frame in frames):
                raise ValueError("sound that takes endless room at the rate of others")
        except EOFError:
            return []
        except (av.FFmpegError, ValueError, MemoryError):
            frames = self._decode_tolerantly(packet)
            if not frames:
                self.errors += 1
                self._in_a_row += 1
                self.failed = self._entered
                self._unexplained += self._entered
            self._faulty = bool(frames)
        if frames:
            self._in_a_row = 0
            self._entered = True
        return frames

    def _flush(self) -> list:
        """Return the last pictures, after each thread has ended by itself: it is given one packet more.

        That is a unit without a picture, of H.264, or the last packet once more, where each one has its picture.
        """
        context = self._context
        if context.name == "h264":
            context.skip_frame = "NONREF"  # so that it is no error that it holds no picture
            extra = context.extradata or b""
            counted = len(extra) > 4 and extra[0] == 1  # units come with their length (ISO/IEC 14496-15)
            begins = len(_DELIMITER).to_bytes((extra[4] & 3) + 1, "big") if counted else b"\0\0\0\1"
            packet = _packet(begins + _DELIMITER)
            frames = [frame for _ in range(context.thread_count) for frame in self._decode(packet)]
            return [*frames, *self._decode(None)]
        if self._owed is not None and self._owed.in_turn and self._last is not None:
            packet = _packet(bytes(self._last))
            packet.pts = packet.dts = _AGAIN
            frames = [frame for _ in range(context.thread_count - 1) for frame in self._decode(packet)]
            with contextlib.suppress(av.FFmpegError, ValueError, MemoryError):  # of the last packet once more
                frames += context.decode(None)
            return [frame for frame in frames if _AGAIN not in (frame.pts, frame.dts)]
        return self._decode(None)

    def ticks(self, frame: VideoFrame | Packet) -> int | None:
        """When a picture just returned, or one that an empty packet repeats, is shown, in ticks; None: one step after
        the one before it."""
        if frame.pts is not None and not self.counted:
            return frame.pts
        if frame.dts is None:  # held back until the end
            return None
        if self._delay is None:  # the decoder puts pictures in order, and returns them so much later
            self._delay = max(frame.dts - self._decoded_from, 0) if self._decoded_from is not None else 0
        return frame.dts - self._delay

    def concealed(self, frame: VideoFrame) -> bool:
        """Whether one of the frames just returned was not decoded whole.

        Frames before the first key picture refer to others that a recording which begins in mid-stream does not hold,
        nor what follows a seek: that is no damage.
        """
        if frame.pts is None:  # nothing is stated, as in a bare stream of H.264: a key picture is shown before the rest
            self._key_shown = self._key_shown or frame.key_frame
            known = self._key_shown
        else:
            known = self._entry is not None and frame.pts >= self._entry
        return self._faulty or (known and frame.is_corrupt)

    def _decode_tolerantly(self, packet: Packet | None) -> list:
        if self._tolerant is None or packet is None:
            return []
        try:
            return self._tolerant.decode(packet)
        except (av.FFmpegError, ValueError, MemoryError):
            return []


def _packet(data: bytes) -> Packet:
    """A packet that holds a copy: what is ours PyAV lets go with Python's lock, for which a decoder's thread would wait
    while the file is closed, and the closing for the thread."""
    packet = Packet(len(data))
    packet.update(data)
    return packet


def discard_others(container: InputContainer, keep: list[Stream]) -> None:
    """Tell the demuxer which streams are not wanted, so that it need not read them."""
    kept = {stream.index for stream in keep}
    for stream in container.streams:
        if stream.index not in kept:
            with contextlib.suppress(av.FFmpegError, ValueError, AttributeError):
                stream.discard = Discard.all
