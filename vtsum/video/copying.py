"""Cutting without encoding: packets of a video are copied from key frame to key frame, as exactly as that allows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from vtsum.errors import VTSumError
from vtsum.files import written
from vtsum.shown import one_line, reason
from vtsum.video.cursor import PictureCursor
from vtsum.video.entry_points import stands_alone
from vtsum.video.kept import kept_sound
from vtsum.video.packets import MOST_HELD
from vtsum.video.picture import Pictures, display_size, save_jpeg, turn_of
from vtsum.video.source import PacketReader, choose_audio, choose_video, discard_others, open_container, show
from vtsum.video.timeline import time_base
from vtsum.video.writer import CutResult, CutShot

# What MP4 takes as it is, by libav's names of codecs.
PICTURES = ("h264", "hevc", "av1", "vp9", "mpeg4")
SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
_BACK_OFF = (0.0, 2.0, 10.0, 60.0)  # seconds; a seek that lands late is tried again earlier, then from the front
_BEYOND = 1.0  # seconds read beyond an end: pictures come out of order by less
FARTHEST = 30.0  # seconds that a beginning is moved at most
_LEAST = 0.2  # seconds of a piece
_PATIENCE = 5.0  # seconds that sound may lie behind its pictures in the file


@dataclass
class _Piece:
    """A segment as it can be cut: its number, and seconds in the source."""

    index: int
    begin: float
    stop: float


def copy(
    path: str | os.PathLike[str],
    segments: Sequence[tuple[float, float]],
    out_path: str | os.PathLike[str],
    *,
    keyframe_dir: Path | None = None,
    keyframe_times: Sequence[float],
    keyframe_height: int = 360,
    all_sound: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> CutResult:
    """Write the given segments of a video as one MP4 without decoding or encoding them.

    A piece begins at the key frame, of those that lean on nothing before them, nearest to the start asked for, and ends
    where no picture after it is needed: how far that is from what was asked for depends on the file. A piece that would
    begin before the end of the one before goes on there.

    Args:
        path, segments, out_path, keyframe_dir, keyframe_times, keyframe_height, on_progress: as for `vtsum.video.cut`.
        all_sound (bool): copy all tracks of sound, and not the best one alone.
    Returns:
        CutResult: as `cut` gives it; a segment's `start` and `end` are those that came out.
    Raises:
        VTSumError: the file is of a codec that MP4 does not take, or its timestamps cannot be sought; it cannot be
            read, the output cannot be written.
    """
    target = Path(os.path.abspath(os.fspath(out_path)))
    with closing(PictureCursor(path, "stream_copy")) as cursor:
        if not cursor.seekable:
            raise VTSumError(
                f"stream_copy: {show(path)} must have timestamps that can be sought; cut it without stream_copy"
            )
        made: list[Path] = []
        try:
            with written(target) as part:
                job = _Copy(path, part, cursor, all_sound)
                try:
                    pieces = job.pieces(segments)
                    if not pieces:
                        raise VTSumError(f"stream_copy: {show(path)}: no segment holds a picture")
                    shots = job.write(pieces, on_progress)
                finally:
                    job.close()
            if keyframe_dir is not None:
                keyframe_dir.mkdir(parents=True, exist_ok=True)
                shots = _with_pictures(shots, cursor, keyframe_dir, keyframe_times, keyframe_height, made)
        except BaseException as error:
            for picture in made:
                picture.unlink(missing_ok=True)
            if isinstance(error, av.FFmpegError | OSError):
                where = show(target.parent)
                raise VTSumError(f"stream_copy: {where}: cannot be written to: {reason(error)}") from None
            raise
        first = cursor.first
        size = display_size(first.width, first.height, cursor.stream.sample_aspect_ratio, turn_of(first))
        return CutResult(target, shots[-1].out_end, shots, job.has_audio, *size, [])


class _Copy:
    """One copy: the file, read again for each run of pieces, and the MP4."""

    def __init__(self, path: str | os.PathLike[str], part: Path, cursor: PictureCursor, all_sound: bool) -> None:
        self._path, self._origin, self._step = path, cursor.origin, cursor.step
        self._all_sound = all_sound
        self._open()
        self.has_audio = len(self._streams) > 1
        self._target: OutputContainer = av.open(
            os.fspath(part), mode="w", format="mp4", options={"movflags": "+faststart"}
        )
        self._tracks: dict[int, Stream] = {}
        try:
            for stream in self._streams:
                track = self._target.add_stream_from_template(stream)
                named = (("language", "language"), ("handler_name", "title"))
                told = {key: one_line(stream.metadata.get(own) or "") for key, own in named}
                track.metadata.update({key: text for key, text in told.items() if text})
                if stream.codec_context.codec.canonical_name == "hevc":
                    track.codec_context.codec_tag = "hvc1"
                self._tracks[stream.index] = track
        except BaseException:
            self.close()
            raise
        self._last: dict[int, int] = {}

    def _open(self) -> None:
        self._container: InputContainer = open_container(self._path, "stream_copy")
        self._video = choose_video(self._container, self._path, "stream_copy")
        best = choose_audio(self._container, self._video)
        sounds = [] if best is None else [best]
        if self._all_sound:
            others = kept_sound(self._container, self._path, "stream_copy")
            sounds += [s for s in others if s.index not in {s.index for s in sounds}]
        self._streams: list[Stream] = [self._video, *sounds]
        for stream, known, kind in ((self._video, PICTURES, "video"), *((s, SOUND, "sound") for s in sounds)):
            name = stream.codec_context.codec.canonical_name
            if name not in known:
                raise VTSumError(
                    f"stream_copy: {show(self._path)}: its {kind} must be one of {', '.join(known)} to be copied to "
                    f"MP4, got {name}; cut it without stream_copy"
                )
        discard_others(self._container, self._streams)

    def close(self) -> None:
        self._container.close()
        if (target := getattr(self, "_target", None)) is not None:
            target.close()

    def _packets(self, start: float) -> Iterator[Packet]:
        """The packets from a key frame at or before `start` seconds on, in the order of the file."""
        ticks = time_base(self._video)
        for back in (*_BACK_OFF, None):
            if back is None or start - back <= self._step:
                self._container.close()
                self._open()
            else:
                self._container.seek(int((start - back + self._origin) / ticks), stream=self._video)
            packets = iter(PacketReader(self._container, self._streams))
            held: list[Packet] = []
            for packet in packets:
                held.append(packet)
                if self._enters(packet):
                    break
            if back is None or (held and self._enters(held[-1]) and self._time(held[-1]) <= start + self._step / 2):
                yield from held
                yield from packets
                return

    def _enters(self, packet: Packet) -> bool:
        """Whether decoding can begin at a packet."""
        if packet.stream_index != self._video.index or packet.pts is None:
            return False
        context = self._video.codec_context
        return stands_alone(packet, context.codec.canonical_name, context.extradata)

    @property
    def _beyond(self) -> float:
        """Seconds by which pictures may come out of order."""
        return max(_BEYOND, (MOST_HELD + 1) * self._step)

    def _time(self, packet: Packet) -> float:
        assert packet.pts is not None
        return float(packet.pts * packet.time_base) - self._origin

    def pieces(self, segments: Sequence[tuple[float, float]]) -> list[_Piece]:
        """Where the segments can be cut."""
        found: list[_Piece] = []
        for index, (start, end) in enumerate(segments):
            shown: list[tuple[float, bool]] = []  # when each picture is shown, in the order of the file
            for packet in self._packets(start):
                if packet.stream_index != self._video.index or packet.pts is None or not packet.size:
                    continue
                shown.append((self._time(packet), self._enters(packet)))
                if shown[-1][0] > end + self._beyond:
                    break
            before = found[-1].stop if found else 0.0
            keys = [time for time, key in shown if key and before - self._step / 2 <= time < end - _LEAST]
            begin = min(keys, key=lambda time: abs(time - start), default=None)
            joined = found and (begin is None or before >= start - self._step / 2)
            if joined and before < end - self._step / 2:  # the piece before holds what leads up to this one
                begin = before
            if begin is None or abs(begin - start) > FARTHEST:
                raise VTSumError(
                    f"stream_copy: {show(self._path)} must have a key frame that leans on no picture before it within "
                    f"{FARTHEST:g} s of {start:.1f} s, got none; cut it without stream_copy"
                )
            stops = [time for time in _stops(shown, self._step) if time > begin + self._step / 2]
            if stops:
                found.append(_Piece(index, begin, min(stops, key=lambda time: abs(time - end))))
        return found

    def write(self, pieces: Sequence[_Piece], on_progress: Callable[[float], None] | None) -> list[CutShot]:
        """Copy the pieces; those that touch in one run."""
        runs: list[list[_Piece]] = []
        for piece in pieces:
            if runs and piece.begin <= runs[-1][-1].stop + self._step / 2:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        # Times of decoding are made anew, those of display in their order: Matroska states none, and they must go on
        # over a cut. `late` is how much later than it is decoded a picture is shown at least.
        orders = [[p.pts or 0 for p in self._wanted(run) if p.stream_index == self._video.index] for run in runs]
        late = max(max((a - b for a, b in zip(sorted(pts), pts, strict=True)), default=0) for pts in orders)
        shots: list[CutShot] = []
        out = 0.0
        for run, pts in zip(runs, orders, strict=True):
            begin = run[0].begin
            decoded = iter([ticks - late for ticks in sorted(pts)])
            for packet in self._wanted(run):
                if packet.stream_index == self._video.index:
                    packet.dts = next(decoded)
                self._mux(packet, out - begin)
            for each in run:
                first = out + each.begin - begin
                shots.append(CutShot(each.begin, each.stop, first, first + each.stop - each.begin, None, each.index))
            out += run[-1].stop - begin
            if on_progress:
                on_progress(out)
        self._target.close()
        return shots

    def _wanted(self, run: Sequence[_Piece]) -> Iterator[Packet]:
        """The packets of a run, in the order of the file."""
        begin, stop, half = run[0].begin, run[-1].stop, self._step / 2
        entered, open_streams = False, {stream.index for stream in self._streams}
        for packet in self._packets(begin):
            if packet.pts is None or not packet.size:
                continue
            index, time = packet.stream_index, self._time(packet)
            if index == self._video.index:
                entered = entered or (self._enters(packet) and time >= begin - half)
                if entered and begin - half <= time < stop - half:
                    yield packet
                if time > stop + self._beyond:
                    open_streams.discard(index)
            else:
                middle = time + float((packet.duration or 0) * packet.time_base) / 2
                if begin <= middle < stop:
                    yield packet
                if middle >= stop:
                    open_streams.discard(index)
            if not open_streams or time > stop + self._beyond + _PATIENCE:
                return

    def _mux(self, packet: Packet, shift: float) -> None:
        moved = round(Fraction(shift - self._origin) / packet.time_base)
        assert packet.pts is not None
        pts = packet.pts + moved
        dts = pts if packet.dts is None else packet.dts + moved
        last = self._last.get(packet.stream_index)
        if last is not None and dts <= last:  # where a run begins by a rounding, or by a packet of sound, too early
            dts = last + 1
        packet.pts, packet.dts = max(pts, dts), dts
        self._last[packet.stream_index] = dts
        packet.stream = self._tracks[packet.stream_index]
        self._target.mux(packet)


def _stops(shown: Sequence[tuple[float, bool]], step: float) -> list[float]:
    """Times at which a copy may end: all pictures shown before come before all others in the file."""
    stops = []
    latest = float("-inf")
    least = [float("inf")] * (len(shown) + 1)
    for i in range(len(shown) - 1, -1, -1):
        least[i] = min(least[i + 1], shown[i][0])
    for i, (time, _) in enumerate(shown):
        if i and latest < least[i]:
            stops.append(least[i])
        latest = max(latest, time)
    return [*stops, latest + step] if shown else []


def _with_pictures(
    shots: Sequence[CutShot],
    cursor: PictureCursor,
    folder: Path,
    times: Sequence[float],
    height: int,
    made: list[Path],
) -> list[CutShot]:
    """The shots with their key frames, which are the only pictures that are decoded."""
    found = []
    for shot in shots:
        cursor.move_to(min(max(times[shot.index], shot.start), shot.end - cursor.step / 2))
        frame = cursor.frame or cursor.first
        turn = turn_of(frame)
        size = display_size(frame.width, frame.height, cursor.stream.sample_aspect_ratio, turn)
        even = (max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2))
        path = folder / f"shot_{shot.index + 1:04d}.jpg"
        with written(path) as part:
            save_jpeg(Pictures(even, turn, aspect=cursor.stream.sample_aspect_ratio).yuv(frame), part, height)
        made.append(path)
        found.append(CutShot(shot.start, shot.end, shot.out_start, shot.out_end, path, shot.index))
    return found
