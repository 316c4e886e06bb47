"""Files whose pictures or index are written in an odd way, and that are whole all the same."""

from __future__ import annotations

import struct
import subprocess
import sys

import av
import pytest

from tests.vtsum.clips import number_picture, numbered_clip, tone, write_clip
from tests.vtsum.test_video_clock import ffmpeg, in_step, sampled, signals
from vtsum.video import cut


def test_a_picture_that_only_repeats_stays(tmp_path):
    """Theora writes an empty packet for a picture that is the same as the one before."""
    times = [n / 25 for n in range(150)]
    clip = write_clip(tmp_path / "c.mkv", times, lambda n, _: number_picture(min(n, 24), 160, 96), options={"qp": "0"})
    path = tmp_path / "c.ogv"
    ffmpeg("-i", clip, "-c:v", "libtheora", "-g", "2000", "-q:v", "8", path)
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.dts is not None]
    seconds = len(sizes) / 25  # the encoder keeps the last pictures back
    assert sizes[-50:] == [0] * 50
    numbers, sampler = sampled(path)
    assert (sampler.duration, sampler.warnings) == (pytest.approx(seconds, abs=0.01), [])
    assert numbers[:5] == [0, 24, 24, 24, 24]
    result = cut(path, [(0.0, seconds)], tmp_path / "cut.mp4", duration=sampler.duration)
    assert result.duration == pytest.approx(seconds, abs=0.05)


def test_pictures_before_time_0_of_matroska(tmp_path):
    """Their times are lost; they come one after the other, and lead up to the first that has one."""
    for name, clip in (("n", numbered_clip(tmp_path / "n.mp4", 100)), ("s", signals(tmp_path / "s.mp4", 100, 4.0))):
        whole, path = tmp_path / f"{name}k.mp4", tmp_path / f"{name}.mkv"
        ffmpeg("-i", clip, "-c:v", "libx264", "-bf", "0", "-g", "50", "-sc_threshold", "0", "-c:a", "copy", whole)
        ffmpeg("-ss", "2.4", "-i", whole, "-c", "copy", "-avoid_negative_ts", "disabled", path)
    numbers, sampler = sampled(tmp_path / "n.mkv", 25)
    assert numbers == list(range(50, 100))
    assert sampler.warnings == []
    result = cut(tmp_path / "n.mkv", [(1.0, 2.0)], tmp_path / "cut.mp4")
    assert sampled(result.path, 25)[0] == list(range(75, 100))
    in_step(tmp_path / "s.mkv", tmp_path, 2)


def test_a_length_stated_too_long_of_a_whole_flv(tmp_path):
    clip = numbered_clip(tmp_path / "c.flv", 100, sound=tone(4, 44100, 1), sound_rate=44100)
    data = bytearray(clip.read_bytes())
    at = data.find(b"duration") + 9
    data[at : at + 8] = struct.pack(">d", 600.0)
    clip.write_bytes(data)
    _, sampler = sampled(clip)
    assert (sampler.duration, sampler.warnings, sampler.broken_at) == (pytest.approx(4.0, abs=0.05), [], None)
    clip.write_bytes(data[: len(data) * 6 // 10])
    assert any("breaks off" in line for line in sampled(clip)[1].warnings)


def test_pictures_that_the_decoder_passes_over_are_told(tmp_path):
    """A recording whose codec changes and changes back: MPEG-2's decoder says nothing of what it does not know."""
    clip = numbered_clip(tmp_path / "c.mp4", 75, sound=tone(3.0, 48000, 1))
    ffmpeg("-i", clip, "-c:v", "mpeg2video", "-q:v", "3", "-c:a", "copy", tmp_path / "a.ts")
    ffmpeg("-i", clip, "-c", "copy", tmp_path / "b.ts")
    first, other = (tmp_path / "a.ts").read_bytes(), (tmp_path / "b.ts").read_bytes()
    for joined, places in ((first + other + first, [(3.0, 6.0)]), (first + other, [(3.0, 6.0)]), (first * 2, [])):
        (tmp_path / "j.ts").write_bytes(joined)
        sampler = sampled(tmp_path / "j.ts")[1]
        found = [(start, end) for start, end in sampler.damaged if end - start > 1]
        assert found == [pytest.approx(place, abs=0.2) for place in places]


def test_joined_recordings_of_theora_are_whole(tmp_path):
    """Each has heads of its own amid the pictures, and pages that are counted anew under the same stream's number."""
    clip = numbered_clip(tmp_path / "c.mp4", 75, sound=tone(3.0, 48000, 1))
    ffmpeg("-i", clip, "-c:v", "libtheora", "-q:v", "7", "-c:a", "libvorbis", "-ac", "2", tmp_path / "a.ogv")
    one = (tmp_path / "a.ogv").read_bytes()
    (tmp_path / "j.ogv").write_bytes(one * 3)
    numbers, sampler = sampled(tmp_path / "j.ogv")
    assert sampler.damaged == []
    assert not any("damaged" in warning for warning in sampler.warnings)
    assert len(numbers) == 9
    assert numbers[3:] == numbers[:3] * 2
    page = one.rfind(b"OggS", 0, len(one) // 2)
    (tmp_path / "d.ogv").write_bytes(one + one[:page] + one[one.find(b"OggS", page + 4) :] + one)
    assert all(3.0 <= start < end <= 6.0 for start, end in sampled(tmp_path / "d.ogv")[1].damaged)
    assert sampled(tmp_path / "d.ogv")[1].damaged


def test_pictures_that_become_many_times_as_large_are_whole(tmp_path):
    clip = numbered_clip(tmp_path / "c.mp4", 50)
    small, large = tmp_path / "s.h264", tmp_path / "l.h264"
    ffmpeg("-i", clip, "-vf", "scale=320:180", "-c:v", "libx264", "-preset", "ultrafast", small)
    ffmpeg("-i", clip, "-vf", "scale=2560:1440", "-c:v", "libx264", "-preset", "ultrafast", large)
    (tmp_path / "j.h264").write_bytes(small.read_bytes() + large.read_bytes())
    numbers, sampler = sampled(tmp_path / "j.h264")
    assert sampler.damaged == []
    assert not any("damaged" in warning for warning in sampler.warnings)
    assert numbers[2:] == numbers[:2]


def test_sound_whose_channels_have_an_order_of_their_own(tmp_path):
    """As a MOV of eight: in a process of its own, which PyAV ends where it reads such an order."""
    path = tmp_path / "a.mov"
    ffmpeg("-i", signals(tmp_path / "a.mkv", 50, 2.0), "-c:v", "copy", "-c:a", "pcm_s16le", "-ac", "8", path)
    program = """
import sys
from pathlib import Path
from tests.vtsum.test_video_clock import beeps, flashes
from vtsum.video import cut
made = cut(sys.argv[1], [(0.0, 2.0)], Path(sys.argv[1]).with_name("out.mp4")).path
for path in (sys.argv[1], made):
    seen, heard = flashes(path), beeps(path)
    assert len(seen) == len(heard) == 2, (seen, heard)
    assert max(abs(a - b) for a, b in zip(seen, heard)) < 0.09, (seen, heard)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
