"""What raters said of videos of one's own: each a score from a time on, until their next one or the video's end.

    video,rater,start,score         a CSV file with this line first; start in seconds
    talk,ann,0,2
    talk,ann,12.5,5

    {"talk": {"ann": [[0, 2], [12.5, 5]]}}      the same as JSON

The videos are called as `vtsum extract` calls their features: a file's name without its ending.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.data.feature_files import check_id
from vtsum.data.rules import HIGHEST, LONGEST
from vtsum.errors import VTSumError
from vtsum.reading import as_said, parse_json, read_file
from vtsum.shown import with_slashes

COLUMNS = ("video", "rater", "start", "score")


@dataclass(frozen=True, eq=False)
class Rating:
    """One rater's of one video: `starts` float64 [S], rising from 0, in seconds, and `scores` float32 [S]."""

    starts: np.ndarray
    scores: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """The score that holds at each of `times` (seconds from 0 on, [T]): float32 [T]."""
        return np.asarray(self.scores[np.searchsorted(self.starts, times, side="right") - 1])


def load_ratings(path: Path) -> dict[str, dict[str, Rating]]:
    """Ratings by video and rater, in the file's order.

    Args:
        path: a .csv or a .json.
    Raises:
        VTSumError: the file is missing or in neither layout, a rater's first score is not at 0 or two are at one time,
            or a number is not one or out of its range.
    """
    where = f"load_ratings: {with_slashes(str(path))}"
    content, ending = read_file(path, "load_ratings"), path.suffix.lower()
    if ending not in (".csv", ".json"):
        raise VTSumError(f"{where} must end in .csv or .json, got {path.suffix!r:.20}")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for place, video, rater, start, score in (_of_csv if ending == ".csv" else _of_json)(content, where):
        check_id(video, f"{place}: video")
        if not rater:
            raise VTSumError(f"{place}: rater must have a name, got none")
        point = (_number(start, LONGEST, f"{place}: start"), _number(score, HIGHEST, f"{place}: score"))
        found.setdefault(video, {}).setdefault(rater, []).append(point)
    if not found:
        raise VTSumError(f"{where} must hold ratings, got none")
    return {
        video: {rater: _rating(points, f"{where}: {video}: {rater:.80}") for rater, points in raters.items()}
        for video, raters in found.items()
    }


def _rating(points: list[tuple[float, float]], where: str) -> Rating:
    points = sorted(points)
    starts = np.array([start for start, _ in points])
    if starts[0] != 0:
        raise VTSumError(f"{where}: the first score must be at 0 seconds, got {starts[0]:g}")
    if (twice := np.flatnonzero(np.diff(starts) == 0)).size:
        raise VTSumError(f"{where} must have one score at a time, got several at {starts[twice[0]]:g} seconds")
    return Rating(starts, np.array([score for _, score in points], np.float32))


def _of_csv(content: bytes, where: str) -> Iterator[tuple[str, str, str, Any, Any]]:
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        head = [name.strip() for name in next(rows, [])]
        if sorted(head) != sorted(COLUMNS):
            raise VTSumError(f"{where}: line 1 must be {','.join(COLUMNS)}, in any order, got {','.join(head)!r:.80}")
        at = [head.index(name) for name in COLUMNS]
        for row in rows:
            place = f"{where}: line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(COLUMNS):
                raise VTSumError(f"{place} must have {len(COLUMNS)} cells, got {len(row)}")
            video, rater, start, score = (row[column].strip() for column in at)
            yield place, video, rater, start, score
    except UnicodeDecodeError as error:
        raise VTSumError(f"{where} must be in UTF-8, got byte {error.object[error.start]:#04x}") from None
    except csv.Error as error:
        raise VTSumError(f"{where} must be CSV, got: {error}") from None


def _of_json(content: bytes, where: str) -> Iterator[tuple[str, str, str, Any, Any]]:
    for video, raters in parse_json(content, dict, where).items():
        if not isinstance(raters, dict):
            raise VTSumError(f"{where}: {video:.80} must be an object, its raters' scores, got {as_said(raters, 40)}")
        for rater, points in raters.items():
            place = f"{where}: {video:.80}: {rater:.80}"
            if not isinstance(points, list) or not points:
                raise VTSumError(f"{place} must be a list of start and score, got {as_said(points, 40)}")
            for point in points:
                if not isinstance(point, list) or len(point) != 2:
                    raise VTSumError(f"{place} must hold pairs of start and score, got {as_said(point, 40)}")
                yield place, video, rater, point[0], point[1]


def _number(value: Any, greatest: float, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= greatest:
        raise VTSumError(f"{where} must be a number from 0 to {greatest:,}, got {as_said(value, 40)}")
    return number
