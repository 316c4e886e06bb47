"""Cuts, dissolves and liveliness, seen in the pictures themselves while a video is decoded."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

_BLOCK = 1024  # kept pictures that are compared at once


class _Kept:
    """Small pictures and their times, one after the other in memory: as arrays of their own those of hours would take
    five times as much."""

    def __init__(self) -> None:
        self.times = array("d")
        self._runs: list[tuple[int, tuple[int, ...], bytearray]] = []  # its first picture, their shape, their bytes

    def add(self, time: float, picture: np.ndarray) -> None:
        if not self._runs or self._runs[-1][1] != picture.shape:
            self._runs.append((len(self.times), picture.shape, bytearray()))
        self._runs[-1][2].extend(picture.astype(np.uint8).tobytes())
        self.times.append(time)

    def state(self) -> dict[str, np.ndarray]:
        shapes = [(first, *shape) for first, shape, _ in self._runs]
        pixels = [np.frombuffer(data, np.uint8) for _, _, data in self._runs]
        return {
            "kept_times": np.array(self.times),
            "kept_runs": np.array(shapes, np.int64).reshape(-1, 3),
            "kept": pixels[0] if len(pixels) == 1 else np.concatenate([np.zeros(0, np.uint8), *pixels]),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, np.ndarray]) -> _Kept:
        made = cls()
        times, runs, pixels = state["kept_times"], state["kept_runs"], state["kept"]
        if times.ndim != 1 or runs.shape[1:] != (3,) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
            raise ValueError("kept_times must be finite and rise, kept_runs be rows of 3")
        at = 0
        firsts = [*runs[:, 0].tolist(), len(times)]
        if firsts[0] != 0:
            raise ValueError(f"kept_runs must begin with picture 0, got {firsts[0]}")
        for (first, height, width), last in zip(runs.tolist(), firsts[1:], strict=True):
            size = (last - first) * height * width
            if min(height, width, last - first) < 1:
                raise ValueError("kept_runs must be of pictures, one run after the other")
            made._runs.append((first, (height, width), bytearray(pixels[at : at + size].tobytes())))
            at += size
        if at != len(pixels):
            raise ValueError(f"kept must hold {at} pixels, got {len(pixels)}")
        made.times = array("d", times.tobytes())
        return made

    def since(self, time: float) -> _Kept:
        """Those at a time and later."""
        first = int(np.searchsorted(np.frombuffer(self.times), time))
        made = _Kept()
        made.times = self.times[first:]
        for at, run in self.runs():
            if len(left := run[max(first - at, 0) :]):
                made._runs.append((max(at - first, 0), run.shape[1:], bytearray(left.tobytes())))
        return made

    def runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """The first picture's number and the pictures [n, H, W] of each stretch of one shape."""
        for first, shape, data in self._runs:
            yield first, np.frombuffer(data, np.uint8).reshape(-1, *shape)

    def between(self, start: float, end: float) -> list[np.ndarray]:
        """The pictures of each stretch of one shape in start < t < end."""
        return [run.copy() for run in self.seen_between(start, end)]

    def seen_between(self, start: float, end: float) -> list[np.ndarray]:
        """The same without a copy: nothing can be kept while they are looked at."""
        first, last = np.searchsorted(np.frombuffer(self.times), [start - 1e-3, end - 1e-3])
        cut = [run[max(first - at, 0) : max(last - at, 0)] for at, run in self.runs()]
        return [run for run in cut if len(run)]


class PictureChanges:
    """Notes how much the picture changes while a video is decoded: where the cuts are, which may lie between two
    sampled frames, and how lively a stretch is.

    `see` costs some ten microseconds a picture: it compares a few hundred pixels of the first plane (luma). Kept are
    two numbers a picture and some 600 bytes a quarter of a second.
    """

    GRID = 20  # rows and columns of pixels that are compared
    SUDDEN = 4.0  # a cut changes the picture this many times more than the pictures around it, and by
    LEAST = 6.0  # at least so many levels of 255 in the mean
    PASSED = 4.0  # between two pictures is taken to be at most so many times as long as between those around them
    AFTER = 4  # pictures; what is gone again after so many was a flash, not a cut
    PACE = 0.24  # seconds between the pictures kept to find dissolves
    SPANS = (2, 3, 4, 6)  # half a dissolve, in kept pictures
    MIXED = 0.2  # how far the middle of a dissolve may lie from the mean of its ends, of their difference
    NOISE = 12  # levels by which a pixel of a still picture may be off
    STILL = 0.4  # how much may go on before and after it, of their difference

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._recent: deque[np.ndarray] = deque(maxlen=self.AFTER)
        self._times = array("d")
        self._changes = array("d")
        self._lasting = array("d")
        self._kept = _Kept()

    def state(self) -> dict[str, np.ndarray]:
        """All that was noted, as arrays: `of_state` makes an equal one of it, for reading only."""
        return {
            "times": np.array(self._times),
            "changes": np.array(self._changes),
            "lasting": np.array(self._lasting),
            **self._kept.state(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, np.ndarray]) -> PictureChanges:
        """From what `state` gave.

        Raises:
            ValueError, KeyError: it is something else.
        """
        made = cls()
        columns = [state[name] for name in ("times", "changes", "lasting")]
        if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
            raise ValueError("times, changes and lasting must be of one length")
        if not all(np.isfinite(column).all() for column in columns) or (np.diff(columns[0]) < 0).any():
            raise ValueError("times, changes and lasting must be finite, and times must rise")
        if any(len(column) and not (column.min() >= 0 and column.max() <= 255) for column in columns[1:]):
            raise ValueError("changes and lasting must be levels, 0..255")
        made._times, made._changes, made._lasting = (array("d", column.tobytes()) for column in columns)
        made._kept = _Kept.of_state(state)
        return made

    @classmethod
    def of(cls, pictures: Iterable[np.ndarray], rate: float) -> PictureChanges:
        """From pictures at hand: uint8 [H, W] or [H, W, C], `rate` a second."""
        made = cls()
        for i, picture in enumerate(pictures):
            plane = np.ascontiguousarray(picture if picture.ndim == 2 else picture.mean(axis=2).astype(np.uint8))
            made.see(i / rate, memoryview(plane.tobytes()), plane.shape[1], plane.shape[1], plane.shape[0])
        return made

    def see(self, time: float, plane: memoryview, line_size: int, width: int, height: int) -> None:
        """Take note of a picture: its time in seconds, and its first plane of 8-bit values."""
        self.note(time, self.small(plane, line_size, width, height))

    @classmethod
    def small(cls, plane: memoryview, line_size: int, width: int, height: int) -> np.ndarray:
        """What `note` takes of a picture: the pixels of its first plane that are compared, uint8, a view."""
        rows = np.frombuffer(plane, np.uint8, count=line_size * height).reshape(height, line_size)
        return rows[:: max(height // cls.GRID, 1), : width : max(width // cls.GRID, 1)]

    def note(self, time: float, small: np.ndarray) -> None:
        """`see`, in two steps: the first may be another thread's."""
        small = small.astype(np.float32)
        if self._last is not None and self._last.shape == small.shape:
            self._times.append(time)
            self._changes.append(float(np.abs(small - self._last).mean()))
            # Against the picture AFTER before; near a start, the first.
            self._lasting.append(float(np.abs(small - self._recent[0]).mean()))
        else:
            self._recent.clear()
        self._recent.append(small)
        self._last = small
        if not self._kept.times or time >= self._kept.times[-1] + self.PACE:
            self._kept.add(time, small)

    def forget(self, before: float) -> None:
        """Drop what was noted before a time, in seconds: a stream's memory does not grow."""
        first = int(np.searchsorted(np.frombuffer(self._times), before))
        # One that is viewed cannot be made shorter: others take their place.
        self._times, self._changes, self._lasting = (
            column[first:] for column in (self._times, self._changes, self._lasting)
        )
        self._kept = self._kept.since(before)

    def recent(self) -> np.ndarray:
        """The last few pictures, float32 [n, h, w]: with `state` all that is needed to go on noting (`go_on`)."""
        return np.stack(self._recent) if self._recent else np.zeros((0, 1, 1), np.float32)

    def go_on(self, recent: np.ndarray) -> None:
        """Let what `of_state` made note more pictures: `recent` is what `recent()` gave.

        Raises:
            ValueError: it is something else.
        """
        if recent.ndim != 3 or len(recent) > self.AFTER or not np.isfinite(recent).all():
            raise ValueError(f"recent must be at most {self.AFTER} finite pictures, got shape {list(recent.shape)}")
        self._recent.extend(recent.astype(np.float32))
        self._last = self._recent[-1] if self._recent else None

    def boundary(self, after: float, until: float) -> float | None:
        """The time of the first picture after a hard cut in after < t <= until, or None where there is no clear one."""
        first, last = np.searchsorted(np.frombuffer(self._times), [after + 1e-3, until + 1e-3])
        if first >= last:
            return None
        at = int(first + np.argmax(self._changes[first:last]))
        return self._times[at] if self._sudden(at) >= 1.0 else None

    def _sudden(self, at: int) -> float:
        """How far above the demands on a cut a change is; from 1 on it is one."""
        near = [i for i in range(max(at - 6, 0), min(at + 7, len(self._changes))) if i != at]
        usual = float(np.median([self._changes[i] * self._longer(at, i) for i in near])) if near else 0.0
        return self._changes[at] / max(self.LEAST, self.SUDDEN * usual)

    def _longer(self, at: int, near: int) -> float:
        """How much longer than before another picture it took until this one, at least 1: where pictures between two
        were passed over, more is to change from one to the next."""
        if not min(at, near):
            return 1.0  # before the first nothing is known
        gap, other = self._times[at] - self._times[at - 1], self._times[near] - self._times[near - 1]
        return min(max(gap / other, 1.0), self.PASSED) if other else 1.0

    def cuts(self) -> list[tuple[float, float]]:
        """Hard cuts and dissolves as (seconds, strength), in order of time.

        A hard cut is a change between two pictures that stands out among the six before and after and lasts: a flash
        does not. A dissolve is a stretch whose middle is the mean of its ends while little goes on before and after
        it; its time is its middle. Strength is at least 1, where the change only just suffices.
        """
        changes = np.asarray(self._changes)
        found = []
        for at in np.flatnonzero(changes >= self.LEAST):
            sudden = self._sudden(int(at))
            later = min(int(at) + self.AFTER - 1, len(changes) - 1)
            # The picture before is gone for good, and this one was not there a moment ago: else it is a flash.
            lasts = min(self._lasting[later], self._lasting[at]) >= 0.5 * changes[at]
            if sudden >= 1.0 and lasts:
                found.append((self._times[at], sudden))
        hard = np.array([time for time, _ in found])
        for time, strength, half in self._dissolves():
            near = int(np.searchsorted(hard, time))
            if all(abs(other - time) > half for other in hard[max(near - 1, 0) : near + 1]):
                found.append((time, strength))
        return sorted(found)

    def _dissolves(self) -> list[tuple[float, float, float]]:
        """(seconds, strength, half its length) of every dissolve; of those that overlap the strongest."""
        offers: list[tuple[float, float, float]] = []
        for number, run in self._kept.runs():
            pictures = run.reshape(len(run), -1)
            for half in self.SPANS:
                for first in range(2 * half, len(run) - 2 * half, _BLOCK):
                    centre = np.arange(first, min(first + _BLOCK, len(run) - 2 * half))
                    offers += self._mixtures(pictures, number, centre, half)
        chosen: list[tuple[float, float, float]] = []
        places: dict[int, list[tuple[float, float, float]]] = {}  # those chosen, by stretches as long as two that touch
        for offer in sorted(offers, key=lambda offer: -offer[1]):
            place = int(offer[0] // (2 * max(self.SPANS) * self.PACE))
            beside = (other for near in (place - 1, place, place + 1) for other in places.get(near, ()))
            if all(abs(offer[0] - other[0]) > offer[2] + other[2] for other in beside):
                chosen.append(offer)
                places.setdefault(place, []).append(offer)
        return chosen

    def _mixtures(
        self, kept: np.ndarray, number: int, centre: np.ndarray, half: int
    ) -> list[tuple[float, float, float]]:
        """Those of the kept pictures `centre` that are the middle of a dissolve of 2 * half kept pictures; `number` is
        that of the first."""

        def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.asarray(np.abs(kept[a].astype(np.int16) - kept[b]).mean(axis=1))

        across = apart(centre - half, centre + half)
        mean = (kept[centre - half].astype(np.float32) + kept[centre + half]) / 2
        mixed = np.abs(kept[centre] - mean).mean(axis=1)
        around = np.maximum(apart(centre - 2 * half, centre - half), apart(centre + half, centre + 2 * half))
        good = (across >= 2 * self.LEAST) & (mixed <= self.MIXED * across) & (around <= self.STILL * across)
        strength = across / (2 * self.LEAST)
        times = self._kept.times
        return [(times[number + centre[i]], float(strength[i]), half * self.PACE) for i in np.flatnonzero(good)]

    def brightness(self, start: float, end: float) -> float | None:
        """The mean of the pictures in start < t < end, in levels of 255; None where none were kept."""
        kept = self._kept.between(start, end)
        return float(np.mean(np.concatenate([run.mean(axis=(1, 2)) for run in kept]))) if kept else None

    def is_still(self, start: float, end: float) -> bool:
        """Whether no pixel that is compared departs from the first picture's in start < t < end, but for coding noise;
        False where fewer than two pictures were kept."""
        kept = self._kept.seen_between(start, end)
        if len(kept) != 1 or len(kept[0]) < 2:
            return False
        first = kept[0][0].astype(np.int16)
        blocks = (kept[0][at : at + _BLOCK] for at in range(0, len(kept[0]), _BLOCK))
        return all(bool(np.abs(block - first).max() <= self.NOISE) for block in blocks)

    def liveliness(self, start: float, end: float) -> float:
        """The median change of the pictures in start < t < end, in levels of 255; 0 where none were seen."""
        first, last = np.searchsorted(np.frombuffer(self._times), [start + 1e-3, end - 1e-3])
        return float(np.median(self._changes[first:last])) if last > first else 0.0
