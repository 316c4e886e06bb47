"""Tags, chapters and texts by the ten thousand: libav looks through all of them for each further one."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests import forked
from tests.vtsum.clips import numbered_clip
from tests.vtsum.samples import ENVIRONMENT
from vtsum.video.opening import EndlessError, within

COMMAND = [sys.executable, "-m", "vtsum", "summarize"]


def sized(kind: int, content: bytes) -> bytes:
    """An element of Matroska."""
    size = (0x0100000000000000 + len(content)).to_bytes(8, "big")
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size + content


def with_elements(path: Path, elements: bytes) -> Path:
    """A Matroska file that begins with these."""
    data = numbered_clip(path, 25).read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    body = elements + data[at + 8 :]
    path.write_bytes(data[:at] + (0x0100000000000000 + len(body)).to_bytes(8, "big") + body)
    return path


def tags(count: int) -> bytes:
    """So many texts of one tag, of the file itself."""
    texts = (sized(0x67C8, sized(0x45A3, b"T%d" % i) + sized(0x4487, b"v")) for i in range(count))
    return sized(0x1254C367, sized(0x7373, b"".join(texts)))


def chapters(count: int) -> bytes:
    """So many chapters whose numbers go down."""
    atoms = (
        sized(0xB6, sized(0x73C4, (count - i).to_bytes(4, "big")) + sized(0x91, i.to_bytes(8, "big")))
        for i in range(count)
    )
    return sized(0x1043A770, sized(0x45B9, b"".join(atoms)))


def flv(path: Path, count: int) -> Path:
    """An FLV with so many properties, which are tags to libav."""
    data = numbered_clip(path, 25).read_bytes()
    words = b"".join(b"\0\7k%06d\2\0\1v" % i for i in range(count))
    content = b"\2\0\x0aonMetaData\x08" + struct.pack(">I", count) + words + b"\0\0\x09"
    tag = b"\x12" + len(content).to_bytes(3, "big") + bytes(7) + content + (len(content) + 11).to_bytes(4, "big")
    path.write_bytes(data[:13] + tag + data[13:])
    return path


@pytest.mark.parametrize("kind", ["tags", "chapters", "flv"])
def test_tags_and_chapters_without_number_are_refused_when_they_have_been_read_once(tmp_path, kind):
    if kind == "flv":
        path = flv(tmp_path / "x.flv", 5_000)
    else:
        path = with_elements(tmp_path / "x.mkv", tags(5_000) if kind == "tags" else chapters(11_000))
    done = forked.run([*COMMAND, str(path), "-o", str(tmp_path / "o")], env=ENVIRONMENT, timeout=60)
    assert done.returncode == 2
    expected = "10000 chapters, got 11000" if kind == "chapters" else "2000 tags of one thing, got 500"
    assert done.stderr.startswith(f"vtsum: probe: {path}: must hold at most {expected}")
    assert done.stderr.count("\n") == 1


def test_as_many_tags_and_chapters_as_files_have_are_read(tmp_path):
    path = with_elements(tmp_path / "x.mkv", tags(1_500) + chapters(1_000))
    done = forked.run([*COMMAND, str(path), "-o", str(tmp_path / "o"), "-q"], env=ENVIRONMENT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_is_answered_while_tags_without_end_are_read(tmp_path):
    """200,000 of them are a minute or more of one call."""
    path = with_elements(tmp_path / "x.mkv", tags(200_000))
    process = subprocess.Popen(
        [*COMMAND, str(path), "-o", str(tmp_path / "o")], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(5)  # it has begun to read
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert time.monotonic() - began < 5
        assert process.returncode == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_what_takes_too_long_to_open_is_given_up(tmp_path):
    path = with_elements(tmp_path / "x.mkv", tags(300_000))
    began = time.monotonic()
    done = forked.run([*COMMAND, str(path), "-o", str(tmp_path / "o")], env=ENVIRONMENT, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"vtsum: probe: {path}: could not be opened within 20 s\n")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", ["x.flv", "-"])
def test_a_stream_is_held_to_the_same_tags(tmp_path, name):
    path = flv(tmp_path / "x.flv", 5_000)
    source = str(path) if name == "x.flv" else "-"
    words = [*COMMAND, source, "-o", str(tmp_path / "o"), "--live"]
    with open(path, "rb") as file:
        done = subprocess.run(words, env=ENVIRONMENT, timeout=60, stdin=file, capture_output=True, text=True)
    told = "standard input" if name == "-" else path
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"vtsum: stream: {told}: must hold at most 2000 tags of one thing, got 500")


def test_who_waits_for_a_stream_is_not_given_up():
    """It may come slowly; what is made of it may not take long."""

    def compute():
        end = time.thread_time() + 30
        while time.thread_time() < end:
            pass

    began = time.monotonic()
    with pytest.raises(EndlessError):
        within(0.3, compute, computing=True)
    assert time.monotonic() - began < 20
    assert within(0.3, lambda: time.sleep(1.5), computing=True) is None
    with pytest.raises(EndlessError):
        within(0.3, lambda: time.sleep(1.5))


def test_texts_without_end_beside_a_picture_are_not_sorted(tmp_path):
    """A picture in PNG with 100,000 texts, which its decoder sorted for a minute, deaf to signals."""
    path = tmp_path / "x.mov"

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(bytes(65 * 64))) + chunk(b"IEND", b"")
    texts = b"".join(chunk(b"tEXt", b"k%06d\0v" % i) for i in range(100_000))
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "gray"
        for number in range(20):
            packet = av.Packet(start + (texts if number == 10 else b"") + end)
            packet.stream, packet.time_base = stream, Fraction(1, 5)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    began = time.monotonic()
    done = forked.run([*COMMAND, str(path), "-o", str(tmp_path / "o"), "-q"], env=ENVIRONMENT, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("vtsum: note: the file is damaged at "), done.stderr
    assert time.monotonic() - began < 40
