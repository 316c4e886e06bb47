"""Single pictures of a video, by time."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from vtsum.video.cursor import PictureCursor
from vtsum.video.picture import Pictures, Turn, display_size, turn_of


def pictures_at(path: str | os.PathLike[str], times: Sequence[float], *, longest: int = 512) -> list[np.ndarray]:
    """The pictures on display at `times`, upright.

    Args:
        path: a video file.
        times: seconds; quickest in order.
        longest (int): pixels of the longer side at most; pictures are never enlarged.
    Returns:
        list[np.ndarray]: uint8 [H, W, 3], one a time.
    Raises:
        VTSumError: the file cannot be read.
    """
    cursor = PictureCursor(path, "pictures_at")
    try:
        found: list[np.ndarray] = []
        made: tuple[tuple[int, int], Turn] | None = None
        for time in times:
            cursor.move_to(time)
            frame = cursor.frame or cursor.first
            turn = turn_of(frame)
            width, height = display_size(frame.width, frame.height, cursor.stream.sample_aspect_ratio, turn)
            share = min(longest / max(width, height), 1.0)
            size = max(round(width * share), 1), max(round(height * share), 1)
            if made != (size, turn):
                made, pictures = (size, turn), Pictures(size, turn)
            found.append(pictures.rgb(frame))
        return found
    finally:
        cursor.close()
