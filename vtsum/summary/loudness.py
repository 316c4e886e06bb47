"""How loud a video is over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

SILENT = 1e-3  # of full scale: the loudest tenth of a second of a stretch that is called silent
BLOCK = 0.1  # seconds that are weighed together
EDGE = 0.25  # seconds near the ends of a stretch that are not listened to: sound seldom changes with the very picture
STANDS_OUT = 1.5  # times the second: what is called the most lively or the loudest


class Loudness:
    """How loud each tenth of a second of a video is (root mean square, of full scale), where it could be decoded.

    Args:
        times, levels: [N], the start of each tenth of a second, and how loud it is.
        damaged: (start, end) in seconds, where sound could not be decoded.
    """

    def __init__(self, times: np.ndarray, levels: np.ndarray, damaged: Sequence[tuple[float, float]] = ()) -> None:
        order = np.argsort(times, kind="stable")
        self._times, self._levels = times[order], levels[order]
        self._damaged = np.array(damaged, np.float64).reshape(-1, 2)

    @classmethod
    def of(cls, source: Path, start: float = 0.0, end: float | None = None) -> Loudness:
        """Listen once to a video's sound, or to that of a part of it."""
        from vtsum.enhance.speech.sound import read_sound
        from vtsum.video.damage import Damage

        damage = Damage()
        found = [
            (time, float(np.sqrt(np.mean(np.square(block, dtype=np.float64)))))
            for time, block in read_sound(source, rate=8_000, block=BLOCK, damage=damage, part=(start, end))
        ]
        heard = np.array(found).reshape(-1, 2)
        return cls(heard[:, 0], heard[:, 1], damage.spans())

    def is_silent(self, start: float, end: float) -> bool:
        """Whether all of the stretch was decoded, and no tenth of a second of it is as loud as `SILENT`."""
        if not len(self._times) or ((self._damaged[:, 0] < end) & (self._damaged[:, 1] > start)).any():
            return False
        return self._loudest(self._from(start - BLOCK, "right"), self._from(end)) < SILENT

    def stands_out(self, spans: Sequence[tuple[float, float]]) -> int | None:
        """The part that is louder than all others by far, where everything was decoded."""
        if len(spans) < 2 or not len(self._times) or len(self._damaged):
            return None
        cores = [inside(*span, spans[-1][1]) for span in spans]
        inner = [self._loudest(self._from(a), self._from(b - BLOCK, "right")) for a, b in cores]
        best = int(np.argmax(inner))
        start, end = spans[best]
        # Where exactly sound changes beside a cut is not known: it may be a part's own that is heard beyond its edge.
        before = self._loudest(0, self._from(start - EDGE - BLOCK))
        beside = max(before, self._loudest(self._from(end + EDGE, "right"), len(self._times)))
        return best if inner[best] > max(STANDS_OUT * max(beside, *inner[:best], *inner[best + 1 :]), SILENT) else None

    def _from(self, time: float, side: Literal["left", "right"] = "left") -> int:
        """The number of the first tenth that begins at this time or later; "right": later."""
        return int(np.searchsorted(self._times, time, side))

    def _loudest(self, first: int, last: int) -> float:
        return float(self._levels[first:last].max(initial=0.0))


def inside(start: float, end: float, duration: float) -> tuple[float, float]:
    """A part without its edges beside other parts."""
    if end - start <= 4 * EDGE:
        return start, end
    return start + EDGE if start > 0 else start, end - EDGE if end < duration - EDGE else end
