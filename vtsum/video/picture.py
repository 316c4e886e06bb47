"""Decoded pictures made upright, square-pixeled, 8 bit and of the wanted size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

_HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}  # AVColorSpace values that swscale converts
_MAX_SIDE = 16384


def clockwise_rotation(frame: VideoFrame) -> int:
    """Return by how many degrees clockwise a player turns the picture: 0, 90, 180 or 270."""
    return round(-frame.rotation / 90) * 90 % 360


def display_size(width: int, height: int, aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Return (width, height) as displayed: square pixels, upright."""
    if aspect and 0.1 <= aspect <= 10 and aspect != 1:
        width = max(1, min(_MAX_SIDE, round(width * aspect)))
    return (height, width) if rotation % 180 else (width, height)


class Pictures:
    """Converts decoded frames to one size; keeps the scaler's tables between frames.

    Args:
        size (tuple[int, int]): width and height of what comes out, upright.
        rotation (int): degrees clockwise to turn, a multiple of 90.
        threads (int): threads of the scaler; 0 for one a core.
    """

    def __init__(self, size: tuple[int, int], rotation: int, *, threads: int = 1) -> None:
        self.size = size
        self.rotation = rotation
        self._threads = threads
        self._scaler = VideoReformatter()
        self._shrinker = VideoReformatter()
        self._can_map_hdr = True

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 [H, W, 3], upright."""
        out = self._convert(frame, "rgb24")
        return np.ascontiguousarray(np.rot90(out.to_ndarray(), -self.rotation // 90))

    def yuv(self, frame: VideoFrame) -> VideoFrame:
        """Return an upright yuv420p frame in limited range, BT.709 or the source's own matrix. Sizes must be even."""
        out = self._convert(frame, "yuv420p")
        if self.rotation:
            colors = (out.colorspace, out.color_primaries, out.color_trc)
            out = _turned(out, self.rotation)
            out.colorspace, out.color_primaries, out.color_trc = colors
            out.color_range = int(ColorRange.MPEG)
        elif out is frame:
            out.color_range = int(ColorRange.MPEG)
        out.pict_type = int(PictureType.NONE)  # the decoder's types would be taken as orders by the encoder
        return out

    def _convert(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        width, height = self.size[::-1] if self.rotation % 180 else self.size
        to_yuv = pixel_format == "yuv420p"
        hdr = frame.color_trc in _HDR_TRANSFERS
        matrix = _matrix(frame)
        kept = matrix if to_yuv and not hdr and not _is_rgb(frame) and matrix != Colorspace.BT2020 else None
        shrinks = width < frame.width or height < frame.height
        arguments: dict[str, Any] = {
            "width": width,
            "height": height,
            "format": pixel_format,
            "interpolation": Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            "src_colorspace": matrix,
            "dst_colorspace": kept or Colorspace.ITU709,
            "dst_color_range": ColorRange.MPEG if to_yuv else ColorRange.JPEG,
            "threads": self._threads,
        }
        if hdr and self._can_map_hdr:
            try:  # swscale maps PQ and HLG to BT.709's brightness range; its table is slow to use where it scales too
                small = self._shrinker.reformat(
                    frame,
                    width=width,
                    height=height,
                    interpolation=arguments["interpolation"],
                    threads=self._threads,
                )
                return self._scaler.reformat(
                    small, dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709, **arguments
                )
            except (av.FFmpegError, ValueError):
                self._can_map_hdr = False
        try:
            return self._scaler.reformat(frame, **arguments)
        except (av.FFmpegError, ValueError, MemoryError):
            return _black(width, height, pixel_format)  # damage gave the picture a form that swscale refuses


def _black(width: int, height: int, pixel_format: str) -> VideoFrame:
    return VideoReformatter().reformat(
        VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24"), format=pixel_format
    )


def _is_rgb(frame: VideoFrame) -> bool:
    return bool(frame.format.is_rgb) or frame.format.name == "pal8"


def _matrix(frame: VideoFrame) -> int:
    """The frame's YUV matrix; where none is stated, the one that players assume from the height."""
    if frame.colorspace in _KNOWN_MATRICES:
        return int(frame.colorspace)
    return int(Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601)


def _turned(frame: VideoFrame, rotation: int) -> VideoFrame:
    """Turn a yuv420p frame of even size clockwise, plane by plane."""
    width, height = frame.width, frame.height
    if rotation % 180:
        width, height = height, width
    out = VideoFrame(width, height, "yuv420p")
    for source, target in zip(frame.planes, out.planes, strict=True):
        pixels = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)[:, : source.width]
        into = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        into[:, : target.width] = np.rot90(pixels, -rotation // 90)
    return out


def save_jpeg(frame: VideoFrame, path: Path, height: int, quality: int = 4) -> None:
    """Write a frame as a JPEG of the given height, aspect kept, never enlarged.

    Args:
        quality (int): libav's scale, 2 (best) to 31; 4 is about 85 of 100.
    """
    height = min(height, frame.height)
    width = max(1, round(frame.width * height / frame.height))
    small = Pictures((width, height), 0)._convert(frame, "yuvj420p")
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
    context.framerate = Fraction(25)
    context.options = {"qmin": str(quality), "qmax": str(quality)}
    data = b"".join(bytes(packet) for packet in [*context.encode(small), *context.encode(None)])
    path.write_bytes(data)
