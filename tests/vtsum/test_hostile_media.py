"""Files that name others or state more than they hold: refused, or taken for what can be decoded of them."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import number_picture, numbered_clip, tone, write_clip
from vtsum.enhance.speech.sound import read_sound
from vtsum.errors import VTSumError
from vtsum.video import FrameSampler, cut, probe
from vtsum.video.boxes import _in_chunks, excessive_index
from vtsum.video.clock import Clock
from vtsum.video.timeline import stream_tag_duration

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1"}
FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]
STBL = [b"trak", b"mdia", b"minf", b"stbl"]


def picture(number: int, _time: float) -> np.ndarray:
    return number_picture(number, 160, 90)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def changed(data: bytes, way: list[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """An MP4 with the content of one kind of box changed; what it points to must not lie behind the moov."""
    out, at = b"", 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + length]
        if kind == way[0]:
            content = changed(content, way[1:], change) if way[1:] else change(content)
        out += box(kind, content)
        at += length
    return out


def test_files_that_name_others_are_refused_unopened(tmp_path):
    """Each names a pipe that nobody writes to: to open it is to wait for ever."""
    folder = tmp_path / "in"
    folder.mkdir()
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    whole = numbered_clip(tmp_path / "clip.mp4", 25).read_bytes()
    record = bytes(150) + struct.pack(">hH", 2, len(str(pipe))) + os.fsencode(str(pipe)) + struct.pack(">hH", -1, 0)
    alias = struct.pack(">II", 0, 1) + box(b"alis", bytes(4) + record)
    texts = {
        "concat.ffconcat": "ffconcat version 1.0\nfile pipe\n",
        "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\npipe\n#EXT-X-ENDLIST\n",
        "marked.mp4": "\ufeff\n#EXTM3U\n#EXTINF:5,\npipe\n",
        "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>pipe</BaseURL></MPD>',
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "list.pls": "[playlist]\nFile1=pipe\n",
        "media.asx": "<asx version='3'><entry><ref href='pipe'/></entry></asx>",
        "reference.asf": "[Reference]\nRef1=http://127.0.0.1:9/pipe\n",
        "real.ram": "rtsp://127.0.0.1:9/pipe\n",
        "disc.cue": 'FILE "pipe" WAVE\n',
        "vob.idx": "# VobSub index file, v7 (do not modify this line!)\n",
    }
    found: dict[str, str] = dict.fromkeys(texts, "got a playlist")
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "names.m3u").write_text("pipe\n")
    found["names.m3u"] = "found text"
    (folder / "picture%d.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    found["picture%d.png"] = "found a still picture"
    (folder / "film%03d.jpg").write_bytes(whole)
    found["film%03d.jpg"] = "must not be named as FFmpeg names many pictures at once"
    (folder / "alias.mov").write_bytes(changed(whole, [b"moov", *STBL[:3], b"dinf", b"dref"], lambda _: alias))
    found["alias.mov"] = "no picture could be decoded"
    found["pipe"] = "got a pipe"
    files = [folder / name for name in found]
    done = forked.run(
        [sys.executable, "-m", "vtsum.cli", "extract", *map(str, files), "-o", str(tmp_path / "out"), "-q"],
        env=ENVIRONMENT,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(files)
    for file, line in zip(files, lines, strict=True):
        assert line.startswith(f"vtsum: probe: {file}: "), line
        assert found[file.name] in line, line


def test_edits_that_repeat_a_track_are_refused_before_an_index_is_made_of_them(tmp_path):
    """8,000 edits of a whole track of 100,000 samples: 100 kB that libav takes for 19 GB."""
    data = numbered_clip(tmp_path / "clip.mp4", 25).read_bytes()
    samples, edits = 100_000, 8_000
    data = changed(data, [b"moov", *STBL, b"stsz"], lambda _: struct.pack(">III", 0, 1, samples))
    data = changed(data, [b"moov", *STBL, b"stts"], lambda _: struct.pack(">IIII", 0, 1, samples, 512))
    data = changed(data, [b"moov", *STBL, b"stsc"], lambda _: struct.pack(">IIIII", 0, 1, 1, samples, 1))
    repeated = struct.pack(">II", 0, edits) + struct.pack(">IiI", 4_000_000, 0, 65536) * edits
    path = tmp_path / "repeats.mp4"
    path.write_bytes(changed(data, [b"moov", b"trak", b"edts", b"elst"], lambda _: repeated))
    done = forked.run(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o")],
        env=ENVIRONMENT,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"vtsum: probe: {path}: must not repeat its pictures without end, states 8000 edits of 100000 samples\n"
    )


def test_edits_that_begin_behind_key_pictures_are_no_endless_work(tmp_path):
    """For each libav decodes from the key picture before it on: thousands of a few milliseconds each took minutes."""
    path = numbered_clip(tmp_path / "clip.mp4", 25)
    data, second = path.read_bytes(), 90_000  # in units of the track's clock
    found = {}
    for count in (30, 6_000):
        for version, entry in ((0, ">IiI"), (1, ">QqI")):
            edits = b"".join(struct.pack(entry, 40, i % 25 * second // 25, 65536) for i in range(count))
            listed = bytes([version, 0, 0, 0]) + struct.pack(">I", count) + edits
            path.write_bytes(changed(data, [b"moov", b"trak", b"edts", b"elst"], lambda _, listed=listed: listed))
            found[count, version] = excessive_index(path)
    assert found[30, 0] is found[30, 1] is None
    decoded = "must not repeat its pictures without end, states edits for which 75360 are decoded of 25 samples"
    assert found[6_000, 0] == found[6_000, 1] == decoded
    done = forked.run(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o")],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, f"vtsum: probe: {path}: {decoded}\n")


@pytest.mark.parametrize("where", ["table", "fragment", "compressed index"])
def test_samples_that_a_file_cannot_hold_are_refused_before_an_index_is_made_of_them(tmp_path, where):
    """200,000,000 samples of two bytes in a file of some kilobytes, of which libav would make 10 GB."""
    path = tmp_path / "states.mp4"
    data = numbered_clip(path, 25).read_bytes()
    samples = 200_000_000
    if where == "fragment":
        run = box(b"trun", struct.pack(">II", 0, samples))
        data += box(b"moof", box(b"traf", box(b"tfhd", struct.pack(">II", 0, 1)) + run)) + box(b"mdat", b"")
    else:
        data = changed(data, [b"moov", *STBL, b"stsz"], lambda _: struct.pack(">III", 0, 2, samples))
    if where == "compressed index":
        at = data.index(b"moov") - 4
        length = int.from_bytes(data[at : at + 4], "big")
        small = zlib.compress(data[at : at + length])
        hidden = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", length) + small)
        data = data[:at] + box(b"moov", box(b"cmov", hidden)) + data[at + length :]
    path.write_bytes(data)
    done = forked.run(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o")],
        env=ENVIRONMENT,
        timeout=30,
    )
    assert done.returncode == 2
    stated = samples if where != "fragment" else samples + 25
    assert done.stderr == (
        f"vtsum: probe: {path}: must hold the samples that its tables state, got {stated} in {len(data)} bytes\n"
    )


def test_a_stated_time_of_decades_is_no_work(tmp_path):
    """Two pictures 10^9 s apart, and a sound that begins as late: 30 kB that were sampled 10^9 times."""
    video = write_clip(tmp_path / "v.mkv", [0.0, 0.5, 1e9, 1e9 + 0.5], picture, rate=2, sound=tone(2.0, 48000, 1))
    done = forked.run(
        [*FAKE, "summarize", str(video), "-o", str(tmp_path / "o"), "--budget", "50%"],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "note: timestamps jump in 1 place" in done.stderr
    data = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert data["source"]["duration"] == pytest.approx(2.0, abs=0.01)
    assert len(data["frames"]["time"]) == 2


def test_a_stream_that_begins_ages_before_0_is_no_work(tmp_path):
    """Pictures of a first cluster 30 years before those of the second, which were sampled 10^9 times."""
    data = numbered_clip(tmp_path / "clip.mkv", 200).read_bytes()
    segment = data.index(b"\x18S\x80g") + 4
    one, two, *_ = (match.start() for match in re.finditer(b"\x1fC\xb6u", data) if match.start() > 500)
    content = data.index(b"\xe7", one)
    blocks = data[content + 2 + (data[content + 1] & 0x7F) : two]
    cluster = b"\xe7\x88" + struct.pack(">q", -(10**12)) + blocks
    early = tmp_path / "early.mkv"
    early.write_bytes(
        data[:segment]
        + b"\x01"
        + bytes([255] * 7)  # no length is stated
        + data[segment + 8 : one]
        + b"\x1fC\xb6u"
        + (1 << 56 | len(cluster)).to_bytes(8, "big")
        + cluster
        + data[two:]
    )
    command = [*FAKE, "summarize", str(early), "-o", str(tmp_path / "o"), "--budget", "50%", "-f", "txt"]
    done = forked.run(command, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "note: timestamps jump in 1 place" in done.stderr
    assert "of 0:08\n" in (tmp_path / "o" / "summary.txt").read_text()


def test_a_stated_time_without_end_is_none(tmp_path):
    """Matroska states durations as text: to Python "inf" and "nan" are numbers."""
    data = numbered_clip(tmp_path / "clip.mkv", 25).read_bytes()
    for word in (b"inf:0:0", b"nan:0:0"):
        odd = tmp_path / "odd.mkv"
        odd.write_bytes(re.sub(rb"00:00:0[01]\.\d{9}", word.ljust(18, b"\0"), data))
        assert odd.read_bytes() != data
        with av.open(str(odd)) as container:
            assert stream_tag_duration(container.streams.video[0]) is None
        command = [*FAKE, "summarize", str(odd), "-o", str(tmp_path / "o"), "--overwrite", "-f", "txt"]
        done = forked.run(command, env=ENVIRONMENT, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (0, 0) or done.stderr.startswith("vtsum: note"), (
            done.stderr
        )


def test_samples_follow_pictures(tmp_path):
    long_last = write_clip(tmp_path / "last.mkv", [0.0, 1.0], picture, rate=1, last_duration=1e9)
    sampler = FrameSampler(long_last)
    assert sum(1 for _ in sampler) == 2
    assert sampler.duration == pytest.approx(2.0)
    slow = write_clip(tmp_path / "slow.mkv", [i * 3000.0 for i in range(30)], picture, rate=1)
    sampler = FrameSampler(slow, fps=0.1)
    count = sum(1 for _ in sampler)
    assert 9 * 300 <= count <= 8 * 360  # eight hours of pictures that stay for 50 minutes each, then no more
    assert any("timestamps jump" in line for line in sampler.warnings)
    result = cut(slow, [(sampler.duration - 3.0, sampler.duration)], tmp_path / "out.mp4")  # on the same clock
    assert result.duration == pytest.approx(3.0, abs=0.1)
    hours = write_clip(tmp_path / "hours.mkv", [0.0, 3500.0, 7000.0], picture, rate=1)
    sampler = FrameSampler(hours, fps=0.01)
    assert sum(1 for _ in sampler) == 71
    assert sampler.warnings == []


def test_sound_that_begins_after_decades(tmp_path):
    clip = numbered_clip(tmp_path / "late.mkv", 50, sound=tone(1.0, 48000, 1), sound_start=1e9)
    seconds = sum(len(block) for _, block in read_sound(clip)) / 16000
    assert seconds == pytest.approx(1.0, abs=0.1)
    assert cut(clip, [(0.5, 1.5)], tmp_path / "out.mp4").duration == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("extreme", [2**62, -(2**62), 2**40, -(2**40)])
def test_times_at_the_ends_of_their_type(tmp_path, extreme):
    with av.open(str(numbered_clip(tmp_path / "clip.mkv", 25, options={"bf": "0"}))) as container:
        (stream,) = container.streams.video
        clock = Clock(container, [stream])
        packets = [packet for packet in container.demux(stream) if packet.size]
        packets[5].pts = packets[5].dts = extreme
        for number, packet in enumerate(packets):
            clock.place(packet, packets[number + 1 :])
        assert packets[5].pts in (None, 200)  # None: one step after the one before it
        del packets[5]
        assert [packet.pts for packet in packets] == [40 * n for n in range(25) if n != 5]


def test_time_that_goes_back_for_ever(tmp_path):
    with av.open(str(numbered_clip(tmp_path / "clip.mkv", 200, options={"bf": "0"}))) as container:
        (stream,) = container.streams.video
        clock = Clock(container, [stream])
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = -10_000 * number
        for number, packet in enumerate(packets):
            clock.place(packet, packets[number + 1 :])
        assert [packet.pts for packet in packets] == [40 * n for n in range(200)]


@pytest.mark.parametrize("sought", [False, True])
def test_tags_without_number_are_refused_before_they_are_read(tmp_path, sought):
    """44 kB of empty tags took libav six seconds, ten times as many an hour; by a seek head it finds them anywhere."""

    def sized(kind: int, content: bytes) -> bytes:
        size = (0x0100000000000000 + len(content)).to_bytes(8, "big")
        return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size + content

    data = numbered_clip(tmp_path / "clip.mkv", 25).read_bytes()
    tags = sized(0x1254C367, b"\x73\x73\x80" * 20_000)
    at = data.index(b"\x18\x53\x80\x67") + 4
    body = data[at + 8 :]
    if sought:
        unknown = b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7
        entry = sized(0x4DBB, sized(0x53AB, b"\x12\x54\xc3\x67") + sized(0x53AC, (10_000_000).to_bytes(8, "big")))
        head = sized(0x114D9B74, entry)
        filler = unknown + bytes(10_000_000 - len(head) - len(body) - len(unknown))
        body = head + body + filler + tags
    else:
        body = tags + body
    (tmp_path / "tags.mkv").write_bytes(data[:at] + (0x0100000000000000 + len(body)).to_bytes(8, "big") + body)
    started = time.monotonic()
    with pytest.raises(VTSumError, match="must hold at most 1000 tags, got more"):
        probe(tmp_path / "tags.mkv")
    assert time.monotonic() - started < 5
    assert probe(tmp_path / "clip.mkv").duration == pytest.approx(1.0)


def test_tags_in_one_another_are_no_work(tmp_path):
    """A seek head may lead to as many lists of tags as it has entries, each of which goes on to the end of the file."""

    def sized(kind: int, content: bytes) -> bytes:
        size = (0x0100000000000000 + len(content)).to_bytes(8, "big")
        return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size + content

    data = numbered_clip(tmp_path / "clip.mkv", 25).read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    count, step = 20_000, 9 + 12  # a head of tags hidden in each void element

    def head(first: int) -> bytes:
        places = (first + step * i + 9 for i in range(count))
        name = sized(0x53AB, b"\x12\x54\xc3\x67")
        return sized(0x114D9B74, b"".join(sized(0x4DBB, name + sized(0x53AC, p.to_bytes(8, "big"))) for p in places))

    begin = len(head(0)) + len(data[at + 8 :])
    voids = [
        sized(0xEC, b"\x12\x54\xc3\x67" + (0x0100000000000000 + step * (count - 1 - i)).to_bytes(8, "big"))
        for i in range(count)
    ]
    body = head(begin) + data[at + 8 :] + b"".join(voids)
    path = tmp_path / "tags.mkv"
    path.write_bytes(data[:at] + (0x0100000000000000 + len(body)).to_bytes(8, "big") + body)
    done = summarize(path, tmp_path / "o")
    assert (done.returncode, done.stderr) == (2, f"vtsum: probe: {path}: must hold at most 1000 tags, got more\n")


@pytest.mark.parametrize("kind", ["behind", "in fragments", "in an index", "packed", "in a track", "packed often"])
def test_boxes_without_number_are_refused_before_libav_reads_them(tmp_path, kind):
    """A compressed index of 90 kB held eight million empty boxes, which took ten seconds to look at."""
    data = numbered_clip(tmp_path / "clip.mp4", 25).read_bytes()
    start = data[: struct.unpack(">I", data[:4])[0]]
    empty = box(b"free", b"")
    millions = box(b"moov", empty * 4_000_000)
    index = struct.pack(">I", len(millions)) + zlib.compress(millions)
    packed = box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", index)))
    large = struct.pack(">I", 40 << 20) + zlib.compress(bytes(40 << 20))
    tables = empty * 20_000
    for holder in reversed([b"moov", *STBL]):
        tables = box(holder, tables)
    made, message = {
        "behind": (data + empty * 600_000, "boxes"),
        "in fragments": (data + box(b"moof", box(b"traf", b"")) * 200_000, "boxes"),
        "in an index": (start + box(b"moov", empty * 600_000), "boxes"),
        "packed": (start + packed, "200000 boxes"),
        "in a track": (start + tables, "10000 boxes in a track"),
        "packed often": (
            start + box(b"moov", box(b"cmov", box(b"cmvd", large))) * 2,
            "must hold an index of at most 67108864 bytes",
        ),
    }[kind]
    path = tmp_path / "boxes.mp4"
    path.write_bytes(made)
    done = summarize(path, tmp_path / "o")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"vtsum: probe: {path}: must hold ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def summarize(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*FAKE, "summarize", path, "-o", folder, "-q"]
    return forked.run(command, env=ENVIRONMENT, timeout=30)


def test_a_table_of_chunks_without_end_is_added_up_at_once():
    table = memoryview(bytes(8) + struct.pack(">III", 1, 2, 1) + struct.pack(">III", 4, 3, 1))
    assert _in_chunks(table, 5) == 3 * 2 + 2 * 3
    assert _in_chunks(memoryview(b""), 5) == 0
    started = time.process_time()
    assert _in_chunks(memoryview(bytes(60 << 20)), 5) == 0
    assert time.process_time() - started < 3


def many_tracks(path: Path, count: int) -> Path:
    """An MP4 of so many tracks, each the one of a clip."""
    data = numbered_clip(path, 25).read_bytes()
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    moov = data[at + 8 : at + size]
    tracks = moov.index(b"trak") - 4
    track = moov[tracks : tracks + int.from_bytes(moov[tracks : tracks + 4], "big")]
    path.write_bytes(data[:at] + box(b"moov", moov[:tracks] + track * count) + data[at + size :])
    return path


def test_many_streams(tmp_path):
    """An MP4 of 10,000 tracks; libav takes a thousand."""
    path = many_tracks(tmp_path / "tracks.mp4", 10_000)
    began = time.monotonic()
    with pytest.raises(VTSumError, match=r"tracks\.mp4: states more than 1000 streams"):
        probe(path)
    assert time.monotonic() - began < 20


def test_as_many_streams_as_libav_takes_are_read(tmp_path):
    """A crash: a file of one stream more was made, in order to ask whether further ones had turned up."""
    path = many_tracks(tmp_path / "tracks.mp4", 1000)
    done = forked.run(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o"), "-q"], env=ENVIRONMENT, cwd=tmp_path, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < probe(tmp_path / "o/summary.mp4").duration < 1


def test_a_signal_is_answered_while_a_hole_is_searched(tmp_path):
    """A Matroska file that goes on as 200 GB of nothing, which libav searches for the next cluster in one call."""
    path = numbered_clip(tmp_path / "hole.mkv", 250)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size // 2))
        file.truncate(200 << 30)
    process = subprocess.Popen(
        [*FAKE, "summarize", str(path), "-o", str(tmp_path / "o")], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(4)  # it has begun to read
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=25)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == ["hole.mkv"]
