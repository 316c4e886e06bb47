"""Event segmentation: where one event of a video ends and the next begins.

segment(features, method, fps=..., boundary_scores=..., changes=...)   the events, by any method
kts(features, penalty=..., prices=...)      kernel temporal segmentation alone, in frames
PictureChanges                              cuts, dissolves and liveliness, from the pictures
find_shots(features, fps, ...)              what a summary is planned with
"""

from vtsum.enhance.event_segmentation.kernel import kts
from vtsum.enhance.event_segmentation.methods import (
    METHOD,
    METHODS,
    PENALTY,
    find_segmenter,
    find_shots,
    segment,
    unit_mean,
)
from vtsum.enhance.event_segmentation.pictures import PictureChanges
from vtsum.enhance.event_segmentation.segments import Segment

__all__ = [
    "METHOD",
    "METHODS",
    "PENALTY",
    "PictureChanges",
    "Segment",
    "find_segmenter",
    "find_shots",
    "kts",
    "segment",
    "unit_mean",
]
