"""Sound as blocks at 16 kHz: right samples at right times, gaps as silence, damage survived, bad input named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.samples import remux
from vtsum.enhance.speech.sound import RATE, picture_origin, read_sound
from vtsum.errors import VTSumError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_sound(path: Path, parts: list[tuple[float, np.ndarray]], rate: int = 44_100, pictures: float = 0.0) -> Path:
    """Sound [channels, n] at given times, FLAC in Matroska; black pictures from 0 to `pictures` seconds."""
    with av.open(str(path), "w") as file:
        video = None
        if pictures:
            video = file.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        stream = file.add_stream("flac", rate=rate, layout="mono" if parts[0][1].shape[0] == 1 else "stereo")
        stream.time_base = Fraction(1, rate)
        if video is not None:
            for index in range(round(pictures * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                picture.pts, picture.time_base = index, Fraction(1, 10)
                file.mux(video.encode(picture))
            file.mux(video.encode(None))
        for start, samples in parts:
            for at in range(0, samples.shape[1], 4096):
                piece = np.ascontiguousarray((samples[:, at : at + 4096].T.reshape(1, -1) * 32767).astype(np.int16))
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=stream.layout.name)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(start * rate) + at
                file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def joined(path: Path, **options: float) -> np.ndarray:
    """All blocks, which must follow each other."""
    blocks = list(read_sound(path, **options))
    at = 0
    for start, block in blocks:
        assert start == pytest.approx(at / options.get("rate", RATE))
        assert block.dtype == np.float32
        at += len(block)
    return np.concatenate([block for _, block in blocks]) if blocks else np.zeros(0, np.float32)


def test_a_tone_comes_out_as_it_went_in(tmp_path):
    path = write_sound(tmp_path / "tone.mkv", [(0.0, np.stack([tone(3.0, 44_100), np.zeros(132_300)]))])
    heard = joined(path)
    assert len(heard) == pytest.approx(3 * RATE, abs=2)
    inner = slice(RATE // 10, -RATE // 10)  # the resampler's filter needs some samples at the ends
    assert np.abs(heard[inner] - tone(len(heard) / RATE, RATE)[inner] / 2).max() < 0.01  # the mean of both channels


@pytest.mark.parametrize("block", [0.01, 0.37, 60.0])
def test_blocks_of_any_length_hold_the_same_sound(tmp_path, block):
    rng = np.random.default_rng(0)
    path = write_sound(tmp_path / "noise.mkv", [(0.0, rng.uniform(-0.5, 0.5, (1, 16_000)))], rate=16_000)
    assert np.array_equal(joined(path, block=block), joined(path))
    sizes = [len(b) for _, b in read_sound(path, block=block)]
    assert set(sizes[:-1]) <= {round(block * RATE)}


def test_a_gap_is_silence_and_sound_keeps_its_time(tmp_path):
    parts = [(0.5, tone(1.0, 16_000)[None]), (3.0, tone(1.0, 16_000)[None])]
    heard = joined(write_sound(tmp_path / "gap.mkv", parts, rate=16_000, pictures=4.0))
    loud = np.flatnonzero(np.abs(heard) > 0.1) / RATE
    assert loud[0] == pytest.approx(0.5, abs=0.01)
    assert loud[-1] == pytest.approx(4.0, abs=0.01)
    inside = loud[(loud > 1.51) & (loud < 2.99)]
    assert len(inside) == 0
    assert np.all(heard[: int(0.49 * RATE)] == 0)


def test_sound_before_the_first_picture_is_left_out(tmp_path):
    source = write_sound(tmp_path / "both.mkv", [(0.0, tone(4.0, 16_000)[None])], rate=16_000, pictures=4.0)
    late = remux(source, tmp_path / "late.mkv", keep=lambda p: p.stream.type == "audio" or p.pts * p.time_base >= 1)
    assert picture_origin(late, "test") == pytest.approx(1.0, abs=0.11)
    assert len(joined(late)) / RATE == pytest.approx(4.0 - picture_origin(late, "test"), abs=0.02)


def test_a_file_without_sound_gives_no_blocks(tmp_path):
    with av.open(str(tmp_path / "mute.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode(None))
    assert list(read_sound(tmp_path / "mute.mp4")) == []


def test_a_file_that_is_cut_short_is_read_to_the_cut(tmp_path):
    rng = np.random.default_rng(0)
    path = write_sound(tmp_path / "whole.mkv", [(0.0, rng.uniform(-0.5, 0.5, (1, 64_000)))], rate=16_000)
    whole = joined(path)
    (tmp_path / "half.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half = joined(tmp_path / "half.mkv")
    assert 0.3 * len(whole) < len(half) < 0.6 * len(whole)
    assert np.array_equal(half[: -RATE // 2], whole[: len(half) - RATE // 2])


def test_what_cannot_be_read_is_named_at_the_call(tmp_path):
    with pytest.raises(VTSumError, match=r"read_sound: .*none\.mp4: no such file"):
        read_sound(tmp_path / "none.mp4")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(VTSumError, match=r"empty\.wav: must be a video file, got an empty file"):
        read_sound(tmp_path / "empty.wav")
    (tmp_path / "noise.mp3").write_bytes(b"no sound at all" * 100)
    with pytest.raises(VTSumError, match=r"noise\.mp3: must be a video file"):
        list(read_sound(tmp_path / "noise.mp3"))
    path = write_sound(tmp_path / "tone.mkv", [(0.0, tone(0.5, 16_000)[None])], rate=16_000)
    with pytest.raises(ValueError, match=r"rate must be in 4000..192000 samples a second, got 100"):
        read_sound(path, rate=100)
    with pytest.raises(ValueError, match=r"block must be in 0.01..60 seconds, got 0"):
        read_sound(path, block=0)
