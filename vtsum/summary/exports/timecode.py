"""Frames as timecode (SMPTE ST 12-1), and the frame rates that editors know."""

from __future__ import annotations

import re
from fractions import Fraction

RATES = tuple(
    Fraction(*rate)
    for rate in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1))
)
_ALIKE = 0.01  # how far a mean rate may lie from the one that is meant
_MULTIPLES = 6
_TIMECODE = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.])(\d{2})")


def editing_rate(fps: float) -> Fraction:
    """The rate of `RATES` that is nearest to `fps` or, where none is near, to a multiple of it; where pictures come
    unevenly, so that none is, the next whole one above."""
    for times in range(1, _MULTIPLES + 1):
        nearest = min(RATES, key=lambda rate: abs(float(rate) - times * fps))
        if abs(float(nearest) / (times * fps) - 1) <= _ALIKE:
            return nearest
    return next((rate for rate in RATES if rate > fps and rate.denominator == 1), RATES[-1])


def frames_of(timecode: str, rate: Fraction) -> tuple[int, bool] | None:
    """(frames since 00:00:00:00, whether numbers are dropped) of a timecode; None where it is none at this rate."""
    found = _TIMECODE.fullmatch(timecode.strip())
    if found is None:
        return None
    hours, minutes, seconds, frames = (int(found[i]) for i in (1, 2, 3, 5))
    base, drop = round(rate), found[4] != ":" and _drops(rate)
    if frames >= base or minutes > 59 or seconds > 59:
        return None
    whole = ((hours * 60 + minutes) * 60 + seconds) * base + frames
    if drop:
        passed = hours * 60 + minutes
        whole -= base // 15 * (passed - passed // 10)
    return whole, drop


def timecode_of(frames: int, rate: Fraction, drop: bool = False) -> str:
    """HH:MM:SS:FF, or HH:MM:SS;FF with dropped numbers; it begins anew after 24 hours."""
    base = round(rate)
    if drop:
        dropped = base // 15  # numbers, in each minute but every tenth
        tens, rest = divmod(frames, 600 * base - 9 * dropped)
        frames += 9 * dropped * tens + dropped * max((rest - dropped) // (60 * base - dropped), 0)
    seconds, frame = divmod(frames, base)
    mark = ";" if drop else ":"
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{frame:02}"


def _drops(rate: Fraction) -> bool:
    return rate.denominator == 1001 and round(rate) % 30 == 0
