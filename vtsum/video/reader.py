"""Frames at a steady rate from a video of any length, decoded once, in a fixed amount of memory."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.video.boxes import MEDIA, breaks_off, ends_inside_a_box
from vtsum.video.clock import ClockedPackets, together
from vtsum.video.damage import Damage, TransportJoins
from vtsum.video.ending import ends_early, left_unread
from vtsum.video.formats import BARE
from vtsum.video.packets import MOST_HELD
from vtsum.video.picture import Pictures, display_size, is_hdr, turn_of
from vtsum.video.source import (
    PacketDecoder,
    choose_audio,
    choose_video,
    discard_others,
    open_container,
    show,
)
from vtsum.video.spoilt import spoilt_check
from vtsum.video.structure import heads_are_whole, holes_of
from vtsum.video.timeline import (
    Stays,
    Timeline,
    claimed_duration,
    claims_from,
    frame_rate,
    own_duration,
    stated_duration,
    stream_duration,
    time_base,
)

LOST_END = 2.0  # seconds that may be missing against the container's statement before the end counts as broken
_HELD_FOR = 0.5  # seconds of sound behind the last picture for which it stays
_LOST_SOUND = 1.0  # seconds of sound before the first picture that are told
ROUNDING = 1e-4  # seconds; timestamps in milliseconds or 90 kHz ticks fall this close beside the grid


@dataclass(frozen=True)
class SampledFrame:
    """One sampled frame.

    Attributes:
        index (int): 0, 1, 2, ...; the grid point is index / fps.
        time (float): the grid point, in seconds from the first picture of the video.
        image (np.ndarray): uint8 [H, W, 3], RGB, upright. Where a picture stays on the screen over several grid
            points they share one array.
    """

    index: int
    time: float
    image: np.ndarray


class FrameSampler:
    """Yields the picture on display at each grid point k / fps within a video's duration.

    The file is decoded once, from front to back. Pictures that no other depends on are not decoded where they lie
    between grid points; what comes out is the same. The attributes are final once the iteration is over.

    Args:
        path: a video file.
        fps (float): grid points per second.
        size (tuple[int, int] | None): width and height that frames are stretched to; None: as the first is displayed,
            those of another shape between black bars.
        skip_nonref (bool): leave out the decoding of pictures that nothing depends on.
        on_progress: called with the seconds decoded so far, about once for each sampled frame.
        on_picture: called with (time, frame) for every picture that was decoded, in order; frames as the codec gave
            them, not upright.
        on_packet: called at each packet that is read; what it raises ends the iteration.
    Attributes:
        duration (float): seconds until which the last picture that could be decoded stays: where nothing broke, to its
            stated end, or as long as there is sound.
        broken_at (float | None): where decoding failed for good before the end, in seconds.
        damaged (list[tuple[float, float]]): where pictures were concealed, could not be decoded, or were skipped with a
            damaged part of the file; spans in seconds. Not all damage can be noticed (SECURITY.md).
        warnings (list[str]): what else was passed over, one line each.
        decoded_frames (int): pictures decoded.
        largest (tuple[int, int]): width and height of the largest picture as stored: they may change midway.
    Raises:
        VTSumError: at the first iteration, for a file that `probe` refuses or without any picture that decodes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float = 1.0,
        size: tuple[int, int] | None = None,
        skip_nonref: bool = True,
        on_progress: Callable[[float], None] | None = None,
        on_picture: Callable[[float, VideoFrame], None] | None = None,
        on_packet: Callable[[], None] | None = None,
    ) -> None:
        if not (math.isfinite(fps) and 0 < fps <= 1000):
            raise VTSumError(f"FrameSampler: fps must be above 0 and at most 1000, got {fps}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise VTSumError(f"FrameSampler: size must be (width, height), each at least 1, got {size}")
        self.path = path
        self.fps = fps
        self.size = size
        self.duration = 0.0
        self.broken_at: float | None = None
        self.damaged: list[tuple[float, float]] = []
        self.warnings: list[str] = []
        self.decoded_frames = 0
        self.largest = (0, 0)
        self._skip_nonref = skip_nonref
        self._on_progress = on_progress
        self._on_picture = on_picture
        self._on_packet = on_packet
        self._used = False

    def __iter__(self) -> Iterator[SampledFrame]:
        if self._used:
            raise VTSumError("FrameSampler: can be iterated once only; make another one")
        self._used = True
        container = open_container(self.path, "FrameSampler")
        try:
            yield from self._sample(container, choose_video(container, self.path, "FrameSampler"))
        finally:
            container.close()

    def _sample(self, container: InputContainer, stream: VideoStream) -> Iterator[SampledFrame]:
        with closing(
            _Run(self.path, container, stream, self.fps if self._skip_nonref else None, self._on_packet)
        ) as run:
            yield from self._grid(run, stream)

    def _grid(self, run: _Run, stream: VideoStream) -> Iterator[SampledFrame]:
        pictures: Pictures | None = None
        shown: VideoFrame | None = None
        image: np.ndarray | None = None
        index = 0
        for time, frame in run.frames():
            if self._on_picture:
                self._on_picture(time, frame)
            if pictures is None:
                turn = turn_of(frame)
                if is_hdr(frame):
                    self.warnings.append("the pictures are HDR: their brightness was brought to the ordinary range")
                native = display_size(frame.width, frame.height, stream.sample_aspect_ratio, turn)
                shape = native if self.size is None else None
                pictures = Pictures(self.size or native, turn, shape=shape, aspect=stream.sample_aspect_ratio)
            if frame.width * frame.height > self.largest[0] * self.largest[1]:
                self.largest = frame.width, frame.height
            while shown is not None and index / self.fps < time - ROUNDING:
                if image is None:
                    image = pictures.rgb(shown)
                yield SampledFrame(index, index / self.fps, image)
                index += 1
                if self._on_progress:
                    self._on_progress(time)
            shown, image = frame, None
            self.duration = run.end
        if shown is None or pictures is None:
            raise VTSumError(
                f"FrameSampler: {show(self.path)}: no picture could be decoded ({stream.codec_context.name} video, "
                f"{run.decoder.errors} damaged packets)"
            )
        self._sum_up(run)
        while index == 0 or index / self.fps < self.duration - ROUNDING:
            if image is None:
                image = pictures.rgb(shown)
            yield SampledFrame(index, index / self.fps, image)
            index += 1
        if self._on_progress:
            self._on_progress(self.duration)

    def _sum_up(self, run: _Run) -> None:
        self.decoded_frames = run.count
        self.duration = run.end
        if run.breaks_off:
            self.broken_at = self.duration
            self.warnings.append(f"the video breaks off at {self.duration:.1f} s")
        else:
            self.duration = run.shown_until
            if run.cut_short:
                self.warnings.append("the file is cut short: pictures or sound that lay at its end are missing")
        self.damaged = run.damage.spans(self.duration)
        if run.sound_before > _LOST_SOUND:
            self.warnings.append(f"{run.sound_before:.1f} s of sound before the first picture are left out")
        if run.decoder.errors:
            self.warnings.append(f"{run.decoder.errors} damaged packets were passed over")
        if run.packets.errors:
            self.warnings.append(f"the file could not be read in {run.packets.errors} places")
        if run.rate_is_assumed:
            self.warnings.append("the file does not say how long its pictures stay: 25 a second are assumed")
        if run.mute and run.unknown_sound:
            self.warnings.append("the sound is of a kind that cannot be read: it is left out")
        if run.mute and run.packets.unseen:
            self.warnings.append("streams that begin in the middle of the file, perhaps its sound, were not read")
        if run.left_unread:
            self.warnings.append("another recording follows in the file: it was not read")
        if run.packets.jumps:
            places = "1 place" if run.packets.jumps == 1 else f"{run.packets.jumps} places"
            self.warnings.append(f"timestamps jump in {places}: what follows was put behind what came before")


class _Run:
    """One pass over a stream's pictures, in order of presentation."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: InputContainer,
        stream: VideoStream,
        fps: float | None,
        on_packet: Callable[[], None] | None,
    ) -> None:
        self.decoder = PacketDecoder(stream)
        self.damage = Damage()
        self._format = container.format.name
        self._path = path
        self._joins = TransportJoins() if "mpegts" in container.format.name else None
        self._context = stream.codec_context
        self._is_spoilt = spoilt_check(self._context.name)
        self._tick = float(time_base(stream))
        self._step = 1.0 / float(frame_rate(stream))
        claimed = stated_duration(container, stream)
        self.timeline = Timeline(time_base(stream), self._step, claimed)
        self.end = 0.0
        self._repeated_until = 0.0
        self._begun = 0  # packets of pictures
        self._given: deque[float] = deque(maxlen=1000)  # when pictures are shown that the decoder was given, and owes
        self._early: list[int] = []  # ticks of damaged packets before the first picture
        self.count = 0
        self.cut_short = False
        self._read_until = 0
        self._stream = stream
        # The picture on display at a grid point comes at most two steps before it. Below four steps between grid
        # points there is nothing to save.
        self._period = 1.0 / fps if fps is not None and 1.0 / fps >= 4 * self._step else None
        streams = together(container, stream, stream)
        discard_others(container, streams)
        self._holes = holes_of(path, self._format, len(container.streams), [each.id for each in streams])
        self._unseen_since: float | None = None  # since when holes were not looked for
        self.packets = ClockedPackets(container, streams, on_packet=on_packet)
        self._claimed = claimed
        self._claims_from = claims_from(container, stream)
        self._likely_end = claimed_duration(container, stream)
        self._own_claim = own_duration(container, stream)
        self._sound: tuple[float, float] | None = None  # raw seconds of its start and end, if it is read
        self._stated_sound: tuple[float, float] | None = None  # else as it is stated
        audio = choose_audio(container, stream)
        self.mute = audio is None
        self.unknown_sound = any(each.type == "audio" and each.codec_context is None for each in container.streams)
        self._sound_tick = 0.0 if audio is None else float(time_base(audio))
        if audio is not None and audio not in streams and (length := stream_duration(audio)):
            begin = float((audio.start_time or 0) * time_base(audio))
            self._stated_sound = begin, begin + length

    @property
    def rate_is_assumed(self) -> bool:
        """Whether neither the file, of bare pictures, nor their codec states a rate."""
        return self._format in BARE and self._context.framerate is None

    @property
    def breaks_off(self) -> bool:
        """Whether pictures are missing at the end: the decoder gave up, or the file states more than there is, and
        nothing else accounts for that."""
        if self.decoder.gave_up:
            return True
        if self._claimed is None or self._claimed - self._late - self.end <= LOST_END:
            return False
        if self._sound is not None and self._from_origin(self._sound[1]) > self._claimed - self._late - LOST_END:
            return False  # the sound lasts so long
        if self.packets.errors or any(end > self.end - LOST_END for _, end in self.damage.spans(self.end)):
            return True
        if "matroska" in self._format and 0 < self._read_until < os.stat(self._path).st_size / 2:
            return True  # libav found nothing more behind a damaged part
        return ends_early(self._path, self._format) is not False

    @property
    def shown_until(self) -> float:
        """How long the last picture stays: while there is sound, and, where no sound ends with it, as is stated."""
        end, stays = self.end, Stays()
        sound = self._sound or self._stated_sound
        heard_until = 0.0 if sound is None else self._from_origin(sound[1])
        stated = 0.0 if self._own_claim is None else self._own_claim - self._late
        if heard_until < end - LOST_END and stays.believable(stated - end):
            end = max(end, stated)
        if heard_until > end + _HELD_FOR and stays.believable(heard_until - end):
            end = heard_until
        return end

    @property
    def sound_before(self) -> float:
        """Seconds of sound before the first picture."""
        stated = self._stated_sound if "mp4" in self._format else None  # AVI counts from 0, wherever sound begins
        sound = self._sound or stated
        return 0.0 if sound is None else max(-self._from_origin(sound[0]), 0.0)

    @property
    def left_unread(self) -> bool:
        """Whether another recording follows in the file."""
        return left_unread(self._path, self._format, self._read_until)

    def _from_origin(self, raw: float) -> float:
        return raw - (self.timeline.origin or 0.0)

    @property
    def _late(self) -> float:
        """How much later than the stated duration counts from the first picture comes, in seconds."""
        if self.timeline.origin is None:
            return 0.0
        return max(self.timeline.origin - self._claims_from, 0.0)

    def close(self) -> None:
        if self._holes is not None:
            self._holes.close()

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        for packet in self.packets:
            self._read_until = max(self._read_until, (packet.pos or 0) + packet.size)
            self._note_hole(packet)
            if packet.stream_index != self._stream.index:
                self._note_sound(packet)
                continue
            self._begun += 1
            skipped = not packet.is_corrupt and not self.decoder.counted and self._may_skip(packet)
            self._context.skip_frame = "NONREF" if skipped else "DEFAULT"
            errors = self.decoder.errors
            frames = self.decoder.decode(packet)
            if not packet.size:
                self._note_repeat(packet)
            time = self._time(packet, self.end)
            if packet.size and not skipped and not self.decoder.counted:
                self._given.append(time)
            corrupt = packet.is_corrupt and self._joins is None
            if self.decoder.errors > errors or corrupt or self._is_spoilt(packet):
                self._note_damage(packet, time)
            self._note_lost()
            if self._joins is not None and (lost := self._joins.damaged(packet, time)) is not None:
                self.damage.add(lost, lost + self._step)
            yield from self._place(frames)
            if self.decoder.gave_up:
                break
        errors = self.decoder.errors
        last = self.decoder.decode(None)
        self._note_lost()
        yield from self._place(last)
        if self.decoder.errors > errors:
            self.damage.add(self.end, self.end)
        if self._early:
            self.damage.add(0.0, self.end)  # no picture says when it is shown
        self._note_missing(max(self._given, default=0.0))
        if Stays().believable(self._repeated_until - self.end):
            self.end = max(self.end, self._repeated_until)
        if self._holes is not None and self._holes.at_end():
            self.damage.add(self.end, self.end)
        self.cut_short = "mp4" in self._format and ends_inside_a_box(self._path, MEDIA)
        if self.cut_short or ("mp4" in self._format and breaks_off(self._path)):
            self.damage.add(self.end, self.end)
        if not heads_are_whole(self._path, self._format):
            self.damage.add(0.0, self.end)  # where, is not known

    def _note_hole(self, packet: Packet) -> None:
        if self._holes is None:
            return
        since = self.end if self._unseen_since is None else self._unseen_since
        hole = self._holes.before(packet)
        if hole:
            self.damage.add(since, self._time(packet, self.end))
        self._unseen_since = since if hole is None else None

    def _note_damage(self, packet: Packet, time: float) -> None:
        if self.timeline.origin is None and packet.pts is not None:
            self._early.append(packet.pts)  # when that is, is known with the first picture
        else:
            self.damage.add(time, time + self._step)

    def _note_lost(self) -> None:
        for ticks in self.decoder.lost:
            if (time := self.timeline.peek(ticks)) is not None:
                self.damage.add(time, time + self._step)

    def _place(self, frames: list[VideoFrame]) -> Iterator[tuple[float, VideoFrame]]:
        for frame in frames:
            self.count += 1
            time = self.timeline.place(self.decoder.ticks(frame))
            if self._early and self.timeline.origin is not None:
                for early in self._early:
                    self.damage.add(begin := early * self._tick - self.timeline.origin, begin + self._step)
                self._early = []
            if time is not None:
                self._note_missing(time)
                self.end = self.timeline.end(time, frame.duration)
                if self.decoder.concealed(frame):
                    self.damage.add(time, self.end)
                yield time, frame

    def _time(self, packet: Packet, otherwise: float) -> float:
        """When a packet is shown, in seconds."""
        time = self.timeline.peek(packet.pts)
        return otherwise if time is None else time

    def _may_skip(self, packet: Packet) -> bool:
        time = self.timeline.peek(packet.pts)
        # Until the first picture comes nothing can be skipped. How soon it comes depends on the machine's threads, but
        # what is seen of a video must not.
        if time is None or self._period is None or self._begun <= MOST_HELD:
            return False
        if self._likely_end is None or time > self._likely_end - self._late - 1.0:
            return False  # near the end every picture counts: the last one sets the duration
        duration = packet.duration * self._tick if packet.duration else 0.0
        lead = max(2 * self._step, min(1.5 * duration, 1.0))
        return (ROUNDING - time) % self._period - ROUNDING > lead

    def _note_missing(self, time: float) -> None:
        """Tell pictures before `time` that the decoder passed over in silence, as after a change of codec."""
        if time > self.end + LOST_END and any(self.end + self._step < given < time for given in self._given):
            self.damage.add(self.end, time)
        while self._given and self._given[0] <= time:
            self._given.popleft()

    def _note_repeat(self, packet: Packet) -> None:
        """An empty packet lets the picture before it stay: Theora's and AVI's way to say that nothing changed."""
        time = self.timeline.peek(self.decoder.ticks(packet))
        if time is not None:
            self._repeated_until = max(self._repeated_until, self.timeline.end(time, packet.duration))

    def _note_sound(self, packet: Packet) -> None:
        if packet.pts is not None:
            begin = packet.pts * self._sound_tick
            end = begin + (packet.duration or 0) * self._sound_tick
            self._sound = (begin, end) if self._sound is None else (self._sound[0], max(self._sound[1], end))
