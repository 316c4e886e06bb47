"""cut: what comes out plays everywhere, starts and ends where it should, and its sound stays in step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.clips import number_of, number_picture, numbered_clip, tone, write_clip
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe
from vtsum.video.coding import Coding


def decode(path: Path) -> tuple[list[int], list[float], np.ndarray, int]:
    """Decode everything: numbers and times of the pictures, sound [channels, n], its rate."""
    numbers, times, pieces, rate = [], [], [], 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            numbers.append(number_of(frame.to_ndarray(format="rgb24")))
            times.append(frame.time)
        if container.streams.audio:
            container.seek(0)
            for frame in container.decode(audio=0):
                pieces.append(frame.to_ndarray())
                rate = frame.sample_rate
    sound = np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), np.float32)
    return numbers, times, sound, rate


def boxes(path: Path) -> list[bytes]:
    data, at, names = path.read_bytes(), 0, []
    while at + 8 <= len(data):
        names.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big") or len(data)
    return names


def test_segments_and_key_frames(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 250, sound=tone(10.0, 48000, 2), options={"bf": "3"}, gop=60)
    progress: list[float] = []
    out = tmp_path / "out.mp4"
    result = cut(
        source,
        [(1.0, 2.0), (2.99, 4.03), (4.04, 5.0), (9.51, 10.0)],
        out,
        keyframe_dir=tmp_path / "keys",
        keyframe_times=[1.5, 3.2, 4.9, 9.6],
        keyframe_height=48,
        on_progress=progress.append,
    )
    assert [(round(s.start, 4), round(s.end, 4)) for s in result.shots] == [(1, 2), (3, 4.04), (4.04, 5), (9.52, 10)]
    assert [(round(s.out_start, 4), round(s.out_end, 4)) for s in result.shots] == [
        (0, 1),
        (1, 2.04),
        (2.04, 3),
        (3, 3.48),
    ]
    numbers, times, sound, rate = decode(out)
    assert numbers == [*range(25, 50), *range(75, 101), *range(101, 125), *range(238, 250)]
    assert times == pytest.approx([n / 25 for n in range(87)], abs=1e-3)
    assert result.duration == pytest.approx(3.48)
    assert result.has_audio
    assert abs(sound.shape[1] / rate - result.duration) < 1024 / rate + 1e-3
    assert (result.width, result.height, rate, sound.shape[0]) == (160, 90, 48000, 2)
    assert boxes(out).index(b"moov") < boxes(out).index(b"mdat")
    assert [shot.keyframe.name for shot in result.shots] == [f"shot_{n:04d}.jpg" for n in (1, 2, 3, 4)]
    for shot, number in zip(result.shots, (37, 80, 122, 240), strict=True):
        with av.open(str(shot.keyframe)) as picture:
            image = next(picture.decode(video=0)).to_ndarray(format="rgb24")
        assert image.shape[0] == 48
        assert number_of(image) == number
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(result.duration)
    info = probe(out)
    assert (info.video_codec, info.audio_codec) == ("h264", "aac")
    assert info.duration == pytest.approx(result.duration, abs=0.01)
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "keys", "out.mp4"]
    assert len(os.listdir(tmp_path / "keys")) == 4


def beeping_clip(path: Path, seconds: int, rate: Fraction | int, **kwargs) -> Path:
    """A clip with a white flash of 80 ms and a beep of 80 ms at every full second."""
    sound_rate = kwargs.pop("sound_rate", 48000)
    count = int(seconds * Fraction(rate))
    when = np.arange(round(seconds * sound_rate)) / sound_rate
    sound = (0.6 * np.sin(2 * np.pi * 1000 * when) * (when % 1 < 0.08)).astype(np.float32)[None]
    flash = {on: np.full((64, 96, 3), 235 if on else 20, np.uint8) for on in (True, False)}
    times = [float(n / Fraction(rate)) for n in range(count)]
    return write_clip(
        path, times, lambda n, t: flash[(t + 1e-6) % 1 < 0.08], rate=rate, sound=sound, sound_rate=sound_rate, **kwargs
    )


@pytest.mark.parametrize(
    ("suffix", "rate", "sound_rate", "kwargs"),
    [
        (".mp4", Fraction(30000, 1001), 48000, {"gop": 90}),
        (".mkv", 25, 44100, {"start": 3.0, "sound_start": 3.0}),
        (".ts", 25, 48000, {}),
        (".avi", 25, 44100, {"codec": "mpeg4", "sound_codec": "pcm_s16le"}),
        (".mp4", 24, 22050, {}),
    ],
)
def test_sound_stays_in_step_over_twenty_cuts(tmp_path, suffix, rate, sound_rate, kwargs):
    source = beeping_clip(tmp_path / f"clip{suffix}", 64, rate, sound_rate=sound_rate, **kwargs)
    segments = [(3 * k + 0.713, 3 * k + 2.391) for k in range(20)]
    result = cut(source, segments, tmp_path / "out.mp4")
    assert len(result.shots) == 20
    brightness, times, beeps = [], [], []
    with av.open(str(tmp_path / "out.mp4")) as container:
        for frame in container.decode(video=0):
            brightness.append(frame.to_ndarray(format="gray").mean())
            times.append(frame.time)
        container.seek(0)
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        out_rate = container.streams.audio[0].rate
    flashes = [t for before, b, t in zip([0, *brightness], brightness, times, strict=False) if b > 120 >= before]
    loud = np.abs(sound[0]) > 0.15
    starts = np.flatnonzero(loud)
    beeps = [starts[0], *starts[1:][np.diff(starts) > out_rate // 10]]
    expected = [
        t
        for shot in result.shots
        for t in (shot.out_start + s - shot.start for s in range(200))
        if shot.out_start < t < shot.out_end
    ]
    assert len(flashes) == len(beeps) == len(expected) == 40
    for flash, beep, planned in zip(flashes, beeps, expected, strict=True):
        assert abs(flash - planned) < 0.041, "a flash is off its frame"
        assert abs(beep / out_rate - planned) < 0.012, "a beep is not where its sample belongs"
        assert abs(flash - beep / out_rate) < 0.04
    assert abs(sound.shape[1] / out_rate - result.duration) < 0.03


def test_no_clicks_at_the_cuts(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 250, sound=tone(10.0, 48000, 1, frequency=220, level=0.5))
    result = cut(source, [(1.003, 2.0), (3.0, 4.0), (6.52, 7.0)], tmp_path / "out.mp4")
    _, _, sound, rate = decode(tmp_path / "out.mp4")
    smooth = 0.5 * 2 * np.pi * 220 / rate * 1.6  # the steepest step of the tone itself, with room for the fade and AAC
    assert np.abs(np.diff(sound[0])).max() < smooth
    for shot in result.shots[1:]:
        at = round(shot.out_start * rate)
        assert np.abs(sound[0, at - 20 : at + 20]).max() < 0.1
        assert np.abs(sound[0, at + rate // 10 : at + rate // 5]).max() > 0.4


def test_segments_that_touch_are_joined_without_a_dip(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 200, sound=tone(8.0, 48000, 1, frequency=440, level=0.5))
    cut(source, [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)], tmp_path / "out.mp4")
    numbers, _, sound, rate = decode(tmp_path / "out.mp4")
    assert numbers == list(range(25, 100))
    for at in (rate, 2 * rate):
        piece = sound[0, at - rate // 20 : at + rate // 20]
        assert np.abs(piece).reshape(-1, 240).max(axis=1).min() > 0.4


def test_sound_that_is_shorter_than_the_pictures_is_filled_with_silence(tmp_path):
    source = numbered_clip(tmp_path / "clip.mkv", 250, sound=tone(4.0, 48000, 1), sound_start=2.0)
    result = cut(source, [(0.0, 3.0), (5.0, 7.0), (8.0, 10.0)], tmp_path / "out.mp4")
    _, _, sound, rate = decode(tmp_path / "out.mp4")
    assert abs(sound.shape[1] / rate - 7.0) < 0.03
    assert result.has_audio
    loud = [
        float(np.abs(sound[0, round(t * rate) : round((t + 0.2) * rate)]).max()) for t in (0.5, 1.7, 2.3, 3.3, 4.3, 6.0)
    ]
    assert [level > 0.1 for level in loud] == [False, False, True, True, False, False]


def test_without_sound_and_odd_sizes(tmp_path):
    source = write_clip(
        tmp_path / "clip.mkv",
        [n / 25 for n in range(50)],
        lambda n, _: number_picture(n, 161, 91),
        pix_fmt="yuv444p",
        aspect=Fraction(4, 3),
    )
    result = cut(source, [(0.4, 1.2)], tmp_path / "out.mp4")
    assert not result.has_audio
    assert (result.width, result.height) == (214, 90)
    numbers, _, sound, _ = decode(tmp_path / "out.mp4")
    assert numbers == list(range(10, 30))
    assert sound.size == 0
    small = cut(source, [(0.4, 1.2)], tmp_path / "small.mp4", max_height=45)
    assert (small.width, small.height) == (106, 44)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_seen_and_baked_in(tmp_path, rotation):
    upright = number_picture(9, 96, 160)
    upright[80:] //= 2
    stored = np.ascontiguousarray(np.rot90(upright, rotation // 90))
    source = write_clip(tmp_path / "clip.mp4", [n / 25 for n in range(20)], lambda n, t: stored, rotation=rotation)
    info = probe(source)
    assert (info.width, info.height, info.rotation) == (96, 160, rotation)
    images = [next(iter(FrameSampler(source))).image]
    result = cut(source, [(0.0, 0.8)], tmp_path / "out.mp4", keyframe_dir=tmp_path)
    assert (result.width, result.height) == (96, 160)
    assert probe(result.path).rotation == 0
    for path in (result.path, result.shots[0].keyframe):
        with av.open(str(path)) as container:
            images.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    for image in images:
        assert image.shape == (160, 96, 3)
        assert number_of(image) == 9
        assert image[:70].mean() > 1.5 * image[90:].mean()


def test_variable_frame_rate_and_stills(tmp_path):
    times = [0.0, 0.04, 0.08, 5.0, 5.04, 5.08, 5.12]
    source = write_clip(tmp_path / "clip.mp4", times, lambda n, _: number_picture(n, 160, 90), last_duration=0.5)
    result = cut(source, [(2.0, 3.0), (5.0, 5.4)], tmp_path / "out.mp4")
    assert result.duration == pytest.approx(1.4, abs=0.01)
    numbers, out_times, _, _ = decode(tmp_path / "out.mp4")
    assert numbers == [2, 3, 4, 5, 6]
    assert out_times == pytest.approx([0, 1.0, 1.04, 1.08, 1.12], abs=0.01)
    assert probe(result.path).duration == pytest.approx(result.duration, abs=0.01)


def test_high_frame_rates_are_thinned(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 240, rate=120)
    result = cut(source, [(0.5, 1.5)], tmp_path / "out.mp4")
    numbers, _, _, _ = decode(tmp_path / "out.mp4")
    assert numbers == list(range(60, 180, 2))
    assert result.duration == pytest.approx(1.0, abs=0.02)


def test_brightness_is_kept(tmp_path):
    grey = np.full((96, 160, 3), 128, np.uint8)
    for pix_fmt in ("yuv420p", "yuvj420p", "yuv420p10le", "yuv422p", "yuv444p"):
        source = write_clip(
            tmp_path / f"{pix_fmt}.mp4", [n / 25 for n in range(10)], lambda n, t: grey, pix_fmt=pix_fmt
        )
        assert abs(float(next(iter(FrameSampler(source, size=(32, 32)))).image.mean()) - 128) < 4, pix_fmt
        out = cut(source, [(0, 0.4)], tmp_path / "out.mp4").path
        with av.open(str(out)) as container:
            frame = next(container.decode(video=0))
            assert frame.format.name == "yuv420p"
            assert abs(float(frame.to_ndarray(format="rgb24").mean()) - 128) < 5, pix_fmt


def test_broken_end(tmp_path):
    source = numbered_clip(
        tmp_path / "clip.mp4",
        500,
        container_options={"movflags": "+faststart"},
        options={"bf": "0"},
        sound=tone(20.0, 48000, 1),
    )
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    result = cut(source, [(1, 3), (5, 19), (19, 20)], tmp_path / "out.mp4")
    assert [shot.index for shot in result.shots] == [0, 1]
    assert 6 < result.shots[1].end < 18
    assert probe(result.path).duration == pytest.approx(result.duration, abs=0.05)
    with pytest.raises(VTSumError, match="no segment holds a picture"):
        cut(source, [(19, 20)], tmp_path / "other.mp4")
    assert not (tmp_path / "other.mp4").exists()


def test_bad_arguments(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 50)
    out = tmp_path / "out.mp4"
    for segments in ([], [(1, 1)], [(2, 1)], [(-1, 1)], [(0, 1), (0.5, 2)], [(0, float("nan"))], [(0, float("inf"))]):
        with pytest.raises(ValueError, match="segments must"):
            cut(source, segments, out)
    with pytest.raises(ValueError, match="keyframe_times must"):
        cut(source, [(0, 1)], out, keyframe_times=[0.1, 0.2])
    for wrong, reason in (
        (Coding(crf=99), "cut: crf must be 0 to 51 for libx264, got 99"),
        (Coding(preset="warpspeed"), "cut: preset must be one of ultrafast, .* for libx264, got 'warpspeed'"),
        (Coding(encoder="mpeg1video"), "cut: encoder must be one of libx264, libx265, libsvtav1, got 'mpeg1video'"),
        (Coding(fade=0.5), "cut: fade must be 0 to 0.2 s, got 0.5"),
    ):
        with pytest.raises(VTSumError, match=reason):
            cut(source, [(0, 1)], out, coding=wrong)
    with pytest.raises(VTSumError, match="folder of the output must exist"):
        cut(source, [(0, 1)], tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(VTSumError, match="source itself"):
        cut(source, [(0, 1)], source)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_old_output_survives_a_failure_and_nothing_is_left(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 200)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the last one")

    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut(source, [(0, 2), (3, 4)], out, keyframe_dir=tmp_path / "keys", on_progress=stop)
    assert out.read_bytes() == b"the last one"
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits on file sizes")
def test_full_disk(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 250, sound=tone(10.0, 48000, 1))
    program = (
        "import resource, sys\n"
        "sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from vtsum.video import cut\nfrom vtsum.video.coding import Coding\n"
        "from vtsum.errors import VTSumError\n"
        "try:\n    cut(sys.argv[1], [(0, 9)], sys.argv[2], coding=Coding(crf=5))\n"
        "except VTSumError as error:\n    print(error)\n"
    )
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "out" / "summary.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be written" in done.stdout, done
    assert str(tmp_path / "out") in done.stdout, done
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_interrupted_by_the_user(tmp_path):
    source = numbered_clip(tmp_path / "clip.mp4", 1500, size=(320, 180))
    (tmp_path / "out").mkdir()
    program = (
        "import sys; from vtsum.video import cut; from vtsum.video.coding import Coding; print('go', flush=True); "
        "cut(sys.argv[1], [(0, 60)], sys.argv[2], coding=Coding(preset='placebo'))"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "out" / "summary.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "go\n"
        deadline = time.monotonic() + 20
        while not os.listdir(tmp_path / "out") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert os.listdir(tmp_path / "out"), "the cut never began"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path / "out") == []


def test_joined_recordings_whose_clock_starts_again(tmp_path):
    part = beeping_clip(tmp_path / "part.ts", 6, 25, options={"bf": "2"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    sampler = FrameSampler(joined, fps=12.5, size=(32, 32))
    bright = [frame.time for frame in sampler if frame.image.mean() > 120]
    assert bright == pytest.approx([float(n) for n in range(12)], abs=0.045)
    assert sampler.duration == pytest.approx(12.0, abs=0.05)
    assert any("timestamps" in warning for warning in sampler.warnings)
    result = cut(joined, [(1.5, 2.5), (8.5, 9.5)], tmp_path / "out.mp4")
    assert [(shot.start, shot.end) for shot in result.shots] == [
        pytest.approx((1.5, 2.5), abs=0.03),
        pytest.approx((8.5, 9.5), abs=0.03),
    ]
    times = [frame.time for frame in FrameSampler(result.path, fps=25, size=(32, 32)) if frame.image.mean() > 120]
    _, _, sound, rate = decode(result.path)
    loud = np.flatnonzero(np.abs(sound[0]) > 0.15)
    beeps = [loud[0], *loud[1:][np.diff(loud) > rate // 10]]
    assert len(beeps) == 2
    for beep, shot, second in zip(beeps, result.shots, (2, 9), strict=True):
        planned = shot.out_start + second - shot.start
        assert beep / rate == pytest.approx(planned, abs=0.06)
        assert min(abs(time - planned) for time in times) < 0.045


def test_high_dynamic_range_becomes_ordinary(tmp_path):
    """Grey of 100 candela per square metre in PQ, BT.2020, ten bits."""
    source = tmp_path / "hdr.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = 16, 9, 9, 1
        for n in range(5):
            frame = av.VideoFrame(160, 96, "yuv420p10le")
            for plane, value in zip(frame.planes, (64 + round(0.508 * 876), 512, 512), strict=True):
                np.frombuffer(memoryview(plane), np.uint16)[:] = value
            frame.pts, frame.color_trc, frame.color_primaries, frame.colorspace = n, 16, 9, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # 100 of the 203 that BT.2408 gives white, by BT.709's (BT.1886) curve of 1 / 2.4: 190 of 255
    expected = 255 * (100 / 203) ** (1 / 2.4)
    first = next(iter(FrameSampler(source, size=(32, 32)))).image
    assert abs(float(first.mean()) - expected) < 8
    out = cut(source, [(0, 0.2)], tmp_path / "out.mp4").path
    assert abs(float(next(iter(FrameSampler(out, size=(32, 32)))).image.mean()) - expected) < 8
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (1, 1, 1)
