"""What counts as right: how far results may be off the op's reference in float64, and what of them is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

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


class Sums:
    """The error of one result, gathered part by part."""

    def __init__(self, norm: float | None = None) -> None:
        self.largest, self.wrong, self.size, self.norm = 0.0, 0.0, 0.0, norm

    def add(self, output: Tensor, right: Tensor) -> None:
        error = output.detach().double() - right
        self.largest = max(self.largest, float(error.abs().max()))
        self.wrong += float(error.square().sum())
        self.size += float(right.square().sum())

    @property
    def ratio(self) -> float:
        """Against the size of the right result, or `norm`."""
        return math.sqrt(self.wrong) / max(math.sqrt(self.size) if self.norm is None else self.norm, 1e-150)


def total(sums: Iterable[Sums], rows: int) -> Errors:
    """The worst of several results."""
    each = list(sums)
    return Errors(max(s.largest for s in each), max(s.ratio for s in each), rows)


def finite(outputs: Sequence[Tensor]) -> bool:
    return all(bool(output.isfinite().all()) for output in outputs)


def stretches(frames: int) -> list[tuple[int, int]]:
    """The frames to check: all of a short sequence; of a long one its borders and two places inside."""
    if frames <= CHECK_ALL_UP_TO:
        return [(a, min(a + STRETCH, frames)) for a in range(0, frames, STRETCH)]
    middle = [frames // 3 - STRETCH // 2, 2 * frames // 3 + 7]
    return [(a, a + STRETCH) for a in (0, *middle, frames - STRETCH)]
