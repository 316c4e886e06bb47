"""Reading, sampling, cutting and muxing of real video files, through PyAV."""

from vtsum.video.info import VideoInfo, probe
from vtsum.video.reader import FrameSampler, SampledFrame


__all__ = ["FrameSampler", "SampledFrame", "VideoInfo", "probe"]
