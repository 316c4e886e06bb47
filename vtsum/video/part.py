"""Frames at a steady rate from a part of a video: nothing before it is shown to anybody, and nothing after it read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
from av.video.frame import VideoFrame

from vtsum.errors import VTSumError
from vtsum.video.cursor import PictureCursor
from vtsum.video.picture import Pictures, is_hdr, turn_of
from vtsum.video.reader import LOST_END, ROUNDING, SampledFrame
from vtsum.video.source import show
from vtsum.video.timeline import stated_duration

Part = tuple[float, float | None]  # its start and end in seconds; None: the end of the video
WHOLE: Part = (0.0, None)


def first_frame(start: float, fps: float) -> int:
    """The number of the grid point k / fps at or before the start of a part."""
    return math.floor(start * fps + ROUNDING)


class PartSampler:
    """Yields the picture on display at each grid point k / fps in a part of a video, the first one from its start on.

    Where timestamps can be sought, decoding begins at the key picture before the part; else at the front of the file.

    Args:
        path, fps, size, on_progress, on_picture, on_packet: as for `vtsum.video.FrameSampler`; `size` is not None.
        start (float), end (float | None): of the part, in seconds from the first picture; None: up to the end.
    Attributes, final once the iteration is over:
        duration (float): seconds until which the last picture of the part stays.
        broken_at, damaged, warnings, decoded_frames, largest: as those of `FrameSampler`, of the part alone.
    Raises:
        VTSumError: at the first iteration, for a file that `probe` refuses, or one that ends before the part.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        start: float,
        end: float | None,
        *,
        fps: float,
        size: tuple[int, int],
        on_progress: Callable[[float], None] | None = None,
        on_picture: Callable[[float, VideoFrame], None] | None = None,
        on_packet: Callable[[], None] | None = None,
    ) -> None:
        self._path, self._start, self._end = path, start, math.inf if end is None else end
        self._fps, self._size = fps, size
        self._on_progress, self._on_picture, self._on_packet = on_progress, on_picture, on_packet
        self.duration = 0.0
        self.broken_at: float | None = None
        self.damaged: list[tuple[float, float]] = []
        self.warnings: list[str] = []
        self.decoded_frames = 0
        self.largest = (0, 0)

    def __iter__(self) -> Iterator[SampledFrame]:
        with closing(PictureCursor(self._path, "PartSampler", on_packet=self._on_packet)) as cursor:
            cursor.move_to(self._start)
            if cursor.time is None or (cursor.next_time is None and cursor.end <= self._start):
                raise VTSumError(
                    f"summarize: {show(self._path)} must be longer than the start of the part, {self._start:g} s, "
                    f"got {cursor.end:.1f} s"
                )
            yield from self._grid(cursor)
            self._sum_up(cursor)

    def _grid(self, cursor: PictureCursor) -> Iterator[SampledFrame]:
        assert cursor.frame is not None
        turn = turn_of(cursor.frame)
        if is_hdr(cursor.frame):
            self.warnings.append("the pictures are HDR: their brightness was brought to the ordinary range")
        pictures = Pictures(self._size, turn, aspect=cursor.stream.sample_aspect_ratio)
        index = first_frame(self._start, self._fps)
        image: np.ndarray | None = None
        self._show(cursor)
        while index / self._fps < self._end - ROUNDING:
            while cursor.next_time is not None and cursor.next_time <= index / self._fps + ROUNDING:
                cursor.advance()
                self._show(cursor)
                image = None
            if cursor.next_time is None and index / self._fps >= cursor.end - ROUNDING:
                break
            if image is None:
                image = pictures.rgb(cursor.frame)
            yield SampledFrame(index, index / self._fps, image)
            index += 1
            if self._on_progress:
                self._on_progress(index / self._fps)
        while cursor.next_time is not None and cursor.next_time < self._end - ROUNDING:
            cursor.advance()
            self._show(cursor)

    def _show(self, cursor: PictureCursor) -> None:
        frame = cursor.frame
        assert frame is not None
        assert cursor.time is not None
        self.decoded_frames += 1
        if frame.width * frame.height > self.largest[0] * self.largest[1]:
            self.largest = frame.width, frame.height
        if self._on_picture:
            self._on_picture(max(cursor.time, self._start), frame)

    def _sum_up(self, cursor: PictureCursor) -> None:
        self.duration = self._end if cursor.next_time is not None else min(cursor.end, self._end)
        claimed = stated_duration(cursor.container, cursor.stream)
        if claimed is not None and cursor.next_time is None and min(claimed, self._end) - cursor.end > LOST_END:
            self.broken_at = self.duration
            self.warnings.append(f"the video breaks off at {self.duration:.1f} s")
        self.damaged = [(max(a, self._start), min(b, self.duration)) for a, b in cursor.damage.spans()]
        self.damaged = [(a, b) for a, b in self.damaged if a < b]
