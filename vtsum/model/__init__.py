"""The summarizer's networks; `load` gives one ready for use."""

from vtsum.model.encoders import load_frame_encoder
from vtsum.model.losses import VTSumOutput
from vtsum.model.summarizer import Caption, FullSizeSummarizer, VTSumSummarizer, load
from vtsum.model.vtsum import VTSum
from vtsum.protocols import FrameEncoder, Summarizer

__all__ = [
    "Caption",
    "FrameEncoder",
    "FullSizeSummarizer",
    "Summarizer",
    "VTSum",
    "VTSumOutput",
    "VTSumSummarizer",
    "load",
    "load_frame_encoder",
]
