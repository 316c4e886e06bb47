"""What is written on the screen, found while a video is decoded: few pictures are read, the others are compared.

Every second one picture's edges are looked at. An area that may hold writing, stays for a second and has changed since
it was last read is read, once. Later pictures only tell how long its edges stay and, where nothing moves behind them,
its letters; a clock's change unread. So a slide costs one reading however long it is shown, and a clip without writing
few. Writing that moves, as the names at a film's end do, never stays: for it a whole picture with rows of letters is
read now and then, less often where nothing is found. Readings are paid for from a purse that fills with the seconds of
the video, so that no video's cost grows beyond a share of its length; found lines give some of it back. A second
reading of each has a purse of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from av.error import FFmpegError

from vtsum.enhance.screen_text.again import read_again, surroundings
from vtsum.enhance.screen_text.areas import (
    SIDE,
    STAYS,
    Area,
    areas,
    around,
    edges,
    lasting,
    letters_change,
    lingers,
    parts,
    stays,
    within,
)
from vtsum.enhance.screen_text.lines import COUNTS, ScreenLine, counts_on, lines_of, tells
from vtsum.errors import VTSumError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from vtsum.enhance.screen_text.reader import Reading
    from vtsum.video.picture import Turn

PACE = 1.0  # seconds between the pictures that are looked at
READ_SIDE = 1920  # pixels of the longer side of what is read, at most
PURSE = 3.0  # whole pictures that can be read at once
EARNED = 1 / 24  # whole pictures a second of the video
LEAST = 0.02  # of a whole picture: what the smallest part costs
OVER_MOTION = 0.4  # the share of an area's edges that must stay: of letters over a picture that moves, its own do not
GIVEN_BACK = 2 / 3  # of what a reading cost, where it found a line
ROWS, WIDE = 2, 3.0  # areas at least, and so many times as wide as high, that may be moving rows of letters
AFTER_FIND, AT_FIRST, AT_MOST = 3.0, 8.0, 64.0  # seconds between looks at moving rows

Picture: TypeAlias = Callable[[], np.ndarray]  # gives a picture, uint8 [H, W, 3] RGB, where it is to be read


class Reader(Protocol):
    """Who reads: `vtsum.enhance.screen_text.reader.RapidReader`."""

    name: str

    def read(self, picture: np.ndarray) -> list[Reading]:
        """What is written in a picture, uint8 [H, W, 3] RGB, boxes in its pixels.

        Raises:
            VTSumError: the reader stopped working; no more pictures are read.
        """
        ...


@dataclass
class _Shown:
    """A line that is on the screen now."""

    line: ScreenLine
    area: Area
    edge: np.ndarray  # bool, of the whole picture: those that lasted when it was read
    grey: np.ndarray  # of the area, then
    share: float  # of these edges, that must stay
    counted: int = 0  # how often in a row nothing but its digits had changed

    def stays(self, edge: np.ndarray, grey: np.ndarray) -> bool:
        """Whether an edge picture, and the grey one it is of, still show it; of a clock, any time."""
        clock = not tells(self.line) or self.counted >= COUNTS
        there = stays(self.area, self.edge, edge, self.share)
        return there and (clock or not letters_change(self.area, self.grey, grey))


@dataclass
class ScreenText:
    """Collects the lines of one video.

    Args:
        reader: who reads.
    """

    reader: Reader
    read: int = 0  # pictures, or parts of them; not what was read again
    warnings: list[str] = field(default_factory=list)
    _purse: float = PURSE
    _second_purse: float = PURSE  # for what is read again, so that no line is missed for it
    _next: float = 0.0  # seconds, when a picture is looked at next
    _last: float = 0.0  # seconds, of the last one looked at
    _edge: np.ndarray | None = None
    _edge_before: np.ndarray | None = None
    _grey: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    _grey_before: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    _lasting: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    _known: np.ndarray | None = None  # edges where and when an area was last read
    _past: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))  # where lines were that are no more
    _told: bool = False  # whether what was read last has words, known or not
    _wait: float = AT_FIRST
    _moving: float = AT_FIRST  # when moving rows are looked for next
    _shown: list[_Shown] = field(default_factory=list)
    _gone: list[_Shown] = field(default_factory=list)  # of those shown before, what is so no more
    _lines: list[ScreenLine] = field(default_factory=list)

    def see(self, time: float, frame: VideoFrame) -> None:
        """Look at a decoded picture, `time` seconds from the first; pictures come in order, not upright."""
        from vtsum.video.picture import Pictures, turn_of

        if time < self._next or self.warnings:
            return
        self._next = time + PACE
        turn = turn_of(frame)
        size = (frame.height, frame.width) if turn.rotation % 180 else (frame.width, frame.height)
        try:
            grey = _grey(frame, turn)
        except (FFmpegError, ValueError, MemoryError):  # damage gave the picture a form that swscale refuses
            return
        try:
            self.look(time, grey, lambda: Pictures(_within(size, READ_SIDE), turn).rgb(frame))
        except VTSumError as error:
            self.warnings.append(f"words on the screen were not read from {time:.0f} s on: {error}")

    def look(self, time: float, grey: np.ndarray, picture: Picture) -> None:
        """The same for a grey picture, uint8 [H, W], and a function that gives it in colour and full size."""
        edge = edges(grey)
        before = self._edge_before = self._edge
        self._edge = edge
        self._grey_before, self._grey = self._grey, grey
        earned = EARNED * (time - self._last)
        self._purse, self._second_purse = (min(p + earned, PURSE) for p in (self._purse, self._second_purse))
        last, self._last = self._last, time
        if before is None or before.shape != edge.shape:
            self._shown, self._known, self._past = [], np.zeros_like(edge), np.zeros_like(edge)
            return
        assert self._known is not None
        self._lasting = lasting(before, edge)
        shown, self._shown, self._gone = self._shown, [], []
        for one in shown:
            if one.stays(edge, grey):
                one.line.end = time
                self._shown.append(one)
            else:
                self._past[one.area.slices] = True
                self._gone.append(one)
        found = areas(edge)
        whole = Area(0, 0, edge.shape[1], edge.shape[0])
        new = [a for a in found if not any(within(a, shown.area) for shown in self._shown)]
        fresh = [
            a for a in new if lingers(a, edge, before) and (not lingers(a, edge, self._known) or self._is_another(a))
        ]
        done: list[Area] = []
        for part in parts(fresh, whole):
            if any(within(part, other) for other in done):
                continue
            done.append(part)
            if cut := self._read(picture, part, last, time):  # a line goes on beside what was read
                done.append(around([part, *cut], whole, across=True))
                self._read(picture, done[-1], last, time, whole_lines=True)
        moving = [a for a in new if a.w >= WIDE * a.h and not lingers(a, edge, before)]
        if not fresh and time >= self._moving and len(moving) >= ROWS:
            self._told = False
            self._read(picture, whole, time, time)
            self._wait = AFTER_FIND if self._told else min(2 * self._wait, AT_MOST)
            self._moving = time + self._wait

    def _read(
        self, picture: Picture, part: Area, since: float, time: float, *, whole_lines: bool = False
    ) -> list[Area]:
        """Read a part of a picture, which shows it since `since`, if it can be paid for; the areas of lines that may go
        on outside of it, which are not kept. With `whole_lines` none goes on."""
        assert self._edge is not None
        assert self._known is not None
        height, width = self._edge.shape
        cost = max(part.w * part.h / self._edge.size, LEAST)
        if cost > self._purse:
            return []
        image = picture()
        down, right = image.shape[0] / height, image.shape[1] / width
        x0, y0 = int(part.x * right), int(part.y * down)
        found = self.reader.read(image[y0 : int((part.y + part.h) * down), x0 : int((part.x + part.w) * right)])
        self.read += 1
        self._told = any(tells(reading) for reading in found)
        self._purse -= cost * (1 - GIVEN_BACK * self._told)
        self._known[part.slices] = self._edge[part.slices]
        self._past[part.slices] = False
        cut = []
        for reading in found:
            box = [(x0 + reading.box[0]) / right, (y0 + reading.box[1]) / down]
            box += [(x0 + reading.box[2]) / right, (y0 + reading.box[3]) / down]
            area = Area.of(box)
            if not whole_lines and area.near_edge(part, (width, height)):
                cut.append(area)
                continue
            if any(within(area, s.area) for s in self._shown):
                continue  # known: it has not changed
            shares = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            begins = since
            if since < time and not self._was_there(area):
                begins = time
            line = ScreenLine(reading.text, begins, time, reading.score, shares, self._again(image, x0, y0, reading))
            self._lines.append(line)
            # Of what moves, or has just come, nothing lasted.
            edge, share = (self._lasting, STAYS) if begins < time else (self._edge, OVER_MOTION)
            self._shown = [s for s in self._shown if not within(s.area, area)]
            counted = max((g.counted + 1 for g in self._gone if counts_on(g.line, line)), default=0)
            self._shown.append(_Shown(line, area, edge, self._grey[area.slices].copy(), share, counted))
        return cut

    def _is_another(self, area: Area) -> bool:
        """Whether other letters stand where a line was that is no more; of one that moves, the same do not stand."""
        assert self._edge is not None
        assert self._edge_before is not None
        past = float(self._past[area.slices].mean())
        return past >= 0.5 and stays(area, self._edge, self._edge_before, OVER_MOTION)

    def _was_there(self, area: Area) -> bool:
        """Whether the letters of a line were in the picture before too."""
        assert self._edge is not None
        assert self._edge_before is not None
        changed = letters_change(area, self._grey_before[area.slices], self._grey)
        return not changed and stays(area, self._edge, self._edge_before, OVER_MOTION)

    def _again(self, image: np.ndarray, x0: int, y0: int, reading: Reading) -> bool:
        """Whether what was read in a part of an image, from x0 and y0 on, is read again, if that can be paid for."""
        left, top, right, bottom = reading.box
        part = surroundings((x0 + left, y0 + top, x0 + right, y0 + bottom), (image.shape[1], image.shape[0]))
        cost = max(part.w * part.h / (image.shape[0] * image.shape[1]), LEAST)
        if not tells(reading) or cost > self._second_purse:
            return False
        self._second_purse -= cost * (1 - GIVEN_BACK)
        return read_again(self.reader.read, reading.text, image[part.slices])

    def lines(self, duration: float) -> list[ScreenLine]:
        """The lines of a video of `duration` seconds, in order of time, each once."""
        return lines_of(self._lines, duration)


def _grey(frame: VideoFrame, turn: Turn) -> np.ndarray:
    """uint8 [H, W], upright, of SIDE pixels at most."""
    width, height = _within((frame.width, frame.height), SIDE)
    small = frame.reformat(width, height, "gray", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(turn.upright(small))


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size, made smaller where its longer side is above `side`."""
    by = min(side / max(size), 1.0)
    return max(round(size[0] * by), 1), max(round(size[1] * by), 1)
