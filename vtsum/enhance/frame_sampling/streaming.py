"""Choosing frames while they come, so that a picture that is not chosen need not be kept.

The frames since the last choice and those that follow, up to a window, are covered as a whole (see `coverage`); only
the choices in the window's first half are final, for they hardly depend on what comes after it. Then the window moves
on to the last final choice. What a stretch saves the next ones may spend: the share is kept over the whole video.
"""

from __future__ import annotations

import math

import numpy as np

from vtsum.enhance.frame_sampling.coverage import cover, least_count

WINDOW = 128  # frames that are looked at together
LEAST_SHARE = 0.01  # smaller ones would make windows of more than 1,600 frames
GAP = 4  # the longest stretch without a choice, in mean distances of choices


def longest_gap(share: float) -> int:
    """Of how many neighbouring frames at least one is chosen."""
    return max(1, math.ceil(GAP / share - 1e-9))


class FrameChooser:
    """Chooses a share of the frames of a stream; the same ones however the frames are dealt out in batches.

        chooser = FrameChooser(0.25)
        for batch in batches:                       # cheap features [n, C]
            chosen = chooser.see(batch)             # frame numbers, rising; final
            ...                                     # frames before chooser.settled will never be chosen any more
        chosen = chooser.finish()

    Args:
        share (float): 0.01 to 1. Of T frames ceil(share * T) are chosen, but
        at_least (int): so many in any case, or all where there are fewer.
        window (int): frames looked at together, and the most that are ever pending; at least `at_least`, and four
            times the longest stretch without a choice, which is 4 / share.
    Attributes:
        seen (int): frames so far. settled (int): the first frame that may still be chosen.
    Raises:
        ValueError: for a wrong share or window.
    """

    def __init__(self, share: float, *, at_least: int = 1, window: int | None = None) -> None:
        if not LEAST_SHARE <= share <= 1:
            raise ValueError(f"FrameChooser: share must be {LEAST_SHARE:g} to 1, got {share}")
        self.longest = longest_gap(share)
        needed = max(4 * self.longest, at_least)
        self.window = max(WINDOW, needed) if window is None else window
        if self.window < needed:
            raise ValueError(f"FrameChooser: window must be at least {needed} frames here, got {window}")
        self.share = share
        self.at_least = at_least
        self.seen = 0
        self.settled = 0
        self._chosen = 0
        self._anchor: np.ndarray | None = None  # [1, C], the last choice
        self._pending: list[np.ndarray] = []  # frames settled .. seen - 1

    def see(self, features: np.ndarray) -> list[int]:
        """Take note of the next frames, [n, C]; returns those that are chosen for good by now.

        Raises:
            ValueError: for a wrong shape, or features that are not finite.
        """
        x = np.asarray(features)
        width = len(self._pending[0]) if self._pending else x.shape[-1] if x.ndim else 0
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"FrameChooser: features must be [n, C], as wide as before, got shape {x.shape}")
        if not np.isfinite(x).all():
            bad = self.seen + int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise ValueError(f"FrameChooser: features must be finite, got NaN or infinity in frame {bad}")
        chosen: list[int] = []
        for row in x:
            self._pending.append(row)
            self.seen += 1
            if len(self._pending) == self.window:
                chosen += self._settle(final=False)
        return chosen

    def finish(self) -> list[int]:
        """The choices among the last frames; the chooser must not be used after."""
        return self._settle(final=True)

    def _settle(self, final: bool) -> list[int]:
        pending = len(self._pending)
        if pending == 0:
            return []
        anchored = self._anchor is not None
        x = np.stack(self._pending)
        if self._anchor is not None:
            x = np.concatenate([self._anchor, x])
        least = least_count(len(x), self.longest, anchored)
        wanted = max(math.ceil(self.share * self.seen - 1e-9), self.at_least) - self._chosen
        count = min(max(wanted, least), pending)
        picks = cover(x, count, self.longest, anchored=anchored) - int(anchored)
        if not final:
            picks = picks[picks < self.window // 2]
        numbers = [self.settled + int(p) for p in picks]
        self._chosen += len(numbers)
        if final:
            self._pending.clear()
            self.settled = self.seen
        elif len(picks):
            last = int(picks[-1])
            self._anchor = self._pending[last][None]
            del self._pending[: last + 1]
            self.settled += last + 1
        return numbers


class EvenChooser:
    """Chooses evenly spaced frames of a stream, as FrameChooser does: the middle one of each 1 / share frames, about
    share * T of T frames.

    Args:
        share, at_least: as for FrameChooser.
    Attributes:
        seen (int), settled (int): as for FrameChooser.
    Raises:
        ValueError: for a wrong share.
    """

    def __init__(self, share: float, *, at_least: int = 1) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"EvenChooser: share must be above 0 and at most 1, got {share}")
        self.share = share
        self.at_least = at_least
        self.seen = 0
        self.settled = 0
        self._chosen = 0

    def see(self, features: np.ndarray) -> list[int]:
        """Take note of the next n frames, [n, ...]; returns those that are chosen for good by now."""
        self.seen += len(features)
        if self.seen * self.share < self.at_least:
            return []  # so far it may be a video of which more than the share is chosen
        numbers = []
        while (middle := int((self._chosen + 0.5) / self.share)) < self.seen:
            numbers.append(middle)
            self._chosen += 1
        if numbers:
            self.settled = numbers[-1] + 1
        return numbers

    def finish(self) -> list[int]:
        """The choices among the last frames; the chooser must not be used after."""
        self.settled = self.seen
        if self._chosen:
            return []
        count = max(math.ceil(self.share * self.seen - 1e-9), min(self.at_least, self.seen))
        return [(2 * i + 1) * self.seen // (2 * count) for i in range(count)]
