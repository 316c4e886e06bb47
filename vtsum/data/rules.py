"""What files of VideoXum's layout must hold: one rule for who checks or makes them and for who trains on them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.feature_files import array_header, read_array
from vtsum.errors import VTSumError

SLACK = 2
"""Frames by which the lengths of features and labels may differ; the longer one is cut. Released data needs it."""
LONGEST = 10_000_000
"""Seconds, and frames, that a video may have: some four months."""
HIGHEST = 1_000_000
"""The most that a rater may give."""
MOST_RATERS, MOST_PAIRED = 500, 10**10
"""Raters of a video; and pairs of them, times its frames: each is held against each other one."""


def too_many_raters(raters: int, frames: int) -> str | None:
    """Why a video's raters are too many to be held against each other; None where they are not."""
    if raters > MOST_RATERS:
        return f"raters must be at most {MOST_RATERS}, got {raters:,}"
    if raters * raters * frames > MOST_PAIRED:
        return f"raters times raters times frames must be at most {MOST_PAIRED:,}, got {raters:,} and {frames:,} frames"
    return None


def is_duration(value: Any) -> bool:
    """Whether a value of an annotation file is the length of a video in seconds: a number above 0, up to LONGEST."""
    return type(value) in (int, float) and 0 < value <= LONGEST


def spans_in(value: Any) -> tuple[tuple[float, float], ...] | None:
    """The spans of an annotation file, each a list of two numbers of seconds; None where they are something else.

    A time may lie before the video or behind its end, as released ones do, but no further than LONGEST.
    """
    if not isinstance(value, list):
        return None
    for span in value:
        if not (isinstance(span, list) and len(span) == 2):
            return None
        if not all(type(time) in (int, float) and abs(time) <= LONGEST for time in span):
            return None
    return tuple((float(start), float(end)) for start, end in value)


def misshapen(
    path: str | os.PathLike[str], key: str, shape: tuple[int, ...], dtype: np.dtype, frames: int | None
) -> str | None:
    """What is wrong with an array by its head; None where nothing is.

    Args:
        key: "features" or "vision" [T, C], "text" [1, C] or [C]. frames: of the labels; None: any number will do.
    """
    if dtype.kind != "f":
        return f"{path}: {key} must be floating point numbers, got dtype {dtype}"
    if key == "text":
        if shape[:-1] not in ((), (1,)) or shape[-1:] in ((), (0,)):
            return f"{path}: text must be [1, D], got {list(shape)}"
        return None
    if len(shape) != 2 or 0 in shape:
        return f"{path}: {key} must be [T, C], got {list(shape)}"
    if shape[0] > LONGEST:
        return f"{path}: {key} must have at most {LONGEST:,} frames, got {shape[0]:,}"
    if frames is not None and abs(shape[0] - frames) > SLACK:
        return f"{path}: {key} must have as many frames as the labels ({frames}), give or take {SLACK}, got {shape[0]}"
    return None


def not_finite(path: str | os.PathLike[str], key: str, array: np.ndarray) -> str | None:
    """What is wrong with an array's numbers; None where nothing is."""
    good = np.isfinite(array)
    if good.all():
        return None
    nan = int(np.isnan(array).sum())
    bad = int((~good).sum())
    first = int(np.argwhere(~good)[0][0])
    return f"{path}: {key} must be finite, got {nan} NaN and {bad - nan} infinite numbers, the first in row {first}"


def read_matrix(path: Path, key: str, frames: int | None) -> np.ndarray:
    """An array of a feature file as float32 [rows, C], a `text` of one dimension as one row.

    Args:
        frames: see `misshapen`.
    Raises:
        VTSumError: it cannot be read, or is not what it must be.
    """
    array = read_array(path, key)
    problem = misshapen(path, key, array.shape, array.dtype, frames) or not_finite(path, key, array)
    if problem is not None:
        raise VTSumError(problem)
    return np.ascontiguousarray(np.atleast_2d(array), np.float32)


def widths(paths: list[Path], key: str) -> dict[Path, int]:
    """C of each file whose head can be read."""
    found = {}
    for path in paths:
        try:
            shape, _ = array_header(path, key)
        except VTSumError:
            continue
        if shape:
            found[path] = shape[-1]
    return found


def most(values: list[int]) -> int:
    """What most of them are: that one is taken for right."""
    return Counter(values).most_common(1)[0][0]


def odd_width(path: Path, key: str, width: int, usual: int) -> str | None:
    """What is wrong with a file's width, where most files (or the vision beside a text) have another; else None."""
    return None if width == usual else f"{path}: {key} must have width {usual}, as most, got {width}"
