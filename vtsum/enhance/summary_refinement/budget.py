"""How long a summary may be: what the user wrote, and the seconds that it means for a video."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from vtsum.errors import VTSumError

_NUMBER = r"(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})"
_CLOCK = re.compile(r"(?:(\d{1,9}):)?(\d{1,3}):(\d{2}(?:\.\d{1,12})?)")
_UNITS: tuple[tuple[re.Pattern[str], Literal["share", "seconds", "frames"], float], ...] = (
    (re.compile(_NUMBER + r"\s*%"), "share", 0.01),
    (re.compile(_NUMBER + r"\s*(?:s|sec|seconds?)"), "seconds", 1.0),
    (re.compile(_NUMBER + r"\s*(?:m|min|minutes?)"), "seconds", 60.0),
    (re.compile(r"(\d{1,12})\s*frames?"), "frames", 1.0),
)


@dataclass(frozen=True)
class Budget:
    """How long a summary may be: a share of the video, a time, or a count of sampled frames.

    `value` is a share (0..1], seconds, or frames; `text` is what the user wrote.
    """

    text: str
    kind: Literal["share", "seconds", "frames"]
    value: float

    def seconds(self, duration: float, fps: float) -> float:
        """The budget in seconds for a video of `duration` seconds sampled at `fps` frames a second.

        Raises:
            VTSumError: if the budget is longer than the video.
        """
        if self.kind == "share":
            return self.value * duration
        wanted = self.value if self.kind == "seconds" else self.value / fps
        # One sampling period of grace: a video of 9.97 s has ten frames at 1 fps, and "10s" of it is all of it.
        if wanted > duration + 1.0 / fps:
            raise VTSumError(
                f"summarize: budget must be at most the length of the video, {duration:.1f} s, "
                f"got {self.text!r} ({wanted:g} s)"
            )
        return min(wanted, duration)


def parse_budget(text: str | Budget) -> Budget:
    """Read a budget: "15%", "30s", "2min", "1:30", "1:02:03" or "12frames" (frames as sampled, one a second unless
    the sampling rate is changed; the field counts so).

    Raises:
        VTSumError: for anything else, for zero, and for a share above 100%.
    """
    if isinstance(text, Budget):
        return text
    if not isinstance(text, str):
        raise VTSumError(f'summarize: budget must be text like "15%", "30s" or "12frames", got {text!r}')
    plain = text.strip().lower()
    found: tuple[Literal["share", "seconds", "frames"], float] | None = None
    if clock := _CLOCK.fullmatch(plain):
        hours, minutes, rest = clock.groups()
        if float(rest) < 60 and (hours is None or int(minutes) < 60):
            found = "seconds", 3600.0 * int(hours or 0) + 60.0 * int(minutes) + float(rest)
    for pattern, kind, unit in _UNITS:
        if match := pattern.fullmatch(plain):
            found = kind, float(match.group(1)) * unit
    if found is None:
        raise VTSumError(
            f"summarize: budget must be a share (15%), a time (30s, 2min, 1:30) or a count (12frames), got {text!r}"
        )
    kind, value = found
    if not (math.isfinite(value) and value > 0):
        raise VTSumError(f"summarize: budget must be above zero, got {text!r}")
    if kind == "share" and value > 1 + 1e-12:
        raise VTSumError(f"summarize: budget must be at most 100%, got {text!r}")
    return Budget(text.strip(), kind, value)
