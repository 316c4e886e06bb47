"""A file's sound as one channel at 16 kHz, block by block, on the clock of its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from vtsum.errors import VTSumError
from vtsum.video.clock import ClockedPackets, together
from vtsum.video.damage import Damage
from vtsum.video.source import (
    PacketDecoder,
    choose_audio,
    choose_video,
    discard_others,
    first_picture,
    open_container,
)
from vtsum.video.timeline import Timeline, stated_duration, time_base

RATE = 16_000  # samples a second: what every recogniser here is trained on
_SLIP = 0.02  # seconds that sound may run off its timestamps before it is put right
_GUESSED = 0.25  # the same where the rate is not the header's: libav then guesses most timestamps by that


def read_sound(
    path: str | os.PathLike[str], *, rate: int = RATE, block: float = 1.0, damage: Damage | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a file's sound once, from front to back, in bounded memory.

    The sound is that of the video stream which `vtsum.video` shows, the mean of its channels. Gaps between timestamps
    are silence, sound before the first picture is left out, and packets that do not decode are passed over.

    Args:
        path: a video or sound file in any format that FFmpeg knows.
        rate (int): samples a second of what comes out.
        block (float): seconds of each block; the last one may be shorter.
        damage (Damage | None): told where packets do not decode, in seconds from the first picture.
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
    return _blocks(container, video, origin, rate, round(block * rate), Damage() if damage is None else damage)


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


def _blocks(
    container: InputContainer, video: VideoStream | None, origin: float | None, rate: int, size: int, damage: Damage
) -> Iterator[tuple[float, np.ndarray]]:
    """Sound at its times, silence between, cut into blocks of `size` samples."""
    buffer = np.zeros(0, np.float32)
    done = 0  # samples handed out
    with closing(container):
        for at, samples in _decoded(container, video, origin, rate, damage):
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
                    yield done / rate, buffer[:size]
                    buffer, done = buffer[size:], done + size
            buffer = np.concatenate([buffer, samples])
            while len(buffer) >= size:
                yield done / rate, buffer[:size]
                buffer, done = buffer[size:], done + size
        if len(buffer):
            yield done / rate, buffer


def _decoded(
    container: InputContainer, video: VideoStream | None, origin: float | None, rate: int, damage: Damage
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first sample, float32 [n]) as they are decoded; numbers may leave gaps and overlap slightly."""
    stream = choose_audio(container, video)
    if stream is None:
        return
    streams = together(container, video, stream)
    discard_others(container, streams)
    packets = ClockedPackets(container, streams, origin=origin)
    decoder = PacketDecoder(stream)
    timeline = _timeline(container, stream, origin)
    stated = stream.codec_context.sample_rate
    resampler: AudioResampler | None = None
    form: tuple[str, str, int] | None = None
    at = expected = 0.0  # samples out of the resampler, and where its input should have brought it
    for packet in chain((p for p in packets if p.stream_index == stream.index), [None]):
        frames = decoder.decode(packet)
        if decoder.failed and packet is not None and (lost := timeline.lost(packet.pts)) is not None:
            damage.add(lost, lost + 1024 / stream.codec_context.sample_rate)
        for frame in frames:
            if not frame.samples or not 0 < frame.sample_rate <= 768_000:
                continue
            time = timeline.place(frame.pts)
            wanted = expected if time is None else time * rate
            new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
            slip = _SLIP if frame.sample_rate == stated else _GUESSED
            if resampler is None or form != new_form or abs(wanted - expected) > slip * rate:
                for samples in _resample(resampler, None):
                    yield round(at), samples
                    at += len(samples)
                # libav's own mix to one channel makes a voice in the middle 3 dB louder, which could clip it.
                resampler = AudioResampler("fltp", "mono" if frame.layout.nb_channels == 1 else "stereo", rate)
                form, at, expected = new_form, float(round(wanted)), wanted
            expected += frame.samples * rate / frame.sample_rate
            frame.pts = None  # the samples are counted; a jumping timestamp would only confuse the filter
            for samples in _resample(resampler, frame):
                yield round(at), samples
                at += len(samples)
        if decoder.gave_up:
            break
    for samples in _resample(resampler, None):
        yield round(at), samples
        at += len(samples)


def _timeline(container: InputContainer, stream: AudioStream, origin: float | None) -> Timeline:
    step = 1024 / stream.codec_context.sample_rate
    return Timeline(time_base(stream), step, stated_duration(container, stream), origin=origin)


def _resample(resampler: AudioResampler | None, frame: AudioFrame | None) -> list[np.ndarray]:
    if resampler is None:
        return []
    try:
        frames = resampler.resample(frame)
    except (av.FFmpegError, ValueError, MemoryError):
        return []  # a frame whose header was damaged
    return [np.nan_to_num(out.to_ndarray()).mean(axis=0) for out in frames if out is not None and out.samples]
