"""Frame sampling: a full-size encoder need not see every frame.

Cheap features of all frames (`thumbnail_features`) say which frames stand for the others (`choose_frames`, or
`FrameChooser` and `EvenChooser` while they come); only those are encoded, and `spread` gives the others their values.
"""

from vtsum.enhance.frame_sampling.choosing import METHODS, choose_frames
from vtsum.enhance.frame_sampling.spreading import spread
from vtsum.enhance.frame_sampling.streaming import EvenChooser, FrameChooser
from vtsum.enhance.frame_sampling.thumbnails import thumbnail_features

__all__ = ["METHODS", "EvenChooser", "FrameChooser", "choose_frames", "spread", "thumbnail_features"]
