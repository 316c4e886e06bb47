"""A picture that does not come is told, though PyAV drops an error that comes together with pictures."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.vtsum.test_damage_told import VP, clip
from vtsum.video import FrameSampler, cut
from vtsum.video.owed import _is_shown
from vtsum.video.source import PacketDecoder, choose_video, open_container

HEVC = {"preset": "ultrafast", "x265-params": "log-level=none"}
ALTREF = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
CODECS = [
    ("libx264", ".mp4", {"bf": "2"}),
    ("libx265", ".mp4", HEVC),
    ("libvpx-vp9", ".mp4", VP),
    ("libvpx-vp9", ".webm", ALTREF),
    ("libsvtav1", ".mp4", {}),
    ("mpeg4", ".avi", {"b": "800k"}),
    ("utvideo", ".avi", {}),
]
BLOCKS = [("mpeg4", ".mkv", {"b": "800k"}), ("libvpx-vp9", ".webm", VP)]
STEP = 0.04


def _spoilt(path: Path, number: int) -> Path:
    """A copy in which a picture's packet does not decode."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    data = bytearray(path.read_bytes())
    at = data.index(bytes(packet), packet.pos)
    count = min(64, packet.size)  # more than a stream's head that stands before a key picture
    data[at : at + count] = b"\xff" * count
    spoilt = path.with_stem(f"spoilt{number}")
    spoilt.write_bytes(data)
    return spoilt


def _read(path: Path) -> FrameSampler:
    sampler = FrameSampler(path, fps=25.0, size=(32, 32))
    for _ in sampler:
        pass
    return sampler


@pytest.mark.parametrize(("codec", "ending", "options"), CODECS)
def test_an_error_of_the_last_packets_is_told(tmp_path, codec, ending, options):
    path = clip(tmp_path / f"whole{ending}", codec, options)
    whole = _read(path)
    assert (whole.decoded_frames, whole.warnings, whole.damaged) == (100, [], [])
    for back in range(1, 9):
        sampler = _read(_spoilt(path, -back))
        assert len(sampler.damaged) == 1, back
        start, end = sampler.damaged[0]
        assert 4.0 - (back + 4) * STEP <= start <= end <= 4.0 + STEP, back
        if codec in ("libvpx-vp9", "utvideo"):  # the others' later pictures refer to it
            assert sampler.warnings == ["1 damaged packets were passed over"]
            assert sampler.decoded_frames == 99


@pytest.mark.parametrize(("codec", "ending", "options"), [("libsvtav1", ".mp4", {}), ("libvpx-vp9", ".mp4", VP)])
def test_an_error_in_the_middle_is_told_where_pictures_came_with_it(tmp_path, codec, ending, options):
    path = clip(tmp_path / f"whole{ending}", codec, options)
    for number in range(40, 60):
        spoilt = _spoilt(path, number)
        sampler = _read(spoilt)
        assert sampler.damaged, number
        assert sampler.damaged[0][0] == pytest.approx(number * STEP, abs=9 * STEP)
        missing = 100 - sampler.decoded_frames
        assert sampler.warnings == [f"{max(missing, 1)} damaged packets were passed over"]
        if number % 10 == 6 and missing:  # a cut decodes for itself
            made = cut(spoilt, [(1.0, 3.5)], tmp_path / f"{number}.mp4")
            assert [1.5 < start <= end < 2.8 for start, end in made.damaged] == [True], number


def test_a_vp8_or_vp9_picture_that_is_not_shown_is_not_owed(tmp_path):
    for codec in ("libvpx", "libvpx-vp9"):
        path = clip(tmp_path / f"{codec}.webm", codec, ALTREF)
        sampler = _read(path)
        assert (sampler.decoded_frames, sampler.warnings, sampler.damaged) == (100, [], [])
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            shown = [_is_shown(packet, container.streams.video[0].codec_context.name) for packet in packets]
        assert sum(shown) == 100
    parts = {
        "vp8": [(b"\x10\0\0", True), (b"\x00\0\0", False)],
        # frame marker, profile, an existing one, kind, shown: of profile 3 behind one bit more
        "vp9": [(b"\x82\0", True), (b"\x80\0", False), (b"\x88\0", True), (b"\xb1\0", True), (b"\xb0\0", False)],
    }
    for codec, cases in parts.items():
        for data, shows in cases:
            assert _is_shown(av.Packet(data), codec) is shows, (codec, data)


@pytest.mark.parametrize(
    ("codec", "ending", "options"), [("mpeg4", ".mkv", {"b": "800k"}), ("libvpx-vp9", ".webm", VP)]
)
def test_a_block_of_no_track_of_the_file_is_damage(tmp_path, codec, ending, options):
    path = clip(tmp_path / f"whole{ending}", codec, options)
    assert _read(path).damaged == []
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    for number in (-1, -2, 50):
        data = bytearray(path.read_bytes())
        data[places[number]] = 0xFF  # of the block's track
        spoilt = path.with_stem("spoilt")
        spoilt.write_bytes(data)
        sampler = _read(spoilt)
        assert sampler.decoded_frames < 100
        assert len(sampler.damaged) == 1, number
        start, end = sampler.damaged[0]
        at = STEP * (number % 100)
        assert at - 9 * STEP <= start <= at + STEP <= end + 2 * STEP, (number, start, end)


@pytest.mark.parametrize(("codec", "ending", "options"), [*CODECS[2:4], CODECS[6]])
def test_the_last_pictures_come_where_others_may_be_passed_over(tmp_path, codec, ending, options):
    """As at the end of a file that states a longer time than it lasts."""
    path = clip(tmp_path / f"whole{ending}", codec, options)
    came = []
    for threads in (1, 8):
        with open_container(path, "test") as container:
            stream = choose_video(container, path, "test")
            stream.codec_context.thread_count = threads
            decoder = PacketDecoder(stream)
            frames = []
            for packet in [*(packet for packet in container.demux(stream) if packet.size), None]:
                stream.codec_context.skip_frame = "NONREF"
                frames += decoder.decode(packet)
            came.append([(frame.pts, frame.dts) for frame in frames])
    assert len(came[0]) > 50
    assert came[1] == came[0]
    assert len(set(came[1])) == len(came[1])
