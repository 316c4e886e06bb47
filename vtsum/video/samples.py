"""A file's sound as samples numbered on the clock of its pictures: drift put right, gaps left open."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream

from vtsum.video.clock import ClockedPackets
from vtsum.video.damage import Damage
from vtsum.video.source import LEAST_RATE, PacketDecoder
from vtsum.video.timeline import Timeline, stated_duration, time_base

_SLIP = 0.02  # seconds that sound may run off its timestamps (they are rounded in Matroska) before it is put right
_GUESSED = 0.25  # the same where the rate is not the header's: libav then guesses most timestamps by that
_TOGETHER = 4096  # samples that are handed on at once: a packet's are a few dozen at low rates
_ENTRY = 1.0  # seconds of packets that may give nothing before the first sound: where a stream is entered is no damage
_FASTEST = 768_000  # samples a second; a damaged header may state any number


def samples_of(
    container: InputContainer,
    streams: list[Stream],
    stream: AudioStream,
    *,
    origin: float | None,
    rate: int,
    damage: Damage,
    layout: str | None = None,
    base: float = 0.0,
    sought: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the sound from where the container stands.

    Args:
        streams: those that are read, of `vtsum.video.clock.together`; `stream`: the sound among them.
        origin: raw seconds of the pictures' time 0; None: the first sample's.
        rate (int): samples a second of what comes out.
        damage: told where packets do not decode, from `base` on.
        layout: "mono" or "stereo"; None: mono as mono, all else as stereo.
        base (float): seconds from which samples are counted. sought: the container stands somewhere in the middle.
    Yields:
        (int, np.ndarray): the number of the first sample, and float32 [channels, n]; numbers may be negative, leave
        gaps and overlap slightly.
    """
    decoder = PacketDecoder(stream)
    stated = stream.codec_context.sample_rate  # 0: not known yet
    step = 1024 / (stated or 48_000)
    stated_end = stated_duration(container, stream) or 0.0
    if 0 < stated < LEAST_RATE:  # none of its packets decodes, and times that are a thousand seconds apart mean nothing
        damage.add(base, stated_end)
        return
    timeline = Timeline(time_base(stream), step, stated_duration(container, stream), origin=origin)
    packets = ClockedPackets(container, streams, origin=origin, sought=sought)
    resampler: AudioResampler | None = None
    form: tuple[str, str, int] | None = None
    silent: list[float] = []  # when the first and the last packet before the first sound were to be heard
    heard = False
    at = expected = 0.0  # samples out of the resampler, and where its input should have brought it
    for packet in chain((p for p in packets if p.stream_index == stream.index), [None]):
        frames = decoder.decode(packet)
        lost = None if packet is None else timeline.lost(packet.pts)
        if lost is not None and packet is not None and packet.size:
            if decoder.failed and lost >= base:  # before it lies what a seek left incomplete
                damage.add(lost, lost + step)
            elif not heard:  # some decoders take zeros without a word
                silent = [*silent[:1], max(lost, base)]
        if silent and (frames or packet is None or decoder.gave_up):
            if silent[-1] - silent[0] > _ENTRY or not (frames or (sought and not decoder.errors)):
                damage.add(silent[0], max(silent[-1] + step, 0.0 if frames else stated_end))
            silent = []
        heard = heard or bool(frames)
        for frame in frames:
            if not frame.samples or not 0 < frame.sample_rate <= _FASTEST:
                continue
            time = timeline.place(frame.pts)
            wanted = expected if time is None else (time - base) * rate
            new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
            slip = _SLIP if frame.sample_rate == stated or not stated else _GUESSED
            if resampler is None or form != new_form or abs(wanted - expected) > slip * rate:
                for samples in _resample(resampler, None):
                    yield round(at), samples
                    at += samples.shape[1]
                channels = layout or ("mono" if frame.layout.nb_channels == 1 else "stereo")
                resampler = AudioResampler("fltp", channels, rate, frame_size=_TOGETHER)
                form, at, expected = new_form, float(round(wanted)), wanted
            expected += frame.samples * rate / frame.sample_rate
            frame.pts = None  # the samples are counted; a jumping timestamp would only confuse the filter
            for samples in _resample(resampler, frame):
                yield round(at), samples
                at += samples.shape[1]
        if decoder.gave_up:
            break
    for samples in _resample(resampler, None):
        yield round(at), samples
        at += samples.shape[1]


def _resample(resampler: AudioResampler | None, frame: AudioFrame | None) -> list[np.ndarray]:
    if resampler is None:
        return []
    try:
        frames = resampler.resample(frame)
    except (av.FFmpegError, ValueError, MemoryError):
        return []  # a frame whose header was damaged
    return [_finite(out.to_ndarray()) for out in frames if out is not None and out.samples]


def _finite(samples: np.ndarray) -> np.ndarray:
    return samples if np.isfinite(samples).all() else np.nan_to_num(samples, copy=False)
