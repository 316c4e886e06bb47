"""FrameSampler: the right picture at the right time, whatever the file looks like, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.clips import number_of, number_picture, numbered_clip, tone, write_clip
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, probe


def sampled(path: Path, **kwargs) -> tuple[list[int], list[float], FrameSampler]:
    sampler = FrameSampler(path, **kwargs)
    frames = list(sampler)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [number_of(frame.image) for frame in frames], [frame.time for frame in frames], sampler


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"bf": "3", "b-pyramid": "normal"}),
        (".mp4", "libx264", {"bf": "0"}),
        (".mov", "mjpeg", {}),  # every frame stands alone
        (".mkv", "libx264", {"bf": "2"}),
        (".webm", "libvpx", {"deadline": "realtime"}),
        (".avi", "mpeg4", {"bf": "2"}),
        (".ts", "libx264", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize("fps", [1.0, 2.5])
def test_the_picture_on_display_at_each_grid_point(tmp_path, suffix, codec, options, fps):
    path = numbered_clip(
        tmp_path / f"clip{suffix}",
        103,
        codec=codec,
        options=options,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    numbers, times, sampler = sampled(path, fps=fps, size=(160, 96))
    assert sampler.duration == pytest.approx(103 / 25, abs=0.002)
    assert times == pytest.approx([k / fps for k in range(int(np.ceil(103 / 25 * fps - 1e-9)))])
    assert numbers == [int(time * 25 + 1e-6) for time in times]
    assert sampler.broken_at is None
    assert sampler.warnings == []


def test_skipping_changes_nothing_but_the_work(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 250, options={"bf": "3", "preset": "veryfast"}, gop=60)
    fast, slow = FrameSampler(path), FrameSampler(path, skip_nonref=False)
    for a, b in zip(fast, slow, strict=True):
        assert np.array_equal(a.image, b.image)
    assert slow.decoded_frames == 250
    assert fast.decoded_frames < 220
    assert fast.duration == slow.duration


def test_variable_frame_rate(tmp_path):
    times = [0.0, 0.04, 0.5, 0.55, 2.3, 2.34, 2.38, 6.0, 6.04]
    path = write_clip(tmp_path / "clip.mp4", times, lambda n, _: number_picture(n, 160, 90), last_duration=0.5)
    numbers, _, sampler = sampled(path, fps=2.0)
    assert numbers == [0, 2, 3, 3, 3, 6, 6, 6, 6, 6, 6, 6, 7, 8]
    assert sampler.duration == pytest.approx(6.54, abs=0.01)


def test_times_count_from_the_first_picture(tmp_path):
    path = numbered_clip(tmp_path / "clip.mkv", 75, start=7.0, sound=tone(9.0, 48000, 1))
    numbers, times, sampler = sampled(path)
    assert times == [0.0, 1.0, 2.0]
    assert numbers == [0, 25, 50]
    assert sampler.duration == pytest.approx(3.0, abs=0.01)


def test_one_frame_and_one_second(tmp_path):
    numbers, times, sampler = sampled(numbered_clip(tmp_path / "one.mp4", 1))
    assert (numbers, times) == ([0], [0.0])
    assert sampler.duration == pytest.approx(0.04, abs=0.005)
    numbers, times, sampler = sampled(numbered_clip(tmp_path / "second.mp4", 25))
    assert (numbers, times) == ([0], [0.0])
    assert sampler.duration == pytest.approx(1.0, abs=0.005)


def test_gif(tmp_path):
    path = numbered_clip(tmp_path / "clip.gif", 30, rate=10, codec="gif", pix_fmt="rgb8")
    numbers, _, _ = sampled(path)
    assert numbers == [0, 10, 20]
    assert not probe(path).has_audio


def test_4k_is_scaled_while_decoding(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 6, size=(3840, 2160))
    numbers, _, _ = sampled(path, fps=12.5, size=(128, 128))
    assert numbers == [0, 2, 4]


def test_wide_pixels_are_squared(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 5, size=(144, 96), aspect=Fraction(16, 11))
    info = probe(path)
    assert (info.width, info.height) == (round(144 * 16 / 11), 96)
    assert next(iter(FrameSampler(path))).image.shape == (96, info.width, 3)


def test_progress_and_single_use(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 100)
    seen: list[float] = []
    sampler = FrameSampler(path, on_progress=seen.append)
    assert len(list(sampler)) == 4
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(4.0)
    with pytest.raises(VTSumError, match="once"):
        list(sampler)


def test_bad_arguments(tmp_path):
    for fps in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(VTSumError, match="fps must be"):
            FrameSampler(tmp_path / "x.mp4", fps=fps)
    with pytest.raises(VTSumError, match="size must be"):
        FrameSampler(tmp_path / "x.mp4", size=(0, 4))


def test_cut_short_file_says_where(tmp_path):
    path = numbered_clip(
        tmp_path / "clip.mp4", 500, container_options={"movflags": "+faststart"}, options={"bf": "0"}, size=(320, 180)
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    numbers, _times, sampler = sampled(path)
    assert sampler.broken_at is not None
    assert 2 < sampler.broken_at < 19
    assert numbers[:-1] == [25 * k for k in range(len(numbers) - 1)]
    assert any("breaks off" in warning for warning in sampler.warnings)


def test_a_timestamp_hours_ahead_is_ignored(tmp_path):
    times = [n / 25 for n in range(100)]
    times[60:] = [time + 40_000 for time in times[60:]]
    path = write_clip(tmp_path / "clip.ts", times, lambda n, _: number_picture(n, 160, 90), options={"bf": "0"})
    numbers, _, sampler = sampled(path)
    assert numbers == [0, 25, 50, 75]
    assert sampler.duration == pytest.approx(4.0, abs=0.05)
    assert any("timestamps" in warning for warning in sampler.warnings)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to read a process's memory")
def test_memory_does_not_grow_with_length(tmp_path):
    """Twenty minutes, and the process stays small."""
    pictures = [number_picture(n, 96, 54) for n in range(64)]
    path = write_clip(
        tmp_path / "long.mp4", [n / 10 for n in range(12_000)], lambda n, _: pictures[n % 64], rate=10, gop=100
    )
    program = (
        "import sys\n"
        "from vtsum.video import FrameSampler\n"
        "lines = lambda: open('/proc/self/status').read().splitlines()\n"  # getrusage would count the parent's too
        "read = lambda: next(int(line.split()[1]) for line in lines() if line.startswith('VmHWM')) // 1024\n"
        "seen = []\n"
        "for frame in FrameSampler(sys.argv[1], size=(128, 128)):\n"
        "    if frame.index in (60, 1199): seen.append(read())\n"
        "print(frame.index + 1, *seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    count, early, late = (int(word) for word in done.stdout.split())
    assert count == 1200
    assert late < 200, done.stdout
    assert late - early < 20, done.stdout
