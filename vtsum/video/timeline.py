"""From a stream's timestamps to seconds that only go forward, whatever a damaged or joined file says."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from vtsum.video.source import PacketReader

_SHORT_GAP = 1.0  # seconds; such a gap is believed whatever the container says
_LONG_GAP = 60.0  # seconds; longer gaps are never believed where the container states no duration
_BRIEF = 10.0  # seconds that any picture may stay
_STILL = 3600.0  # seconds that one picture stays at most: a file of a few bytes may state years
_STILLS = 28_800.0  # seconds that those which stay longer than _BRIEF do so in all


# Formats that write a duration down; elsewhere libav derives it from the timestamps that are to be checked against it.
_STATES_DURATION = {"mp4", "matroska", "avi", "gif", "asf", "flv"}
_INDEXED = {"mp4", "matroska", "avi", "gif", "asf", "ogg"}
_SCANNED = {"mpegts", "mpeg"}


def stated_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return `claimed_duration`, or None where it is no independent statement."""
    if set(container.format.name.split(",")) & _STATES_DURATION:
        return claimed_duration(container, stream)
    return None


def claimed_duration(container: InputContainer, stream: Stream) -> float | None:
    """Return how long the container says that a stream lasts, in seconds, or None.

    Of several statements the shortest counts: a damaged one is far more often huge than a little short.
    """
    claims = []
    if stream.duration and stream.time_base:
        claims.append(float(stream.duration * stream.time_base))
    elif (tag := stream_tag_duration(stream)) is not None:
        claims.append(tag)
    if container.duration:
        claims.append(container.duration / av.time_base)
    claims = [claim for claim in claims if claim > 0]
    return min(claims) if claims else None


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
            return hours * 3600 + minutes * 60 + seconds
    return None


def time_base(stream: Stream) -> Fraction:
    """Return the seconds of one tick; microseconds where a damaged header states none."""
    return stream.time_base if stream.time_base else Fraction(1, 1_000_000)


def frame_rate(stream: VideoStream) -> Fraction:
    """Return the average frame rate as stated, kept within 1..240; 25 where nothing is stated."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and rate > 0:
            return min(max(Fraction(rate), Fraction(1)), Fraction(240))
    return Fraction(25)


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

    A timestamp that goes back by a second or more, forward beyond what the container states, or forward by more than
    pictures are believed to stay (an hour; eight hours in all, without stays of seconds) is a jump: the frame is placed
    one step after the one before it, and those after it are shifted alike as long as they continue the jump.

    Args:
        time_base (Fraction): seconds per tick.
        step (float): seconds that a frame lasts by default.
        claimed (float | None): the duration stated by the container.
        origin (float | None): raw seconds that become 0.
        sought (bool): the first frame was sought, and may lie at any time.

    Attributes:
        jumps (int): timestamps that were not believed. last (float | None): the time of the last frame placed.
    """

    def __init__(
        self,
        time_base: Fraction,
        step: float,
        claimed: float | None,
        *,
        origin: float | None = None,
        sought: bool = False,
    ) -> None:
        self.time_base = time_base
        self.step = step
        self.claimed = claimed
        self.origin = origin
        self.last: float | None = None
        self.jumps = 0
        self._shifts = [0.0]
        self._sought = sought
        self._stays = Stays()

    def peek(self, ticks: int | None) -> float | None:
        """Return where a packet with this timestamp would lie, without placing it."""
        if ticks is None or self.origin is None:
            return None
        return float(ticks * self.time_base) - self.origin + self.shift

    def lost(self, ticks: int | None) -> float | None:
        """Return where a packet that does not decode would lie: not before what was placed, whatever it says."""
        time = self.peek(ticks)
        return None if time is None else max(time, self.last or 0.0)

    @property
    def shift(self) -> float:
        """Seconds that are added to times from the origin, after a jump."""
        return self._shifts[0]

    def place(self, ticks: int | None) -> float | None:
        """Return the time of the next frame, or None for a frame that is not later than the one before."""
        if ticks is None:
            return self._put(0.0 if self.last is None else self.last + self.step)
        raw = float(ticks * self.time_base)
        if self.origin is None:
            self.origin = raw
        raw -= self.origin
        if self.last is None:
            if not self._sought and not self._stays.believable(raw):
                self.jumps += 1
                self._shifts = [-raw, 0.0]
            return self._put(raw + self._shifts[0])
        for shift in self._shifts:
            if self._believable(raw + shift):
                if shift != self._shifts[0]:
                    self._shifts.reverse()
                return self._put(raw + shift)
        if -_SHORT_GAP < raw + self._shifts[0] - self.last <= 0:
            return None  # a picture out of order or shown twice
        self.jumps += 1
        time = self.last + self.step
        self._shifts = [time - raw, self._shifts[0]]
        return self._put(time)

    def end(self, time: float, duration: int | None) -> float:
        """Return when a frame placed at `time` ends, its stated duration in ticks being believed within reason."""
        if duration:
            seconds = float(duration * self.time_base)
            inside = self.claimed is not None and time + seconds <= self.claimed + self.step
            inside = inside and self._stays.believable(seconds)
            if 0 < seconds <= max(_SHORT_GAP, 5 * self.step) or (seconds > 0 and inside):
                return time + seconds
        return time + self.step

    def _believable(self, time: float) -> bool:
        gap = time - (self.last or 0.0)
        if gap <= 0:
            return False
        if gap <= max(_SHORT_GAP, 5 * self.step):
            return True
        if not self._stays.believable(gap):
            return False
        if self.claimed is None:
            return gap <= _LONG_GAP
        return time <= self.claimed + _SHORT_GAP

    def _put(self, time: float) -> float:
        if self.last is not None or not self._sought:
            self._stays.add(time - (self.last or 0.0))
        self.last = time
        return time


def is_continuous(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a seek by timestamp can be trusted: no timestamp jumps.

    Formats with an index are judged by it. Of MPEG-TS and MPEG-PS, which are joined and cut freely in the wild, all
    packets are read, without decoding; the container is then at its end. Other formats are not trusted.
    """
    base = time_base(stream)
    formats = set(container.format.name.split(","))
    if formats & _INDEXED:
        claimed = claimed_duration(container, stream)
        return _runs_on((entry.timestamp for entry in stream.index_entries), base, claimed)
    if formats & _SCANNED:
        packets = PacketReader(container, [stream])
        return _runs_on((p.dts for p in packets if p.dts is not None), base, None) and not packets.errors
    return False


def _runs_on(ticks: Iterable[int], base: Fraction, claimed: float | None) -> bool:
    """Whether timestamps in decoding order never go back and leave no gap that the stated duration denies."""
    last = first = None
    stays = Stays()
    for tick in ticks:
        time = float(tick * base)
        first = time if first is None else first
        if last is not None:
            denied = claimed is None or time - first > claimed + 2 * _SHORT_GAP
            if time < last or (time - last > _LONG_GAP and denied) or not stays.believable(time - last):
                return False
            stays.add(time - last)
        last = time
    return True
