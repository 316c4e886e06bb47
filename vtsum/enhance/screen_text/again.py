"""A second reading: a line is confirmed if the reader reads the same in it smaller and with what lies around it.

A misread letter seldom looks unsure; but small changes of the picture change it, and hardly what was read right. A part
that was taken for a whole line is found to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.screen_text.areas import Area

if TYPE_CHECKING:
    from vtsum.enhance.screen_text.reader import Reading

SMALLER = 0.9
AROUND = 1.0  # of a line's height, on every side


def surroundings(box: tuple[float, float, float, float], size: tuple[int, int]) -> Area:
    """What is read again for a line with that box in pixels, of a picture of that width and height."""
    left, top, right, bottom = box
    more = AROUND * (bottom - top)
    return Area.of((left - more, top - more, min(right + more, size[0]), min(bottom + more, size[1])))


def read_again(read: Callable[[np.ndarray], list[Reading]], text: str, picture: np.ndarray) -> bool:
    """Whether a text is read again in a picture, uint8 [H, W, 3], of its line and what lies around it; how wide its
    spaces are does not count.

    Raises:
        VTSumError: the reader stopped working.
    """
    import cv2  # comes with vtsum[ocr]

    height, width = (max(round(SMALLER * side), 1) for side in picture.shape[:2])
    smaller = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return text.split() in [reading.text.split() for reading in read(smaller)]
