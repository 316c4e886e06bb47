"""One clock for the streams of a file, whatever a damaged or joined file says: time only goes forward.

Where a stream's timestamps jump, as where two recordings were joined, all streams are shifted alike, so that sound
stays with its pictures: what lies behind the join begins as soon as both have ended before it. What cannot be told from
sound that lags behind its pictures: that of a recording joined behind one of less than 3 s without sound, which may
come as early as that one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vtsum.video.source import LATEST, LEAST_RATE, PacketReader, choose_audio
from vtsum.video.timeline import Stays, claimed_duration, stated_duration, time_base

_SHORT_GAP = 1.0  # seconds; such a gap is believed whatever the container says
_LONG_GAP = 60.0  # seconds; longer ones are not believed where recordings are joined freely
_BACK = 0.1  # seconds that a decoding time may go back; times of pictures do so by up to _SHORT_GAP
_BEHIND = 3.0  # seconds by which a packet may lie behind other streams where recordings are joined
_AHEAD = 400  # packets looked at behind a jump, at most,
_AHEAD_SECONDS = 1.0  # and seconds of the stream that jumped: so far apart lie the streams of a file
_KNOWN = 3  # shifts that a packet may belong to
_PADDING = 0.15  # seconds of sound that may end behind its pictures at a join, and is cut there
_FARTHEST = 1e11  # seconds that a float tells apart to a millisecond
_JOINED = {"mpegts", "mpeg"}  # formats whose files are joined and cut freely
_ALONE = {"mp4", "avi", "gif"}  # formats that count the time of each stream by itself
_INDEXED = {"mp4", "matroska", "avi", "gif", "asf", "ogg"}


def together(container: InputContainer, video: VideoStream | None, wanted: Stream) -> list[Stream]:
    """The streams that who wants one of them reads: pictures and sound, so that all readers see the same jumps, or
    `wanted` alone in formats that count the time of each stream by itself.
    """
    if _formats(container) & _ALONE:
        return [wanted]
    sound = choose_audio(container, video)
    if sound is not None and wanted.index != sound.index and 0 < sound.codec_context.sample_rate < LEAST_RATE:
        sound = None  # by its lengths a picture's tenth of a second would be minutes
    return [stream for stream in (video, sound) if stream is not None]


def is_continuous(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a seek by timestamp can be trusted: no timestamp jumps.

    Formats with an index are judged by it. Of MPEG-TS and MPEG-PS, which are joined and cut freely in the wild, all
    packets are read, without decoding; the container is then at its end. Other formats are not trusted.
    """
    formats = _formats(container)
    if formats & _INDEXED:
        tick = float(time_base(stream))
        track = _Track(tick, _step(stream), claimed_duration(container, stream), joined=False, pictures=True)
        for entry in stream.index_entries:
            time = entry.timestamp * tick
            if not track.believes(time, None):
                return False
            track.put(time, time, False)
        return True
    if formats & _JOINED:
        packets = ClockedPackets(container, together(container, stream, stream))
        for _ in packets:
            pass
        return not packets.jumps and not packets.errors
    return False


def _formats(container: InputContainer) -> set[str]:
    return set(container.format.name.split(","))


@dataclass
class _Track:
    """One stream's place on the clock, in seconds."""

    tick: float  # seconds; as a float, since it is needed for every packet
    step: float
    claimed: float | None
    joined: bool
    pictures: bool
    last: float | None = None
    first: float = 0.0
    end: float = 0.0
    loose: bool = False  # `last` is a time of display, which may lie before that of the next packet
    stays: Stays = field(default_factory=Stays)

    def believes(self, time: float, others: float | None) -> bool:
        """Whether a packet may follow at this time; `others`: how far other streams have come."""
        if self.last is None:
            return True
        if self.joined and others is not None and time < others - _BEHIND:
            return False
        gap = time - self.last
        if gap < (-_SHORT_GAP if self.loose else -_BACK):
            return False
        if gap <= max(_SHORT_GAP, 5 * self.step):
            return True
        if not self.stays.believable(gap):
            return False
        if others is not None and time <= others + _SHORT_GAP:
            return True
        if self.claimed is not None:
            return time - self.first <= self.claimed + _SHORT_GAP
        return not self.joined or gap <= _LONG_GAP

    def put(self, time: float, end: float, loose: bool) -> None:
        if self.last is None:  # wherever a stream begins, be it ages before 0, what jumps follows on it
            self.first, self.end = time, end
        else:
            self.stays.add(time - self.last)
            self.end = max(self.end, end)
        self.last, self.loose = time, loose


class Clock:
    """Tells by how much the packets of some streams are shifted.

    Args:
        container, streams: those whose packets will be read, all of them or one alone.
        origin (float | None): seconds that the first packet is held against where no other stream tells.
        sought (bool): reading begins anywhere.

    Attributes:
        jumps (int): timestamps that were not believed.
    """

    def __init__(
        self,
        container: InputContainer,
        streams: Sequence[Stream],
        *,
        origin: float | None = None,
        sought: bool = False,
    ) -> None:
        self.jumps = 0
        joined = bool(_formats(container) & _JOINED)
        self._tracks = {
            stream.index: _Track(
                float(time_base(stream)),
                _step(stream),
                stated_duration(container, stream),
                joined,
                stream.type == "video",
                end=origin or 0.0,
            )
            for stream in streams
        }
        self._shifts = [0.0]
        self._origin = origin
        self._sought = sought

    def place(self, packet: Packet, ahead: Iterable[Packet]) -> None:
        """Shift the times of the next packet; `ahead` are those behind it, which are looked at where time jumps."""
        index = packet.stream_index
        track = self._tracks.get(index)
        if track is None:
            return
        if (found := _time(packet, track)) is None:
            packet.pts = packet.dts = None
            return
        raw, loose = found
        shift = self._known(index, raw)
        if shift is None:
            self.jumps += 1
            shift = self._jumped(packet, raw, ahead)
        if shift is None:
            time = (track.last or 0.0) + track.step
            packet.pts = packet.dts = round(time / track.tick)
        else:
            time = raw + shift
        if shift and (ticks := round(shift / track.tick)):
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        if abs(_apart(packet, track)) > LATEST:
            packet.pts = packet.dts
            self.jumps += 1
        track.put(time, max(time, _shown(packet, track, time)) + _length(packet, track), loose)

    def _known(self, index: int, raw: float) -> float | None:
        """The shift with which a packet follows best on those before it in its stream, or None."""
        track = self._tracks[index]
        if track.last is None:
            return self._first(raw)
        if len(self._shifts) == 1 and 0 <= raw + self._shifts[0] - track.last <= _SHORT_GAP:
            return self._shifts[0]  # nearly always
        fit = [shift for shift in self._shifts if track.believes(raw + shift, self._others(index))]
        expected = track.last
        return min(fit, key=lambda shift: abs(raw + shift - expected), default=None)

    def _first(self, raw: float) -> float | None:
        begun = [(track.last, track.first, track.joined) for track in self._tracks.values() if track.last is not None]
        against, first, joined = max(begun, default=(self._origin, 0.0, False))
        if against is None or self._sought:
            return self._shifts[0]
        time = raw + self._shifts[0]
        late = joined and against - first > _BEHIND and time < against - _BEHIND  # of a recording that joins later
        return None if late or not Stays().believable(time - against) else self._shifts[0]

    def _others(self, index: int) -> float | None:
        return max((t.last for i, t in self._tracks.items() if i != index and t.last is not None), default=None)

    def _jumped(self, packet: Packet, raw: float, ahead: Iterable[Packet]) -> float | None:
        """The shift of a packet that follows on nothing; None where it alone has gone astray."""
        own = self._tracks[packet.stream_index]
        starts = {packet.stream_index: _shown(packet, own, raw)}
        begun = [track.first for track in self._tracks.values() if track.last is not None]
        ends = {i: t.end if t.last is not None else max(begun, default=t.end) for i, t in self._tracks.items()}
        for number, other in enumerate(ahead):
            index = other.stream_index
            track = self._tracks.get(index)
            if track is None or (found := _time(other, track)) is None:
                continue
            if number >= _AHEAD or len(starts) == len(ends):
                break
            at, _ = found
            known = self._known(index, at)
            if index == packet.stream_index:
                if known is not None and own.last is not None:
                    return None
                if abs(at - raw) > _AHEAD_SECONDS:
                    break
            elif known is not None and track.last is not None:  # from before the jump
                ends[index] = max(ends[index], _shown(other, track, at) + known + _length(other, track))
            else:
                starts.setdefault(index, _shown(other, track, at))
        # As early as none of the streams that jumped runs over its own end; sound may, by what encoders pad it with.
        shifts = {index: ends[index] - start for index, start in starts.items()}
        shift = max(shifts.values())
        pictures = next((shifts[index] for index in shifts if self._tracks[index].pictures), shift)
        shift = pictures if shift - pictures <= _PADDING else shift
        self._shifts = [shift, *self._shifts][:_KNOWN]
        return shift


class ClockedPackets:
    """Reads packets as `PacketReader` does, with times that only go forward on one clock.

    Args:
        on_packet: called at each packet; what it raises ends the reading.
    Attributes:
        errors (int): read errors so far. jumps (int): timestamps that were not believed so far. unseen (bool): as
            `PacketReader` has it.
    """

    def __init__(
        self,
        container: InputContainer,
        streams: list[Stream],
        *,
        origin: float | None = None,
        sought: bool = False,
        on_packet: Callable[[], None] | None = None,
    ) -> None:
        self._packets = PacketReader(container, streams)
        self._on_packet = on_packet
        self._clock = Clock(container, streams, origin=origin, sought=sought)

    @property
    def errors(self) -> int:
        return self._packets.errors

    @property
    def unseen(self) -> bool:
        return self._packets.unseen

    @property
    def jumps(self) -> int:
        return self._clock.jumps

    def __iter__(self) -> Iterator[Packet]:
        source = self._read()
        waiting: deque[Packet] = deque()

        def ahead() -> Iterator[Packet]:
            yield from tuple(waiting)
            for packet in source:
                waiting.append(packet)
                yield packet

        while (packet := waiting.popleft() if waiting else next(source, None)) is not None:
            self._clock.place(packet, ahead())
            yield packet

    def _read(self) -> Iterator[Packet]:
        for packet in self._packets:
            if self._on_packet is not None:
                self._on_packet()
            yield packet


def _step(stream: Stream) -> float:
    if isinstance(stream, AudioStream):
        return 1024 / (stream.codec_context.sample_rate or 48_000)
    rate = stream.average_rate if isinstance(stream, VideoStream) else None
    return min(1.0 / float(rate), 1.0) if rate else 0.04


def _time(packet: Packet, track: _Track) -> tuple[float, bool] | None:
    """When a packet is decoded, in raw seconds, and whether only the time of its display is known; None where neither
    is."""
    dts = packet.dts
    ticks = packet.pts if dts is None else dts
    time = math.inf if ticks is None else ticks * track.tick
    return (time, dts is None) if abs(time) <= _FARTHEST else None


def _shown(packet: Packet, track: _Track, otherwise: float) -> float:
    """When a packet that is decoded at `otherwise` is shown."""
    apart = _apart(packet, track)
    return otherwise + apart if abs(apart) <= LATEST else otherwise


def _apart(packet: Packet, track: _Track) -> float:
    """Seconds from a packet's decoding to its display; 0 where one of them is not known."""
    pts, dts = packet.pts, packet.dts
    return 0.0 if pts is None or dts is None else (pts - dts) * track.tick


def _length(packet: Packet, track: _Track) -> float:
    seconds = packet.duration * track.tick if packet.duration else 0.0
    return seconds if 0 < seconds <= max(_SHORT_GAP, 5 * track.step) else track.step
