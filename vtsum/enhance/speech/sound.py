"""A file's sound as one channel at 16 kHz, block by block, on the clock of its pictures."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.video.clock import is_continuous, together
from vtsum.video.damage import Damage
from vtsum.video.part import WHOLE, Part
from vtsum.video.samples import samples_of
from vtsum.video.source import (
    choose_audio,
    choose_video,
    discard_others,
    open_container,
)
from vtsum.video.timeline import claimed_duration, first_picture, frame_rate, time_base

_LEAD = 1.0  # seconds decoded before a part, so that the codec has settled
RATE = 16_000  # samples a second: what every recogniser here is trained on


def read_sound(
    path: str | os.PathLike[str],
    *,
    rate: int = RATE,
    block: float = 1.0,
    damage: Damage | None = None,
    part: Part = WHOLE,
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a file's sound once, from front to back, in bounded memory.

    The sound is that of the video stream which `vtsum.video` shows, the mean of its channels. Gaps between timestamps
    are silence, sound before the first picture is left out, and packets that do not decode are passed over.

    Args:
        path: a video or sound file in any format that FFmpeg knows.
        rate (int): samples a second of what comes out.
        block (float): seconds of each block; the last one may be shorter.
        damage (Damage | None): told where packets do not decode, in seconds from the first picture.
        part: start and end in seconds of what is wanted; None: the end. Where timestamps can be sought, nothing else is
            decoded.
    Yields:
        (float, np.ndarray): the block's start in seconds from the first picture, and float32 [n]; full scale is 1.0,
        which floating-point sound may exceed. Nothing for a file without sound that can be decoded.
    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows; at the call, not while iterating.
        ValueError: rate or block out of range.
    """
    if not 4_000 <= rate <= 192_000:
        raise ValueError(f"read_sound: rate must be in 4000..192000 samples a second, got {rate}")
    if not 0.01 <= block <= 60.0:
        raise ValueError(f"read_sound: block must be in 0.01..60 seconds, got {block}")
    origin = picture_origin(path, "read_sound")
    container = open_container(path, "read_sound")
    video = shown_video(container, path, "read_sound")
    damage = Damage() if damage is None else damage
    sought = part[0] > _LEAD and origin is not None and video is not None and is_continuous(container, video)
    if part[0] > _LEAD:  # to find out may have read all of it
        container.close()
        container = open_container(path, "read_sound")
        video = shown_video(container, path, "read_sound")
    blocks = _blocks(_Source(container, video, origin, part[0], sought), rate, round(block * rate), damage)
    return blocks if part[1] is None else _until(blocks, part[1], rate)


def claimed_seconds(path: str | os.PathLike[str]) -> float | None:
    """How long a file says that the sound of `read_sound` lasts, which need not be true; None: it does not say.

    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows.
    """
    with closing(open_container(path, "read_sound")) as container:
        stream = choose_audio(container, shown_video(container, path, "read_sound"))
        return None if stream is None else claimed_duration(container, stream)


def shown_video(container: InputContainer, path: str | os.PathLike[str], function: str) -> VideoStream | None:
    """The stream of pictures that is shown, or None."""
    try:
        return choose_video(container, path, function)
    except VTSumError:
        return None


def picture_origin(path: str | os.PathLike[str], function: str) -> float | None:
    """Raw seconds of the first picture, which is time 0 of a video; None for a file without pictures.

    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows.
    """
    with closing(open_container(path, function)) as container:
        stream = shown_video(container, path, function)
        if stream is None:
            return None
        discard_others(container, [stream])
        found = first_picture(container, stream)
        ticks = None if found is None else found[1]
        return None if ticks is None else float(ticks * time_base(stream))


def picture_rate(path: str | os.PathLike[str]) -> float | None:
    """Pictures a second of a video; None for a file without pictures.

    Raises:
        VTSumError: the file is missing, empty or nothing that FFmpeg knows.
    """
    with closing(open_container(path, "picture_rate")) as container:
        stream = shown_video(container, path, "picture_rate")
        return None if stream is None else float(frame_rate(stream))


@dataclass
class _Source:
    """Where sound is read from, and from which second on; `sought`: it is to be sought."""

    container: InputContainer
    video: VideoStream | None
    origin: float | None
    start: float
    sought: bool


def _until(blocks: Iterator[tuple[float, np.ndarray]], end: float, rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """The blocks before `end` seconds."""
    with closing(cast(Generator[tuple[float, np.ndarray]], blocks)):
        for start, block in blocks:
            left = round((end - start) * rate)
            if left > 0:
                yield start, block[:left]
            if left <= len(block):
                return


def _blocks(source: _Source, rate: int, size: int, damage: Damage) -> Iterator[tuple[float, np.ndarray]]:
    """Sound at its times, silence between, cut into blocks of `size` samples."""
    buffer = np.zeros(0, np.float32)
    done = 0  # samples handed out
    with closing(source.container):
        for at, samples in _decoded(source, rate, damage):
            begin = done + len(buffer)
            if at < begin:  # overlaps what is there, or lies before the first picture
                samples = samples[begin - at :]
                at = begin
            if not len(samples):
                continue
            while at > begin:  # a gap of hours must not be one array
                silence = np.zeros(min(at - begin, size), np.float32)
                buffer, begin = np.concatenate([buffer, silence]), begin + len(silence)
                while len(buffer) >= size:
                    yield source.start + done / rate, buffer[:size]
                    buffer, done = buffer[size:], done + size
            buffer = np.concatenate([buffer, samples])
            while len(buffer) >= size:
                yield source.start + done / rate, buffer[:size]
                buffer, done = buffer[size:], done + size
        if len(buffer):
            yield source.start + done / rate, buffer


def _decoded(source: _Source, rate: int, damage: Damage) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first sample, float32 [n]) as they are decoded; numbers may leave gaps and overlap slightly."""
    container, video, origin = source.container, source.video, source.origin
    stream = choose_audio(container, video)
    if stream is None:
        return
    streams = together(container, video, stream)
    discard_others(container, streams)
    sought = source.sought
    if sought:
        assert origin is not None
        try:
            container.seek(int((source.start - _LEAD + origin) / time_base(stream)), stream=stream)
        except (av.FFmpegError, OSError, ValueError, OverflowError):
            sought = False
    for at, samples in samples_of(
        container, streams, stream, origin=origin, rate=rate, damage=damage, base=source.start, sought=sought
    ):
        # libav's own mix to one channel makes a voice in the middle 3 dB louder, which could clip it.
        yield at, samples.mean(axis=0)
