"""Reading, sampling, cutting and muxing of real video files, through PyAV."""

from vtsum.video.info import VideoInfo, probe
from vtsum.video.reader import FrameSampler, SampledFrame
from vtsum.video.writer import CutResult, CutShot, cut

__all__ = ["CutResult", "CutShot", "FrameSampler", "SampledFrame", "VideoInfo", "cut", "probe"]
