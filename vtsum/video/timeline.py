"""What a file states about time, and a stream's frames in seconds from its first picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from itertools import chain, islice, pairwise

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtsum.video.source import PacketDecoder, PacketReader, open_container

_MEASURED = 64  # packets
_UNTIMED = 250  # pictures without a time that a file may begin with
_SHORT = 1.0  # seconds that a picture may stay whatever the container says
_BRIEF = 10.0  # seconds that any picture may stay
_STILL = 3600.0  # seconds that one picture stays at most: a file of a few bytes may state years
_UNKNOWN = 1 << 30  # pictures: what AVI states where it was written to a pipe
_STILLS = 28_800.0  # seconds that those which stay longer than _BRIEF do so in all


# Formats that write a duration down; elsewhere libav derives it from the timestamps that are to be checked against it.
_STATES_DURATION = {"mp4", "matroska", "avi", "gif", "asf", "flv"}


def stated_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return `claimed_duration`, or None where it is no independent statement."""
    if set(container.format.name.split(",")) & _STATES_DURATION:
        return claimed_duration(container, stream)
    return None


def claimed_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return how long the container says that a stream lasts, in seconds, or None.

    Of several statements the shortest counts: a damaged one is far more often huge than a little short.
    """
    return min(_claims(container, stream), default=None)


def longest_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return the longest that the container itself states of a stream, or None."""
    if set(container.format.name.split(",")) & _STATES_DURATION:
        return max(_claims(container, stream), default=None)
    return None


def _claims(container: InputContainer, stream: Stream) -> list[float]:
    if stream.frames >= _UNKNOWN:
        return []
    claims = [own] if (own := stream_duration(stream)) is not None else []
    if container.duration:
        claims.append(container.duration / av.time_base)
    return [claim for claim in claims if claim > 0]


def own_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return `stated_duration` where it is a statement about this stream, as where it is the only one; else None."""
    alone = len(container.streams) == 1
    return stated_duration(container, stream) if alone or stream_duration(stream) is not None else None


def stream_duration(stream: Stream) -> float | None:
    """Return how long the container says that this stream alone lasts, in seconds, or None."""
    if stream.frames >= _UNKNOWN:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return stream_tag_duration(stream)


def claims_from(container: InputContainer, stream: Stream) -> float:
    """Return the raw seconds from which `stated_duration` counts.

    MP4 counts from the stream's own first sample and FLV from the file's; the others say when the end comes, so that a
    stream which begins late, or a recording whose clock does not begin at 0, is shorter than that.
    """
    if "mp4" in container.format.name and stream.start_time is not None:
        return float(stream.start_time * time_base(stream))
    if container.format.name == "flv" and container.start_time is not None:
        return container.start_time / av.time_base
    return 0.0


def stream_tag_duration(stream: Stream) -> float | None:
    """Return Matroska's DURATION tag ("00:01:02.500000000") in seconds, or None."""
    for key, text in stream.metadata.items():
        if key.upper().startswith("DURATION"):
            parts = text.strip("\0 ").split(":")
            try:
                hours, minutes, seconds = (float(part) for part in parts)
            except ValueError:
                continue
            duration = hours * 3600 + minutes * 60 + seconds
            if math.isfinite(duration):  # "inf" and "nan" are numbers to Python
                return duration
    return None


def time_base(stream: Stream) -> Fraction:
    """Return the seconds of one tick; microseconds where a damaged header states none."""
    return stream.time_base if stream.time_base else Fraction(1, 1_000_000)


def frame_rate(stream: VideoStream) -> Fraction:
    """Return the average frame rate, kept within 1..240: as stated, if that is what libav makes of the first pictures,
    else as their times say; 25 where nothing is known."""
    average, guessed = stream.average_rate, stream.guessed_rate
    known = [Fraction(rate) for rate in (average, guessed, stream.base_rate) if rate is not None and rate > 0]
    doubtful = bool(average and guessed and average > 1.5 * guessed)
    rate = (_measured_rate(stream.container.name, stream.index) if doubtful else None) or (known[0] if known else 25)
    return min(max(Fraction(rate), Fraction(1)), Fraction(240))


def _measured_rate(path: str, index: int) -> Fraction | None:
    """The rate at which the first pictures follow each other, or None."""
    times = []
    with closing(open_container(path, "frame_rate")) as container:
        stream = container.streams[index]
        for packet in islice(PacketReader(container, [stream]), _MEASURED):
            ticks = packet.pts if packet.dts is None else packet.dts
            if ticks is not None:
                times.append(ticks * time_base(stream))
    times.sort()
    gaps = sorted(after - before for before, after in pairwise(times) if after > before)
    if not gaps:
        return None
    usual = gaps[len(gaps) // 2]
    near = [gap for gap in gaps if abs(gap - usual) <= usual / 4]  # Matroska rounds to milliseconds
    mean = sum(near, Fraction(0)) / len(near)
    return 1 / mean


def is_steady(stream: VideoStream) -> bool:
    """Whether a stream says that its pictures follow each other at one rate."""
    average, base = stream.average_rate, stream.base_rate
    return bool(average and base and abs(base / average - 1) < 0.01)


def first_picture(container: InputContainer, stream: VideoStream) -> tuple[VideoFrame, int | None] | None:
    """Decode the first picture of a freshly opened container, and tell when it is shown, in ticks; None where none can
    be decoded.

    Where the first pictures state no time, as those before Matroska's time 0, they lead up to the first that does.
    """
    decoder = PacketDecoder(stream)
    first: VideoFrame | None = None
    count = 0
    for packet in chain(PacketReader(container, [stream]), [None]):
        for frame in decoder.decode(packet):
            first = first or frame
            if (ticks := decoder.ticks(frame)) is not None:
                return first, ticks - round(count / frame_rate(stream) / time_base(stream))
            count += 1
        if decoder.gave_up or count > _UNTIMED:
            break
    return None if first is None else (first, None)


class Stays:
    """How long pictures are believed to stay, or sound to be silent: time is to follow what is decoded."""

    def __init__(self) -> None:
        self._left = _STILLS

    def believable(self, seconds: float) -> bool:
        return seconds <= _BRIEF or seconds <= min(_STILL, self._left)

    def add(self, seconds: float) -> None:
        if seconds > _BRIEF:
            self._left -= seconds


class Timeline:
    """Places frames in seconds from the origin: the time of the first frame placed, unless given.

    Args:
        time_base (Fraction): seconds per tick.
        step (float): seconds that a frame lasts by default.
        claimed (float | None): the duration stated by the container.
        origin (float | None): raw seconds that become 0; frames without a time lead up to the first that has one.

    Attributes:
        last (float | None): the time of the last frame placed.
    """

    def __init__(self, time_base: Fraction, step: float, claimed: float | None, *, origin: float | None = None) -> None:
        self._tick = float(time_base)
        self.step = step
        self.claimed = claimed
        self.origin = origin
        self.last: float | None = None
        self._stays = Stays()

    def peek(self, ticks: int | None) -> float | None:
        """Return where a packet with this timestamp would lie, without placing it."""
        if ticks is None or self.origin is None:
            return None
        return ticks * self._tick - self.origin

    def lost(self, ticks: int | None) -> float | None:
        """Return where a packet that does not decode would lie: not before what was placed, whatever it says."""
        time = self.peek(ticks)
        return None if time is None else max(time, self.last or 0.0)

    def place(self, ticks: int | None) -> float | None:
        """Return the time of the next frame, or None for a frame that is not later than the one before."""
        if ticks is None:
            time = 0.0 if self.last is None else self.last + self.step
        else:
            raw = ticks * self._tick
            if self.origin is None:
                self.origin = raw if self.last is None else raw - self.last - self.step
            time = raw - self.origin
            if self.last is not None and time <= self.last:
                return None  # a picture out of order or shown twice
        self.last = time
        return time

    def end(self, time: float, duration: int | None) -> float:
        """Return when a frame placed at `time` ends, its stated duration in ticks being believed within reason."""
        if duration:
            seconds = duration * self._tick
            inside = self.claimed is not None and time + seconds <= self.claimed + self.step
            inside = inside and self._stays.believable(seconds)
            if 0 < seconds <= max(_SHORT, 5 * self.step) or (seconds > 0 and inside):
                return time + seconds
        return time + self.step


def touching(segments: Sequence[tuple[float, float]]) -> list[list[int]]:
    """The numbers of segments, (start, end) in order, by runs of which each begins where the one before it ends."""
    runs: list[list[int]] = []
    for number, (start, _) in enumerate(segments):
        if runs and abs(start - segments[runs[-1][-1]][1]) < 1e-3:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
