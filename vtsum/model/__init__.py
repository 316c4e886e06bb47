"""The summarizer's networks; `load` gives one ready for use."""

from vtsum.model.summarizer import FullSizeSummarizer, Sentence, Summarizer, load
from vtsum.model.vtsum import VTSum, VTSumOutput

__all__ = ["FullSizeSummarizer", "Sentence", "Summarizer", "VTSum", "VTSumOutput", "load"]
