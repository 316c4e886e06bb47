"""Damage in what a file says of its tracks, and an end that is missing by its own statement, are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tests import forked
from tests.vtsum.clips import tone, write_clip
from tests.vtsum.test_damage_told import ENVIRONMENT, FAKE, moving
from vtsum.video import FrameSampler
from vtsum.video.checksum import checksum
from vtsum.video.spoilt import spoilt_check


def _clip(path: Path, codec: str, sound: str | None, count: int = 50, **more) -> bytes:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    heard = None if sound is None else tone(count / 25, 48000, 1)
    times = [n / 25 for n in range(count)]
    write_clip(path, times, moving, codec=codec, pix_fmt=pix_fmt, sound=heard, sound_codec=sound or "", **more)
    return path.read_bytes()


def _told(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    sampler = FrameSampler(path, fps=5.0, size=(32, 32))
    assert list(sampler)
    return sampler.warnings + [f"{start:.1f}" for start, _ in sampler.damaged]


def _replaced(content: bytes, old: bytes, new: bytes, number: int = 0) -> bytes:
    at = -1
    for _ in range(number + 1):
        at = content.index(old, at + 1)
    return content[:at] + new + content[at + len(old) :]


@pytest.mark.parametrize(
    ("ending", "codec", "sound", "harm"),
    [
        # The second track's element is no longer filled by its own: libav knows no sound there.
        (".mkv", "libx264", "aac", lambda c: _replaced(c, b"\x22\xb5\x9c", b"\0\0\0", 1)),
        (".webm", "libvpx", "libopus", lambda c: _replaced(c, b"\x22\xb5\x9c", b"\xff\xff\xff", 1)),
        # The kind of sound is another: the elements fill their places, but the checksum is wrong.
        (".mkv", "libx264", "aac", lambda c: _replaced(c, b"A_AAC", b"A_AAX")),
        (".avi", "mpeg4", "mp3", lambda c: _replaced(c, b"LIST", b"\xff\xff\xff\xff", 3)),
        (".avi", "mpeg4", "mp3", lambda c: _replaced(c, b"strh", b"\0\0\0\0", 1)),
        # What is left are pictures that libav finds, and takes for the whole.
        (".mkv", "mjpeg", None, lambda c: bytes(8) + c[8:]),
    ],
)
def test_a_track_whose_head_is_damaged_is_missed(
    ending: str, codec: str, sound: str | None, harm: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = _clip(tmp_path / f"whole{ending}", codec, sound)
    assert _told(tmp_path / f"a{ending}", whole) == []
    assert _told(tmp_path / f"b{ending}", harm(whole))[-1:] == ["0.0"]


def test_sound_of_an_unknown_kind_is_told(tmp_path):
    whole = _clip(tmp_path / "whole.wmv", "wmv2", "mp3")
    kind = b"\x55\0\1\0\x80\xbb\0\0"  # MP3 of one channel, 48 kHz
    path = tmp_path / "a.wmv"
    told = _told(path, _replaced(whole, kind, b"\xed\xfe" + kind[2:]))
    assert told == ["the sound is of a kind that cannot be read: it is left out"]
    command = [*FAKE, "summarize", str(path), "-f", "json", "--no-ocr", "-q", "-o", str(tmp_path / "out")]
    done = forked.run(command, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert told[0] in json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]


def test_a_file_shorter_than_its_segment_states_is_told_wherever_it_ends(tmp_path):
    """Too few packets to be judged by, and no sound."""
    whole = _clip(tmp_path / "whole.mkv", "libx264", None, options={"g": "5"})
    with av.open(str(tmp_path / "whole.mkv")) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.pos]
    for at in (packets[2], packets[2] + 20, packets[20], packets[-1], len(whole) - 1):
        assert _told(tmp_path / "a.mkv", whole[:at])
    assert _told(tmp_path / "a.mkv", whole) == []


def test_the_last_packet_of_a_program_stream_cut_short_is_told(tmp_path):
    whole = _clip(tmp_path / "whole.mpg", "mpeg2video", "mp2", options={"b": "800k"})
    assert _told(tmp_path / "a.mpg", whole) == []
    assert _told(tmp_path / "a.mpg", whole + b"\0\0\1\xb9") == []
    assert _told(tmp_path / "a.mpg", whole + bytes(500)) == []
    for left in (1, 20, 500, 1500):
        assert _told(tmp_path / "a.mpg", whole[:-left]), left


def test_slices_of_ffv1_are_held_to_their_checksums(tmp_path):
    def packets(**options: str) -> list[bytes]:
        path = tmp_path / "a.mkv"
        _clip(path, "ffv1", None, 3, options=options)
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    first, second, third = packets(level="3", slices="4", slicecrc="1")
    assert checksum(first[-8 - int.from_bytes(first[-8:-5], "big") :]) == 0
    for at in (0, 100, len(second) - 1, len(second) - 7):
        harmed = second[:at] + bytes([second[at] ^ 1]) + second[at + 1 :]
        is_spoilt = spoilt_check("ffv1")
        assert [is_spoilt(av.Packet(data)) for data in (first, harmed, third)] == [False, True, False]
    is_spoilt = spoilt_check("ffv1")
    assert is_spoilt(av.Packet(first[:50] + bytes(20) + first[70:]))  # the first one: its other slices are right
    for options in ({"level": "3", "slices": "4", "slicecrc": "0"}, {"level": "1"}):
        is_spoilt = spoilt_check("ffv1")
        for data in packets(**options):
            assert not is_spoilt(av.Packet(data))
    assert checksum(b"123456789") == 0x89A1897F  # CRC-32/BZIP2 without its inversions
