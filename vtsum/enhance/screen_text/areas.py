"""Where a picture may hold writing: a cheap test, so that few pictures have to be read.

Letters are strokes: many strong edges close together, in rows. Writing also stays: an area whose edges are where they
were in the picture before is worth reading once, and again only when its edges have changed.

Letters have so many edges that those of any other letters lie beside most of them: whether edges are near tells writing
from what moves (`lingers`), and only whether they lie on each other one writing from another (`stays`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIDE = 640  # pixels of the longer side of the grey pictures that are looked at
EDGE = 36  # levels of 255 within 3 x 3 pixels from which there is an edge
TALLEST = 0.4  # of the picture's height, of a row of letters
LOWEST = 6  # pixels
NARROWEST = 20  # pixels
DENSE = (0.18, 0.85)  # the share of edges in a row of letters
STAYS = 0.6  # the share of an area's edges, above what chance gives, that must still be there
STILL = 4  # levels of 255 by which nine in ten pixels between the letters have changed at most where nothing moves
ANOTHER = 48  # levels by which 3 x 3 of its pixels have changed where there is another letter
_BESIDE = tuple(itertools.product((-1, 0, 1), repeat=2))  # a pixel up or down, left or right: what film does


@dataclass(frozen=True)
class Area:
    """A rectangle of the grey picture: pixels from the left and the top, width and height."""

    x: int
    y: int
    w: int
    h: int

    @classmethod
    def of(cls, box: Sequence[float]) -> Area:
        """A box (left, top, right, bottom), at least a pixel wide and high."""
        x, y = max(int(box[0]), 0), max(int(box[1]), 0)
        return cls(x, y, max(round(box[2]) - x, 1), max(round(box[3]) - y, 1))

    def near_edge(self, of: Area, size: tuple[int, int]) -> bool:
        """Whether it comes so near to an edge of another area that its letters may go on outside; not where that edge
        is the picture's, whose width and height are `size`."""
        near = max(self.h // 3, 2)
        return (
            (self.x - of.x < near and of.x > 0)
            or (self.y - of.y < near // 2 and of.y > 0)
            or (of.x + of.w - self.x - self.w < near and of.x + of.w < size[0])
            or (of.y + of.h - self.y - self.h < near // 2 and of.y + of.h < size[1])
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.h), slice(self.x, self.x + self.w)


def edges(grey: np.ndarray) -> np.ndarray:
    """bool [H, W]: where a grey picture, uint8 [H, W], changes sharply."""
    import cv2  # comes with vtsum[ocr]

    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, kernel) >= EDGE)


def areas(edge: np.ndarray) -> list[Area]:
    """The areas of an edge picture, bool [H, W], that may be rows of letters."""
    import cv2

    height = edge.shape[0]
    found = []
    for reach in (3, 9, 21, 45):  # letters stand that far apart, from small to large
        joined = cv2.morphologyEx(
            edge.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((max(reach // 3, 1), reach), np.uint8)
        )
        joined = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        # Of every second pixel: what was opened is at least three wide, and it takes a quarter of the time.
        _, _, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(joined[::2, ::2]), connectivity=8)
        for x, y, w, h in (2 * stats[1:, :4]).tolist():
            if w >= NARROWEST and LOWEST <= h <= TALLEST * height and w >= 1.5 * h:
                share = float(edge[y : y + h, x : x + w].mean())
                if DENSE[0] <= share <= DENSE[1]:
                    found.append(Area(x, y, w, h))
    return found


def stays(area: Area, before: np.ndarray, now: np.ndarray, share: float = STAYS) -> bool:
    """Whether a share of the edges of an area of one edge picture lies on edges of another, all moved by a pixel at
    most; above what edges as many in each row would give by chance."""
    was = before[area.slices]
    count = int(was.sum())
    for down, right in _BESIDE if count else ():
        there = _moved(now, area, down, right)
        chance = float(was.sum(axis=1) @ there.mean(axis=1)) / count
        if float((was & there).sum()) / count - chance >= share * (1 - chance):
            return True
    return False


def letters_change(area: Area, was: np.ndarray, now: np.ndarray) -> bool:
    """Whether a grey picture, uint8 [H, W], has other letters in an area that had `was`, [h, w], and stands still but
    for these: one digit of a line changes too few edges."""
    import cv2

    def small(change: np.ndarray) -> bool:
        return bool(cv2.blur(change, (3, 3)).max() < ANOTHER)

    if small(cv2.absdiff(now[area.slices], was)):
        return False
    there = min((_moved(now, area, *beside) for beside in _BESIDE), key=lambda one: cv2.absdiff(one, was).mean())
    change = cv2.absdiff(there, was)
    between = change[~(edges(was) | edges(there))]
    return bool(between.size and np.percentile(between, 90) <= STILL) and not small(change)


def _moved(picture: np.ndarray, area: Area, down: int, right: int) -> np.ndarray:
    """What lies so many pixels beside an area, as large; at the picture's edge its last pixels again."""
    rows = np.clip(np.arange(area.y, area.y + area.h) + down, 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(area.x, area.x + area.w) + right, 0, picture.shape[1] - 1)
    return np.asarray(picture[rows][:, columns])


def lingers(area: Area, before: np.ndarray, now: np.ndarray) -> bool:
    """Whether the edges of an area of one edge picture are near edges of another: other letters may be there."""
    import cv2

    was = before[area.slices]
    near = cv2.dilate(now[area.slices].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not was.any():
        return False
    chance = float(near.mean())  # as many of any edges would lie near
    return float(near[was].mean()) - chance >= STAYS * (1 - chance)


def lasting(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The edges of one edge picture that were there in the one before, a pixel beside at most: of what lies over a
    picture that moves, its own."""
    import cv2

    return np.asarray(now & (cv2.dilate(before.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0))


def within(one: Area, other: Area) -> bool:
    """Whether most of one lies in the other."""
    w = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    h = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    return w > 0 and h > 0 and w * h >= 0.5 * one.w * one.h


def overlap(one: Area, other: Area) -> bool:
    """Whether they share a pixel."""
    return (
        one.x < other.x + other.w and other.x < one.x + one.w and one.y < other.y + other.h and other.y < one.y + one.h
    )


def parts(found: Sequence[Area], whole: Area) -> list[Area]:
    """Rectangles that hold all of them with half a line more on every side; those that meet are one."""
    boxes = [around([area], whole) for area in found]
    joined: list[Area] = []
    while boxes:
        box = boxes.pop()
        meeting = [other for other in joined if overlap(box, other)]
        if meeting:
            joined = [other for other in joined if other not in meeting]
            boxes.append(_hull([box, *meeting]))
        else:
            joined.append(box)
    return sorted(joined, key=lambda part: (part.y, part.x))


def _hull(boxes: Sequence[Area]) -> Area:
    x, y = min(a.x for a in boxes), min(a.y for a in boxes)
    return Area(x, y, max(a.x + a.w for a in boxes) - x, max(a.y + a.h for a in boxes) - y)


def around(found: Sequence[Area], whole: Area, *, across: bool = False) -> Area:
    """The rectangle that holds all of them and half a line more on every side, at the full width of the picture where
    `across`; the whole picture where that is most of it."""
    more = max(max(a.h for a in found) // 2, 8)
    x0, x1 = max(min(a.x for a in found) - more, 0), min(max(a.x + a.w for a in found) + more, whole.w)
    y0, y1 = max(min(a.y for a in found) - more, 0), min(max(a.y + a.h for a in found) + more, whole.h)
    if across:
        x0, x1 = 0, whole.w
    return whole if (x1 - x0) * (y1 - y0) > 0.6 * whole.w * whole.h else Area(x0, y0, x1 - x0, y1 - y0)
