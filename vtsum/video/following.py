"""A window of another shape that follows what is salient: where it lies at each time, and the part of a picture in it.

A first pass over the pieces looks at small grey pictures, eight a second. What differs from the picture before, and
from what the piece shows most of the time, is taken for salient; the window's way is the one that holds the most of
that near its middle, among all that never pan faster than SPEED: a search by dynamic programming over a piece.

Source: Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding algorithm", 1967; for the
task, Liu and Gleicher, "Video retargeting: automating pan and scan", 2006.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from vtsum.video.cursor import PictureCursor
from vtsum.video.picture import Pictures, turn_of
from vtsum.video.timeline import touching

SPEED = 0.25  # of the picture's longer way that a window pans a second, at most
_PACE = 0.125  # seconds between two pictures looked at
_CELLS = 96  # places along the way in which a window may lie
_ACROSS = 32  # pixels of the small pictures across it
_STILL = 6.0  # levels of 255 that a pixel may change by noise
_REST = 0.02  # of a picture's salience that a move by one place must gain
_MIDDLE = 0.02  # of a picture's salience that lies in the middle, where there is nothing to follow
_SMOOTH = 5  # samples over which a way is smoothed


@dataclass(frozen=True)
class Window:
    """Where a window of `size` (width, height) lies in pictures of size `full`: along the way that is longer.

    `times`, `starts` hold the left or upper edge in pixels at each time; between two it goes evenly.
    """

    full: tuple[int, int]
    size: tuple[int, int]
    times: list[float]
    starts: list[float]

    def at(self, time: float) -> tuple[int, int]:
        """Left and upper edge at a time, even pixels."""
        after = bisect_right(self.times, time)
        if not self.times:
            start = 0.0
        elif after == 0 or after == len(self.times):
            start = self.starts[min(after, len(self.times) - 1)]
        else:
            share = (time - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
            start = self.starts[after - 1] + share * (self.starts[after] - self.starts[after - 1])
        edge = round(start / 2) * 2
        room = [whole - inner for whole, inner in zip(self.full, self.size, strict=True)]
        return (min(edge, room[0]), room[1] // 4 * 2) if room[0] >= room[1] else (room[0] // 4 * 2, min(edge, room[1]))

    def cut_out(self, picture: VideoFrame, time: float) -> VideoFrame:
        """The part of a yuv420p picture that lies in the window."""
        left, top = self.at(time)
        width, height = self.size
        whole = picture.to_ndarray()
        luma = whole[: picture.height]
        chroma = whole[picture.height :].reshape(2, picture.height // 2, picture.width // 2)
        x, y = left // 2, top // 2
        part = np.empty((height * 3 // 2, width), np.uint8)
        part[:height] = luma[top : top + height, left : left + width]
        part[height:].reshape(2, height // 2, width // 2)[:] = chroma[:, y : y + height // 2, x : x + width // 2]
        out = VideoFrame.from_ndarray(part, format="yuv420p")
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(out, name, getattr(picture, name))
        return out


def window_of(
    cursor: PictureCursor, full: tuple[int, int], shape: tuple[int, int], segments: Sequence[tuple[float, float]]
) -> Window | None:
    """The window of a shape that follows what is salient in the segments; None where the pictures have that shape.

    Args:
        cursor: moved over the segments. full: width and height of the pictures, even.
        shape: width to height of the window, as 9 to 16. segments: (start, end) in seconds, in order.
    """
    width, height = full
    ratio = shape[0] / shape[1]
    size = (min(width, round(height * ratio) // 2 * 2), min(height, round(width / ratio) // 2 * 2))
    size = (max(size[0], 2), max(size[1], 2))
    sideways = width - size[0] >= height - size[1]
    length, inner = (width, size[0]) if sideways else (height, size[1])
    if length - inner < 4:
        return None
    times: list[float] = []
    starts: list[float] = []
    for run in touching(segments):
        seen, pictures = _look(cursor, segments[run[0]][0], segments[run[-1]][1], sideways)
        if seen:
            times += seen
            starts += list(_way(_salience(pictures), inner / length, length, np.diff(seen)))
    return Window(full, size, times, starts)


def _look(cursor: PictureCursor, start: float, end: float, sideways: bool) -> tuple[list[float], np.ndarray]:
    """Times and small grey pictures [T, places, pixels across] of a stretch."""
    times: list[float] = []
    found: list[np.ndarray] = []
    made: Pictures | None = None
    cursor.move_to(start)
    while cursor.time is not None and cursor.time < end and cursor.frame is not None:
        if not times or cursor.time - times[-1] >= _PACE - 1e-3:
            turn = turn_of(cursor.frame)
            if made is None or made.turn != turn:
                made = Pictures((_CELLS, _ACROSS) if sideways else (_ACROSS, _CELLS), turn)
            grey = made.rgb(cursor.frame).mean(axis=2)
            found.append((grey.T if sideways else grey).astype(np.uint8))
            times.append(max(cursor.time, start))
        if cursor.next_time is None:
            break
        cursor.advance()
    return times, np.array(found)


def _salience(pictures: np.ndarray) -> np.ndarray:
    """[T, places]: how much of each picture's salience lies at each place; its sum is 1."""
    usual = np.median(pictures[:: max(len(pictures) // 200, 1)], axis=0).astype(np.int16)
    found = np.zeros(pictures.shape[:2])
    for t, picture in enumerate(pictures):
        now = picture.astype(np.int16)
        before = pictures[max(t - 1, 0)].astype(np.int16)
        away = np.minimum(np.abs(now - usual), 64) * 0.5 + np.minimum(np.abs(now - before), 64)
        found[t] = np.maximum(away - _STILL, 0.0).sum(axis=1)
    places = np.arange(_CELLS)
    middle = np.exp(-(((places - (_CELLS - 1) / 2) / (_CELLS / 6)) ** 2))
    sums = found.sum(axis=1, keepdims=True)
    # Where all of a picture changes, as when the camera moves, no place stands out.
    found = np.divide(found, sums, out=np.zeros_like(found), where=sums > 0)
    return found + _MIDDLE * middle / middle.sum()


def _way(salience: np.ndarray, share: float, length: int, gaps: np.ndarray) -> np.ndarray:
    """The edge of the window in pixels at each picture."""
    inner = max(round(_CELLS * share), 1)
    count = _CELLS - inner + 1
    # Within the window the middle counts most: what is followed is not to touch an edge.
    weights = np.sin(np.pi * (np.arange(inner) + 0.5) / inner) ** 0.5
    worth = np.array([np.convolve(row, weights[::-1], "valid") for row in salience])
    best, came = worth[0], np.zeros((len(worth), count), np.int64)
    places = np.arange(count)
    for t in range(1, len(worth)):
        reach = min(max(math.floor(SPEED * _CELLS * float(gaps[t - 1])), 0), count - 1)
        options = np.full((2 * reach + 1, count), -np.inf)
        for k in range(-reach, reach + 1):
            fit = (places + k >= 0) & (places + k < count)
            options[k + reach, fit] = best[places[fit] + k] - _REST * abs(k)
        choice = options.argmax(axis=0)
        came[t] = places + choice - reach
        best = options[choice, places] + worth[t]
    way = np.empty(len(worth), np.int64)
    way[-1] = int(best.argmax())
    for t in range(len(worth) - 1, 0, -1):
        way[t - 1] = came[t, way[t]]
    half = _SMOOTH // 2
    padded = np.pad(way.astype(float), half, mode="edge")
    smooth = np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid")
    return np.clip(smooth * length / _CELLS, 0, length - round(length * share))
