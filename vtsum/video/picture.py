"""Decoded pictures made upright, square-pixeled, 8 bit and of the wanted size."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import PictureType, VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

_HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
_KNOWN_MATRICES = {1, 4, 5, 6, 7, 9}  # AVColorSpace values that swscale converts
_MAX_SIDE = 16384
_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv411p", "yuv444p", "yuvj444p"}  # of 8 bits
_ALIKE = 0.02  # of the ratio of width to height
_COMBED = 10  # levels of 255 by which a line of another time stands out


class Turn(NamedTuple):
    """How a player turns stored pictures: by degrees clockwise (0, 90, 180, 270), then left to right if mirrored."""

    rotation: int = 0
    mirrored: bool = False

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """A view of [H, W, ...] pixels, turned."""
        turned = np.rot90(pixels, -self.rotation // 90)
        return turned[:, ::-1] if self.mirrored else turned


def turn_of(frame: VideoFrame) -> Turn:
    """How a frame's display matrix turns it, to the nearest right angle."""
    found = frame.side_data.get("DISPLAYMATRIX")
    data = bytes(found) if isinstance(found, SideData) else b""
    if len(data) < 36:
        return Turn()
    a, b, _, c, d = struct.unpack_from("=5i", data)  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(180 if d < 0 else 0, (a < 0) != (d < 0))
    return Turn(90 if b > 0 else 270, (b > 0) == (c > 0))


def is_hdr(frame: VideoFrame) -> bool:
    """Whether its brightness is stored by PQ or HLG (ITU-R BT.2100)."""
    return frame.color_trc in _HDR_TRANSFERS


def display_size(width: int, height: int, aspect: Fraction | None, turn: Turn) -> tuple[int, int]:
    """Return (width, height) as displayed: square pixels, upright."""
    if aspect and 0.1 <= aspect <= 10 and aspect != 1:
        width = max(1, min(_MAX_SIDE, round(width * aspect)))
    return (height, width) if turn.rotation % 180 else (width, height)


class Pictures:
    """Converts decoded frames to one size; keeps the scaler's tables between frames.

    Args:
        size (tuple[int, int]): width and height of what comes out, upright.
        turn (Turn): how pictures are made upright.
        shape (tuple[int, int] | None): width and height, as displayed, of pictures that fill `size`; those of another
            shape keep theirs, between black bars. None: all are stretched.
        aspect (Fraction | None): width of a stored pixel over its height.
        threads (int): threads of the scaler; 0 for one a core.
    """

    def __init__(
        self,
        size: tuple[int, int],
        turn: Turn = Turn(),  # noqa: B008 - a tuple
        *,
        shape: tuple[int, int] | None = None,
        aspect: Fraction | None = None,
        threads: int = 1,
    ) -> None:
        self.size = size
        self.turn = turn
        self._shape = shape
        self._aspect = aspect
        self._threads = threads
        self._scaler = VideoReformatter()
        self._shrinker = VideoReformatter()
        self._can_map_hdr = True

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return uint8 [H, W, 3], upright."""
        inner = self._inner(frame)
        pixels = self.turn.upright(self._convert(frame, "rgb24", inner).to_ndarray())
        if inner != self.size:
            whole = np.zeros((self.size[1], self.size[0], 3), np.uint8)
            left, top = _middle(self.size, inner)
            whole[top : top + inner[1], left : left + inner[0]] = pixels
            return whole
        return np.ascontiguousarray(pixels)

    def yuv(self, frame: VideoFrame) -> VideoFrame:
        """Return an upright yuv420p frame in limited range, BT.709 or the source's own matrix. Sizes must be even."""
        inner = self._inner(frame)
        out = self._convert(frame, "yuv420p", inner)
        if self.turn != Turn() or inner != self.size:
            colors = (out.colorspace, out.color_primaries, out.color_trc)
            out = _placed(out, self.turn, inner, self.size)
            out.colorspace, out.color_primaries, out.color_trc = colors
            out.color_range = int(ColorRange.MPEG)
        elif out is frame:
            out.color_range = int(ColorRange.MPEG)
        out.pict_type = int(PictureType.NONE)  # the decoder's types would be taken as orders by the encoder
        return out

    def _inner(self, frame: VideoFrame) -> tuple[int, int]:
        """Width and height, upright, that a frame takes of `size`."""
        if self._shape is None:
            return self.size
        width, height = display_size(frame.width, frame.height, self._aspect, self.turn)
        if abs(width * self._shape[1] / (height * self._shape[0]) - 1) < _ALIKE:
            return self.size
        scale = min(self.size[0] / width, self.size[1] / height)
        inner = round(width * scale / 2) * 2, round(height * scale / 2) * 2
        return min(max(inner[0], 2), self.size[0]), min(max(inner[1], 2), self.size[1])

    def _convert(self, frame: VideoFrame, pixel_format: str, upright: tuple[int, int]) -> VideoFrame:
        width, height = upright[::-1] if self.turn.rotation % 180 else upright
        if frame.interlaced_frame and 2 * height > frame.height:  # smaller ones hold no single lines
            frame = deinterlaced(frame)
        to_yuv = pixel_format == "yuv420p"
        hdr = is_hdr(frame)
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


def _middle(whole: tuple[int, int], inner: tuple[int, int]) -> tuple[int, int]:
    """Where the inner size begins in the middle of the whole, even."""
    return (whole[0] - inner[0]) // 4 * 2, (whole[1] - inner[1]) // 4 * 2


def _placed(frame: VideoFrame, turn: Turn, inner: tuple[int, int], size: tuple[int, int]) -> VideoFrame:
    """Turn a yuv420p frame of even size, and put it into the middle of a black one, plane by plane."""
    out = VideoFrame(*size, "yuv420p")
    left, top = _middle(size, inner)
    for number, (source, target) in enumerate(zip(frame.planes, out.planes, strict=True)):
        by = 2 if number else 1
        into = _pixels(target)
        if inner != size:
            into[:] = 128 if number else 16
        part = into[top // by : (top + inner[1]) // by, left // by : (left + inner[0]) // by]
        part[:] = turn.upright(_pixels(source))
    return out


def _pixels(plane: VideoPlane) -> np.ndarray:
    """A plane's bytes, uint8 [H, W], to read and write."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def deinterlaced(frame: VideoFrame) -> VideoFrame:
    """A frame of two fields as one picture: lines of the second field that stand out from the lines beside them, as
    where something moved, become their mean. No other picture is needed."""
    if frame.format.name not in _PLANAR:
        frame = frame.reformat(format="yuv420p")
    out = VideoFrame(frame.width, frame.height, frame.format.name)
    out.colorspace, out.color_primaries, out.color_trc = frame.colorspace, frame.color_primaries, frame.color_trc
    out.color_range = frame.color_range
    for source, target in zip(frame.planes, out.planes, strict=True):
        pixels, into = _pixels(source), _pixels(target)
        into[:] = pixels
        above, lines, below = (part.astype(np.int16) for part in (pixels[:-2:2], pixels[1:-1:2], pixels[2::2]))
        stands_out = (lines > np.maximum(above, below) + _COMBED) | (lines < np.minimum(above, below) - _COMBED)
        into[1:-1:2] = np.where(stands_out, (above + below) // 2, lines)
    return out


def save_jpeg(frame: VideoFrame, path: Path, height: int, quality: int = 4) -> None:
    """Write a frame as a JPEG; `height` and `quality` as for `jpeg`."""
    path.write_bytes(jpeg(frame, height, quality))


def jpeg(frame: VideoFrame, height: int, quality: int = 4) -> bytes:
    """A frame as a JPEG of the given height, aspect kept, never enlarged.

    Args:
        quality (int): libav's scale, 2 (best) to 31; 4 is about 85 of 100.
    """
    height = min(height, frame.height)
    width = max(1, round(frame.width * height / frame.height))
    small = Pictures((width, height))._convert(frame, "yuvj420p", (width, height))
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
    context.framerate = Fraction(25)
    context.options = {"qmin": str(quality), "qmax": str(quality)}
    return b"".join(bytes(packet) for packet in [*context.encode(small), *context.encode(None)])
