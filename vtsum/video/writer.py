"""Cutting: some segments of a video, one after the other, as an MP4 that plays everywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from vtsum.errors import VTSumError
from vtsum.files import written
from vtsum.shown import reason
from vtsum.video.coding import Coding
from vtsum.video.cursor import PictureCursor
from vtsum.video.damage import join_spans
from vtsum.video.encoder import Encoder
from vtsum.video.following import window_of
from vtsum.video.kept import kept_sound
from vtsum.video.levels import gains
from vtsum.video.picture import display_size, save_jpeg, turn_of
from vtsum.video.sound import SoundCursor
from vtsum.video.source import show
from vtsum.video.timeline import is_steady

_MAX_FPS = 60
_MAX_SIDE = 8192  # pixels; H.264 ends at twice as many, players earlier
_SNAP = 0.125  # seconds to the frame grid, at most: a picture that stays longer may be cut anywhere
_SOUND_AHEAD = 0.5  # seconds of pictures written between two portions of sound


@dataclass(frozen=True)
class CutShot:
    """One segment as it was cut.

    Attributes:
        start, end (float): seconds in the source, on its frame grid. out_start, out_end (float): seconds in the output.
        keyframe (Path | None): its picture. index (int): the number of the segment asked for, from 0.
    """

    start: float
    end: float
    out_start: float
    out_end: float
    keyframe: Path | None
    index: int


@dataclass(frozen=True)
class CutResult:
    """What `cut` wrote. `duration` is in seconds, `width` and `height` in pixels as displayed.

    `damaged` are the spans, in seconds of the source, whose pictures or sound were not decoded whole; `softer` counts
    the segments whose sound could not be made as loud as was asked for.
    """

    path: Path
    duration: float
    shots: list[CutShot]
    has_audio: bool
    width: int
    height: int
    damaged: list[tuple[float, float]]
    softer: int = 0


def cut(
    path: str | os.PathLike[str],
    segments: Sequence[tuple[float, float]],
    out_path: str | os.PathLike[str],
    *,
    keyframe_dir: str | os.PathLike[str] | None = None,
    keyframe_times: Sequence[float] | None = None,
    keyframe_height: int = 360,
    max_height: int | None = None,
    duration: float = 0.0,
    largest: tuple[int, int] | None = None,
    coding: Coding = Coding(),  # noqa: B008 - it cannot change
    loudness: float | None = None,
    all_sound: bool = False,
    crop: tuple[int, int] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> CutResult:
    """Write the given segments of a video as one MP4 (H.264, AAC, index in front), sound in step with the pictures.

    Args:
        path: the source. segments: (start, end) in seconds of the source, in order, not overlapping.
        out_path: the MP4; it appears complete or not at all.
        keyframe_dir: where one JPEG a segment goes, "shot_0001.jpg" for the first. None writes none.
        keyframe_times: which picture, in seconds of the source, one a segment; None takes the middle.
        keyframe_height, max_height (int): in pixels, at most; pictures are never enlarged.
        duration (float): of the source in seconds, as `FrameSampler` found it: the last picture stays until then.
        largest: width and height, as stored, of the source's largest picture, where their size changes: what is written
            is as large, smaller ones between black bars. None: the first one's.
        coding: encoder, quality, speed, fades. loudness (float | None): LUFS to which the sound of each segment is
            brought (`vtsum.video.levels`); None: it stays as it is. all_sound (bool): keep all tracks of sound, and not
            the best one alone. crop: width to height of a part of the pictures that follows what is salient
            (`vtsum.video.following`); None: all of them is shown.
        on_progress: called with the seconds of output written.
    Returns:
        CutResult: segments that lie beyond the last picture that can be decoded are missing from its shots.
    Raises:
        ValueError: the segments are not finite, empty, out of order or overlap; other arguments out of range.
        VTSumError: the source cannot be read, the output cannot be written, or no segment holds a picture.
    """
    _check(segments, keyframe_times, keyframe_height, max_height)
    coding.check("cut")
    target = Path(os.path.abspath(os.fspath(out_path)))
    times = list(keyframe_times) if keyframe_times is not None else [(start + end) / 2 for start, end in segments]
    folder = None if keyframe_dir is None else Path(keyframe_dir)
    if not target.parent.is_dir():
        raise VTSumError(f"cut: {show(target.parent)}: the folder of the output must exist")
    if os.path.exists(path) and target.exists() and os.path.samefile(path, target):
        raise VTSumError(f"cut: {show(target)}: the output must not be the source itself")
    try:
        with written(target) as part:
            job = _Job(path, part, folder, keyframe_height, max_height, duration, largest, on_progress)
            try:
                job.open(coding, all_sound, crop, segments)
                factors, short = job.gains(segments, loudness)
                for index, (start, end) in enumerate(segments):
                    job.add(index, start, end, times[index], factors[index])
                if not job.shots:
                    raise VTSumError(f"cut: {show(path)}: no segment holds a picture that can be decoded")
                job.finish()
            except BaseException:
                job.abandon()
                raise
            finally:
                job.close()
    except (av.FFmpegError, OSError) as error:
        # What is raised while reading is a VTSumError already; the rest comes from the output.
        raise VTSumError(f"cut: {show(target.parent)}: cannot be written to: {reason(error)}") from None
    return CutResult(target, float(job.out_end), job.shots, job.has_audio, *job.size, job.damaged, len(short))


def _check(
    segments: Sequence[tuple[float, float]],
    keyframe_times: Sequence[float] | None,
    keyframe_height: int,
    max_height: int | None,
) -> None:
    before = 0.0
    for start, end in segments:
        if not (math.isfinite(start) and math.isfinite(end) and before <= start < end):
            raise ValueError(
                f"cut: segments must be finite, not empty, in order and without overlap, got ({start}, {end})"
            )
        before = end
    if not len(segments):
        raise ValueError("cut: segments must hold at least one (start, end), got none")
    if keyframe_times is not None and len(keyframe_times) != len(segments):
        raise ValueError(f"cut: keyframe_times must be one a segment ({len(segments)}), got {len(keyframe_times)}")
    if keyframe_height < 16 or (max_height is not None and max_height < 16):
        raise ValueError(f"cut: heights must be at least 16, got {keyframe_height} and {max_height}")


def _snap(time: float, pictures: PictureCursor) -> float:
    """Return the nearer boundary of the picture on display at `time`, or `time` itself far inside a long still."""
    assert pictures.time is not None
    until = pictures.end if pictures.next_time is None else pictures.next_time
    reach = min((until - pictures.time) / 2, _SNAP)
    if until - time < reach:
        return until
    return pictures.time if time - pictures.time <= reach else time


class _Job:
    """The state of one cut: cursors over the source, the encoder, what was written."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        part: Path,
        keyframe_dir: Path | None,
        keyframe_height: int,
        max_height: int | None,
        duration: float,
        largest: tuple[int, int] | None,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._path = path
        self._largest = largest
        self._duration = duration
        self._part = part
        self._keyframe_dir = keyframe_dir
        self._keyframe_height = keyframe_height
        self._max_height = max_height
        self._on_progress = on_progress
        self._pictures: PictureCursor | None = None
        self._sounds: list[SoundCursor] = []
        self._encoder: Encoder | None = None
        self._written: list[Path] = []
        self._made_dir = False
        self.shots: list[CutShot] = []
        self.out_end = 0.0
        self.size = (0, 0)

    @property
    def has_audio(self) -> bool:
        return bool(self._sounds)

    @property
    def damaged(self) -> list[tuple[float, float]]:
        found = [cursor.damage.spans() for cursor in (self._pictures, *self._sounds) if cursor is not None]
        return join_spans([span for each in found for span in each], math.inf)

    def _sound(self, index: int | None = None) -> SoundCursor:
        pictures = self._pictures
        assert pictures is not None
        return SoundCursor(self._path, pictures.stream.index, pictures.origin, seekable=pictures.seekable, index=index)

    def gains(self, segments: Sequence[tuple[float, float]], loudness: float | None) -> tuple[list[float], list[int]]:
        """How many times as loud each segment's sound is to be, and which ones cannot be as loud as asked for."""
        if loudness is None or not self._sounds:
            return [1.0] * len(segments), []
        heard = self._sound()
        try:
            return gains(heard, segments, loudness)
        finally:
            heard.close()

    def open(
        self,
        coding: Coding,
        all_sound: bool,
        crop: tuple[int, int] | None,
        segments: Sequence[tuple[float, float]],
    ) -> None:
        self._pictures = pictures = PictureCursor(self._path, "cut", self._duration)
        stream = pictures.stream
        others = [s.index for s in kept_sound(pictures.container, self._path, "cut")] if all_sound else []
        for index in (None, *others):
            sound = self._sound(index)
            if sound.available and all(sound.index != other.index for other in self._sounds):
                self._sounds.append(sound)
            else:
                sound.close()
        turn = turn_of(pictures.first)
        stored = self._largest or (pictures.first.width, pictures.first.height)
        width, height = display_size(*stored, stream.sample_aspect_ratio, turn)
        scale = min(1.0, (self._max_height or height) / height, _MAX_SIDE / max(width, height))
        self.size = (max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2))
        window = None if crop is None else window_of(pictures, self.size, crop, segments)
        self.size = self.size if window is None else window.size
        rate = min(Fraction(_MAX_FPS), Fraction(1) / Fraction(pictures.step).limit_denominator(100_000))
        if self._keyframe_dir is not None and not self._keyframe_dir.is_dir():
            try:
                self._keyframe_dir.mkdir(parents=True)
            except OSError as error:
                raise VTSumError(f"cut: {show(self._keyframe_dir)}: cannot be made: {reason(error)}") from None
            self._made_dir = True
        self._encoder = Encoder(
            self._part,
            self.size,
            turn,
            rate,
            pictures.first,
            self._sounds,
            coding,
            shape=(width, height),
            aspect=stream.sample_aspect_ratio,
            steady=is_steady(stream),
            window=window,
        )

    def add(self, index: int, start: float, end: float, keyframe_time: float, gain: float = 1.0) -> None:
        """Write one segment, its sound `gain` times as loud, or nothing where it lies beyond the last picture."""
        pictures, encoder = self._pictures, self._encoder
        assert pictures is not None
        assert encoder is not None
        pictures.move_to(start)
        if pictures.time is None or (pictures.next_time is None and pictures.end <= start):
            return
        begin = _snap(start, pictures)
        if pictures.next_time is not None and begin == pictures.next_time:
            pictures.advance()
        if pictures.time > begin:  # the file begins later, or its pictures here are damaged
            begin = pictures.time
            if begin >= end:
                return
        out_start = self.out_end
        joined = bool(self.shots) and abs(begin - self.shots[-1].end) < 1e-3
        encoder.begin_segment(begin, out_start, joined, gain)
        keyframe: Path | None = None
        sound_at = out_start
        stop = begin
        while True:
            shown_until = pictures.end if pictures.next_time is None else pictures.next_time
            last = pictures.next_time is None or end < shown_until
            if last and stop > begin and _snap(end, pictures) == pictures.time:
                break
            assert pictures.time is not None
            assert pictures.frame is not None
            out_time = out_start + max(pictures.time, begin) - begin
            encoder.picture(pictures.frame, out_time)
            if last:
                stop = shown_until if end >= shown_until else _snap(end, pictures)
                stop = stop if stop > begin else min(shown_until, begin + pictures.step)  # a picture at least
            else:
                stop = shown_until
            if keyframe is None and self._keyframe_dir is not None and shown_until > keyframe_time:
                keyframe = self._save_keyframe(index, encoder)
            if last:
                break
            if out_time - sound_at >= _SOUND_AHEAD:
                encoder.sound_until(out_time)
                sound_at = out_time
                if self._on_progress:
                    self._on_progress(out_time)
            pictures.advance()
        if keyframe is None and self._keyframe_dir is not None:
            keyframe = self._save_keyframe(index, encoder)
        self.out_end = out_start + stop - begin
        encoder.end_segment(self.out_end)
        self.shots.append(CutShot(begin, stop, out_start, self.out_end, keyframe, index))
        if self._on_progress:
            self._on_progress(self.out_end)

    def _save_keyframe(self, index: int, encoder: Encoder) -> Path:
        assert self._keyframe_dir is not None
        path = self._keyframe_dir / f"shot_{index + 1:04d}.jpg"
        with written(path) as part:
            save_jpeg(encoder.last_picture, part, self._keyframe_height)
        self._written.append(path)
        return path

    def finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish(self.out_end)

    def abandon(self) -> None:
        """Remove the key frames that were written."""
        if self._encoder is not None:
            self._encoder.abandon()
        for path in self._written:
            path.unlink(missing_ok=True)
        if self._made_dir and self._keyframe_dir is not None and not any(self._keyframe_dir.iterdir()):
            self._keyframe_dir.rmdir()

    def close(self) -> None:
        for cursor in (self._pictures, *self._sounds):
            if cursor is not None:
                cursor.close()
