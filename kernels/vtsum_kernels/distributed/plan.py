"""Who needs which frames of whom: the same on every rank, from the lengths of all stretches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Frames of the whole sequence that one rank sends to another, from `first` to before `end`."""

    peer: int
    first: int
    end: int


class Plan(NamedTuple):
    """A rank's own stretch of the whole sequence, the halo beside it, and the pieces that travel for it."""

    first: int  # of the whole's frames, the rank's own begin here
    end: int
    total: int
    left: int  # how far before a row here its keys may lie, in frames, and after it
    right: int
    before: int  # frames of the halo before the stretch, and after it
    after: int
    received: tuple[Piece, ...]  # in the order of frames: they make up the halo
    sent: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        return self.end - self.first

    @property
    def head(self) -> int:
        """Rows at the beginning, among which are all that need the halo before the stretch."""
        return min(self.left, self.frames) if self.before else 0

    @property
    def tail(self) -> int:
        """Rows at the end, likewise."""
        return min(self.right, self.frames) if self.after else 0


class Window(NamedTuple):
    """A window as `sliding_window_attention` takes it: sides in steps of `dilation`, -1 = unbounded."""

    left: int
    right: int
    dilation: int
    shift: bool

    def reach(self, first: int, end: int, total: int) -> tuple[int, int]:
        """How far before and after the rows from `first` to before `end`, of `total`, keys may lie that they see."""
        left, right = (total if side < 0 else min(side * self.dilation, total) for side in (self.left, self.right))
        if not self.shift:
            return left, right
        # A window that would leave the sequence on one side reaches further on the other.
        both = left + right
        return (both if end + right > total else left), (both if first < left else right)

    def keys(self, first: int, end: int, total: int) -> tuple[int, int]:
        """Between which frames these rows find all their keys."""
        left, right = self.reach(first, end, total)
        return (max(first - left, 0), min(end + right, total)) if first < end else (first, end)


def plan(lengths: Sequence[int], rank: int, window: Window) -> Plan:
    """Of one rank, where rank r holds lengths[r] frames, one stretch after another."""
    bounds = list(itertools.pairwise(itertools.accumulate(lengths, initial=0)))
    total = sum(lengths)
    first, end = bounds[rank]
    lowest, highest = window.keys(first, end, total)
    received, sent = [], []
    for peer, (its_first, its_end) in enumerate(bounds):
        if peer == rank:
            continue
        a, b = max(lowest, its_first), min(highest, its_end)
        if a < b:
            received.append(Piece(peer, a, b))
        its_lowest, its_highest = window.keys(its_first, its_end, total)
        a, b = max(its_lowest, first), min(its_highest, end)
        if a < b:
            sent.append(Piece(peer, a, b))
    reach = window.reach(first, end, total)
    return Plan(first, end, total, *reach, first - lowest, highest - end, tuple(received), tuple(sent))
