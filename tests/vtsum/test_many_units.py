"""Pictures of H.264 and HEVC of so many units that libav would take gigabytes for them."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.vtsum.clips import number_picture, write_clip
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, probe
from vtsum.video.source import PacketDecoder, choose_video, open_container

EMPTY = {"h264": b"\0\0\1\x0c\x80", "hevc": b"\0\0\1\x4c\x01\x80"}  # filler
SUFFIX = {"avi": "avi", "mpegts": "ts", "mpeg": "mpg", "nut": "nut", "matroska": "mkv", "mov": "mov", "h264": "h264"}
_PROBE = """
import sys
from vtsum.errors import VTSumError
from vtsum.video import probe
try:
    probe(sys.argv[1])
except VTSumError as error:
    print(error)
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
_ENDLESS = """
import threading
import numpy as np
from vtsum.video import opening
opening.OPEN_MEMORY, opening._AT_WORK, opening._LOOK = 1 << 28, 0.1, 0.01
stop = threading.Event()
def compute():
    taken = []
    while not stop.is_set():
        taken.append(np.ones(1 << (20 if len(taken) < 100 else 0)))
try:
    opening.within(20.0, compute)
except opening.EndlessError as error:
    print(error)
stop.set()
"""
_OTHERS = """
import threading
import time
import numpy as np
from vtsum.video import opening
opening.OPEN_MEMORY, opening._LOOK = 1 << 28, 0.01
taken = []
other = threading.Thread(target=lambda: taken.append(np.ones(1 << 26)))
def wait():
    other.start()
    other.join()
    time.sleep(0.2)
    return "opened"
print(opening.within(60.0, wait), taken[0].nbytes > opening.OPEN_MEMORY)
"""


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell how much memory a process has")


def _said(program: str, *words: str) -> str:
    """What a process of its own says: the memory of the tests' own is what other tests have left of it."""
    line = [sys.executable, "-c", program, *words]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout


def picture(number: int, _time: float) -> np.ndarray:
    return number_picture(number, 160, 96)


def _bare(folder: Path, codec: str, **options: str) -> Path:
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    times = [n / 25 for n in range(10)]
    return write_clip(folder / f"a.{codec}", times, picture, codec=encoder, format=codec, options=options)


def _crowded(folder: Path, form: str, codec: str, count: int) -> Path:
    """A video whose first picture has so many units, between start codes in whatever format."""
    source = _bare(folder, codec)
    units = EMPTY[codec] * count
    path = folder / f"b.{SUFFIX.get(form, form)}"
    if form == codec:
        path.write_bytes(source.read_bytes()[:2000] + units)
        return path
    # As MPEG-4 Matroska and MOV take units as they come; the name of the codec is changed then.
    with av.open(source) as clip, av.open(path, "w", format=form) as out:
        own = form not in ("matroska", "mov")
        stream = out.add_stream_from_template(clip.streams.video[0]) if own else out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 160, 96
        for number, packet in enumerate(each for each in clip.demux(video=0) if each.size):
            made = av.Packet(bytes(packet) + (b"" if number else units))
            made.pts = made.dts = number
            made.time_base, made.is_keyframe, made.stream = Fraction(1, 25), not number, stream
            out.mux(made)
    content = path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_MPEG4/ISO/AVC")
    path.write_bytes(content.replace(b"mp4v", b"avc1").replace(b"esds", b"free"))
    return path


@LINUX
@pytest.mark.parametrize("form", ["h264", "avi", "mpegts", "mpeg", "nut", "matroska"])
def test_a_picture_of_units_without_end_is_refused_unopened(form: str, tmp_path: Path) -> None:
    path = _crowded(tmp_path, form, "h264", 100_000)
    told, peak = _said(_PROBE, str(path)).splitlines()
    assert told == f"probe: {path}: must hold at most 10000 units of h264 a picture, got more"
    assert int(peak) < 300_000, "kB; libav takes 8 for each unit"


@pytest.mark.parametrize("form", ["hevc", "mpegts"])
def test_of_hevc_too(form: str, tmp_path: Path) -> None:
    path = _crowded(tmp_path, form, "hevc", 20_000)
    with pytest.raises(VTSumError, match=r"must hold at most 10000 units of hevc a picture, got more$"):
        probe(path)


@pytest.mark.parametrize("form", ["h264", "mpegts"])
def test_pictures_of_a_unit_a_block_are_decoded(form: str, tmp_path: Path) -> None:
    """Here of sixty: each block is one."""
    source = _bare(tmp_path, "h264", **{"x264-params": "slice-max-mbs=1"})
    assert source.read_bytes().count(b"\0\0\1") > 600
    path = source
    if form != "h264":
        path = tmp_path / "a.ts"
        with av.open(source) as clip, av.open(path, "w", format=form) as out:
            stream = out.add_stream_from_template(clip.streams.video[0])
            for number, packet in enumerate(each for each in clip.demux(video=0) if each.size):
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 25), stream
                out.mux(packet)
    sampler = FrameSampler(path, fps=25.0, size=(32, 32))
    assert (len(list(sampler)), sampler.damaged) == (10, [])


@pytest.mark.parametrize(("count", "errors"), [(9_000, 0), (11_000, 1)])
def test_a_later_picture_of_units_without_end_is_damage(count: int, errors: int, tmp_path: Path) -> None:
    source = _bare(tmp_path, "h264")
    with open_container(source, "test") as clip:
        stream = choose_video(clip, source, "test")
        decoder = PacketDecoder(stream)
        for packet in clip.demux(stream):
            decoder.decode(av.Packet(bytes(packet) + EMPTY["h264"] * count) if packet.is_keyframe else packet)
        assert decoder.errors >= errors
        assert bool(decoder.errors) == bool(errors)


def test_lengths_are_no_start_codes(tmp_path):
    """Of 256 to 511 bytes they look like one."""
    times = [n / 25 for n in range(10)]
    path = write_clip(tmp_path / "a.mp4", times, picture, codec="libx264")
    with open_container(path, "test") as clip:
        stream = choose_video(clip, path, "test")
        decoder = PacketDecoder(stream)
        filler = (b"\0\0\1\0" + b"\x0c" * 256) * 11_000
        first = next(packet for packet in clip.demux(stream) if packet.is_keyframe)
        decoder.decode(av.Packet(filler + bytes(first)))
        decoder.decode(None)
        assert decoder.errors == 0


@LINUX
def test_memory_without_end_is_not_waited_for():
    """As of units in a MOV, whose index may lie at its end."""
    assert _said(_ENDLESS) == "in 0 GiB of memory\n"


@LINUX
def test_memory_that_others_take_is_no_file_s():
    assert _said(_OTHERS) == "opened True\n"
