"""What counts as right: the measures of an error and their bounds, the same for every op."""

from __future__ import annotations

from typing import NamedTuple

#: Root mean square of the error over that of the result.
RMS_BOUND = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 8e-3}
#: Rivals may round every step to their dtype, which costs digits without being wrong.
RIVAL_SLACK = 3.0

CHECK_ALL_UP_TO = 2048
STRETCH = 256


class Errors(NamedTuple):
    max_error: float
    rms_ratio: float
    checked_rows: int


def stretches(frames: int) -> list[tuple[int, int]]:
    """The frames to check: all of a short sequence; of a long one its borders and two places inside."""
    if frames <= CHECK_ALL_UP_TO:
        return [(a, min(a + STRETCH, frames)) for a in range(0, frames, STRETCH)]
    middle = [frames // 3 - STRETCH // 2, 2 * frames // 3 + 7]
    return [(a, a + STRETCH) for a in (0, *middle, frames - STRETCH)]
