"""The summarizer's networks; `load` gives one ready for use."""

from vtsum.model.frame_encoder import FrameEncoder, load_frame_encoder
from vtsum.model.summarizer import FullSizeSummarizer, Sentence, Summarizer, load
from vtsum.model.vtsum import VTSum, VTSumOutput

__all__ = [
    "FrameEncoder",
    "FullSizeSummarizer",
    "Sentence",
    "Summarizer",
    "VTSum",
    "VTSumOutput",
    "load",
    "load_frame_encoder",
]
